//! Opening what a volume is in its bucket now, to be read: another daemon may have it, and keeps it.
//!
//! All that was published is there, as of the moment at which it is opened: the last checkpoint and the log after it. It
//! does not follow what is written later. A temporary snapshot holds what it names, so that a clean-up leaves it alone.

use std::path::Path;

use super::frozen::{self, Rows};
use super::local::Local;
use super::open::RemoteOptions;
use super::pin::Pin;
use super::snapshot::{Held, hold_now};
use crate::Volume;
use crate::bucket::Term;
use crate::error::VolumeError;
use crate::key::Bucket;
use crate::layout::Lock;

/// How the names of snapshots begin that hold what is shown.
const READING: &str = "reading";

impl Volume {
    /// Opens the volume below `prefix` of a bucket as it is there now, whoever has it: nothing of it can be changed, and what is
    /// written to it later is not seen. `directory` is one for this reader, of which the caller has the `lock`: it
    /// keeps what was read, for the next time if nothing has changed by then. Of the options, durability, takeover and what
    /// is said of changes are of no account.
    ///
    /// A temporary snapshot holds what is read, and is renewed each hour. Where the store does not let this host write, there is
    /// none: then what was not read is EIO once a clean-up has removed it, because nothing names it any more or it was moved.
    ///
    /// Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// When there is no volume, when the bucket cannot be read, or the directory not be used.
    pub fn open_published(
        bucket: impl Into<Bucket>,
        prefix: &str,
        (directory, lock): (&Path, Lock),
        options: &RemoteOptions,
    ) -> Result<Self, VolumeError> {
        let bucket = bucket.into();
        let at = bucket.place(prefix);
        let _span = tracing::error_span!("volume", at, readonly = true).entered();
        let failed = || VolumeError::failed(directory, "cannot use the directory of a reader");
        let name = Pin::name(READING).map_err(failed())?;
        let what = (name.as_str(), Term::Temporary);
        let Held {
            view,
            shipping,
            snapshot,
        } = hold_now(&bucket, prefix, what, directory, &options.runtime)?;
        let pin = match snapshot {
            Ok(snapshot) => Some(Pin::new(view.clone(), snapshot, &options.runtime)),
            Err(error) => {
                tracing::warn!(%error, "volume: nothing holds what is read: what is removed from the volume meanwhile may be EIO here");
                None
            }
        };
        let local = Local::new(directory).at_boot(options.boot.clone());
        let at = shipping.point();
        let rows = Rows {
            name: format!("point-{}", at.hash),
            at,
        };
        drop(shipping);
        let bring = |to: &Path| std::fs::rename(local.checkpoint(), to).map_err(failed());
        let shipping = match rows.known(&local, &view) {
            Some(shipping) => shipping,
            None => rows.take(&local, &view, bring)?,
        };
        local.remove_checkpoint().map_err(failed())?;
        frozen::open(local, &view, &shipping, (lock, pin), options)
    }
}
