//! How far this host has seen the chains of volumes that were in its directory, so that it notices a bucket that was put
//! back to an earlier state.

use vfsd_backend::Result;

use super::local::{Local, SeenPoint};
use super::shipped::Shipping;
use crate::bucket::Seen;

/// Volumes that are remembered: those that were here last.
const MOST: usize = 64;

/// All that is known of it. It stays known when the shipped image is given up.
///
/// # Errors
/// A file of the directory cannot be read or written.
pub(super) fn take_stock(local: &Local) -> Result<Seen> {
    let mut known = local.seen()?;
    if let Some(identity) = local.identity()?
        && !identity.uuid.is_empty()
        && local.shipped().exists()
    {
        let at = Shipping::open(&local.shipped())?.point();
        let earlier = known.iter().find(|seen| seen.uuid == identity.uuid);
        if earlier.is_none_or(|earlier| earlier.at.seq < at.seq) {
            known.retain(|seen| seen.uuid != identity.uuid);
            known.push(SeenPoint {
                uuid: identity.uuid,
                at,
            });
            known.drain(..known.len().saturating_sub(MOST));
            local.write_seen(&known)?;
        }
    }
    let of_uuid = |seen: SeenPoint| {
        let uuid = u128::from_str_radix(&seen.uuid, 16).ok()?;
        Some((uuid.to_be_bytes(), seen.at))
    };
    Ok(known.into_iter().filter_map(of_uuid).collect())
}
