//! Whether a bucket still has what a host has seen in it. A chain only grows: one that ends before, or goes another way, was
//! put back to an earlier state.

use std::collections::HashMap;

use super::chain;
use super::error::BucketError;
use super::head::Head;
use super::log::Uuid;
use super::objects::Objects;
use super::place::Point;

/// How far a host has seen the chains of volumes.
pub type Seen = HashMap<Uuid, Point>;

/// Whether a point is one of the chain that begins at a head, or of what the head's checkpoint has.
pub(super) async fn has(objects: &Objects, head: &Head, seen: Point) -> Result<bool, BucketError> {
    if head.epoch < seen.epoch {
        return Ok(false);
    }
    // It may have been removed. No boundary is behind the checkpoint.
    if seen.seq < head.boundary {
        return Ok(true);
    }
    let found = chain::fetch(objects, head.uuid.0, seen.seq).await?;
    Ok(found.is_some_and(|found| found.point == seen))
}
