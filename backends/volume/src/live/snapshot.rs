//! Snapshots of volumes in a bucket, and volumes that begin with one.

use std::path::Path;

use tokio::runtime::Handle;

use super::check::image;
use super::extents::objects;
use crate::Volume;
use crate::bucket::{Amount, BucketError, Snapshot, View};
use crate::error::VolumeError;
use crate::key::Bucket;

/// How often a snapshot is tried that a checkpoint overtakes.
const MAX_TRIES: u32 = 5;
/// The snapshot that holds what is copied or dumped.
const COPYING: &str = "copying-";

impl Volume {
    /// Keeps the volume below `prefix` of a bucket as it is there now, under a name. A daemon may have it: what it made
    /// durable is in the snapshot. Nothing that is in it is removed before it is deleted.
    ///
    /// `scratch` is an empty directory of this host. Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// There is no volume, the name cannot be one or is taken, the store failed, or the directory cannot be used.
    pub fn snapshot_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        name: &str,
        scratch: &Path,
        runtime: &Handle,
    ) -> Result<Snapshot, VolumeError> {
        let (bucket, mut overtaken) = (bucket.into(), None);
        for number in 0..MAX_TRIES {
            let view = runtime.block_on(View::open(&bucket, prefix))?;
            if runtime.block_on(view.find_snapshot(name))?.is_some() {
                return Err(BucketError::Taken(name.to_owned()).into());
            }
            let shipping = image(&view, &scratch.join(format!("{number}.sqlite")), runtime)?;
            let at = shipping.point();
            let copy = scratch.join(format!("{number}-checkpoint.sqlite"));
            let copied = shipping.copy(&copy);
            copied.map_err(VolumeError::storage(
                scratch,
                "cannot be used for a snapshot",
            ))?;
            match runtime.block_on(view.snapshot_of(name, &copy, at)) {
                Err(error @ BucketError::Gone(_)) => overtaken = Some(error),
                made => return Ok(made?),
            }
        }
        Err(overtaken.unwrap_or(BucketError::Gone(0)).into())
    }

    /// The snapshots of the volume below `prefix` of a bucket, in the order of their names.
    ///
    /// # Errors
    /// There is no volume, or the store failed.
    pub async fn snapshots_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
    ) -> Result<Vec<Snapshot>, VolumeError> {
        let view = View::open_outside(bucket, prefix).await?;
        Ok(view.snapshots().await?)
    }

    /// Gives a snapshot up: what it alone held goes with the next clean-up.
    ///
    /// # Errors
    /// There is no volume or no such snapshot, or the store failed.
    pub async fn delete_snapshot_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        name: &str,
    ) -> Result<(), VolumeError> {
        let view = View::open_outside(bucket, prefix).await?;
        match view.delete_snapshot(name).await? {
            true => Ok(()),
            false => Err(BucketError::NoSnapshot(name.to_owned()).into()),
        }
    }

    /// Makes a volume of a snapshot of another one, or of what that one is now: all that is in it is copied, and each goes
    /// its own way afterwards. A daemon may have the first one.
    ///
    /// `scratch` is an empty directory of this host. Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// There is no volume or no such snapshot, something is where the new one is to be, a store failed, or the directory
    /// cannot be used.
    pub fn copy_remote(
        (bucket, prefix): (impl Into<Bucket>, &str),
        snapshot: Option<&str>,
        (to, to_prefix): (impl Into<Bucket>, &str),
        scratch: &Path,
        runtime: &Handle,
    ) -> Result<Amount, VolumeError> {
        let bucket = bucket.into();
        with_snapshot(
            (&bucket, prefix),
            snapshot,
            scratch,
            runtime,
            |view, held| {
                let file = scratch.join("to-copy.sqlite");
                runtime.block_on(view.restore(&held.checkpoint, &file))?;
                let read = VolumeError::failed(scratch, "cannot be used for a copy");
                let content = objects(&file).map_err(read)?;
                let copied = view.copy_to(&held.checkpoint, content, to, to_prefix);
                Ok(runtime.block_on(copied)?)
            },
        )
    }
}

/// Works with a snapshot of a volume, or with what it is now, which is held meanwhile by a snapshot of its own.
///
/// # Errors
/// There is no volume or no such snapshot, or as [`Volume::snapshot_remote`] and `work` say.
pub(crate) fn with_snapshot<T>(
    (bucket, prefix): (&Bucket, &str),
    snapshot: Option<&str>,
    scratch: &Path,
    runtime: &Handle,
    work: impl FnOnce(&View, &Snapshot) -> Result<T, VolumeError>,
) -> Result<T, VolumeError> {
    let view = runtime.block_on(View::open(bucket, prefix))?;
    if let Some(name) = snapshot {
        let found = runtime.block_on(view.find_snapshot(name))?;
        let found = found.ok_or_else(|| BucketError::NoSnapshot(name.to_owned()))?;
        return work(&view, &found);
    }
    let name = format!("{COPYING}{}", std::process::id());
    let held = Volume::snapshot_remote(bucket, prefix, &name, scratch, runtime)?;
    let done = work(&view, &held);
    if let Err(error) = runtime.block_on(view.delete_snapshot(&name)) {
        tracing::warn!(%error, snapshot = name, "volume: a snapshot for a copy stays");
    }
    done
}
