//! Snapshots of volumes in a bucket, and volumes that begin with one.

use std::path::Path;

use tokio::runtime::Handle;

use super::check::image;
use super::extents::objects;
use super::local::Local;
use super::pin::Pin;
use super::shipped::Shipping;
use crate::Volume;
use crate::bucket::{ABANDONED, Amount, BucketError, Snapshot, Term, View};
use crate::error::VolumeError;
use crate::key::Bucket;

/// How often a snapshot is tried that a checkpoint overtakes.
const MAX_TRIES: u32 = 5;
/// How the names of snapshots begin that hold what is copied or dumped.
const COPYING: &str = "copying";

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
        snapshot_now(
            &bucket.into(),
            prefix,
            (name, Term::Lasting),
            scratch,
            runtime,
        )
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
    let name =
        Pin::name(COPYING).map_err(VolumeError::failed(scratch, "cannot name a snapshot"))?;
    let held = snapshot_now(bucket, prefix, (&name, Term::Temporary), scratch, runtime)?;
    let pin = Pin::new(view.clone(), held, runtime);
    // One of its own stands: the store's clock is known.
    if let Err(error) = runtime.block_on(view.drop_abandoned(ABANDONED)) {
        tracing::warn!(%error, "volume: snapshots for copies that broke off stay");
    }
    work(&view, pin.snapshot())
}

/// As [`Volume::snapshot_remote`], for as long as is told.
pub(super) fn snapshot_now(
    bucket: &Bucket,
    prefix: &str,
    snapshot: (&str, Term),
    scratch: &Path,
    runtime: &Handle,
) -> Result<Snapshot, VolumeError> {
    let held = hold_now(bucket, prefix, snapshot, scratch, runtime)?;
    Ok(held.snapshot?)
}

/// What a volume is now.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) view: View,
    /// All rows, in the folder that was named for them.
    pub(super) shipping: Shipping,
    /// What keeps content from being removed that they name; or why the store did not take that.
    pub(super) snapshot: Result<Snapshot, BucketError>,
}

/// Takes the rows of a volume as it is now, into [`Local::checkpoint`] of a folder of this host, and keeps what they name by
/// a snapshot. A daemon may have the volume, and clean up.
///
/// # Errors
/// There is no volume, the name is none or taken, the bucket cannot be read, or the folder not be used.
pub(super) fn hold_now(
    bucket: &Bucket,
    prefix: &str,
    snapshot: (&str, Term),
    folder: &Path,
    runtime: &Handle,
) -> Result<Held, VolumeError> {
    let (local, mut overtaken) = (Local::new(folder), None);
    for _ in 0..MAX_TRIES {
        let view = runtime.block_on(View::open(bucket, prefix))?;
        if runtime.block_on(view.find_snapshot(snapshot.0))?.is_some() {
            return Err(BucketError::Taken(snapshot.0.to_owned()).into());
        }
        match try_to_hold(view.clone(), snapshot, &local, runtime) {
            Ok(held) => return Ok(held),
            // What a checkpoint replaces may be removed while it is read.
            Err(error) if is_overtaken(&view, &error, runtime) => overtaken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(overtaken.unwrap_or(BucketError::Gone(0).into()))
}

fn try_to_hold(
    view: View,
    (name, term): (&str, Term),
    local: &Local,
    runtime: &Handle,
) -> Result<Held, VolumeError> {
    const WHAT: &str = "cannot be used for a copy of names and attributes";
    let folder = local.path();
    local
        .remove_checkpoint()
        .map_err(VolumeError::failed(folder, WHAT))?;
    let shipping = image(&view, &local.checkpoint(), runtime)?;
    let at = shipping.point();
    let is_checkpoint = view
        .head()
        .checkpoint
        .as_ref()
        .is_some_and(|one| one.at == at);
    let snapshot = if is_checkpoint {
        let pinned = runtime.block_on(view.snapshot(name, term));
        pinned.and_then(|snapshot| snapshot.ok_or(BucketError::Gone(at.seq)))
    } else {
        let copy = local.checkpoint_to_store();
        shipping
            .copy(&copy)
            .map_err(VolumeError::storage(folder, WHAT))?;
        let stored = runtime.block_on(view.snapshot_of(name, term, &copy, at));
        local
            .remove_checkpoint_to_store()
            .map_err(VolumeError::failed(folder, WHAT))?;
        stored
    };
    match snapshot {
        Err(error) if !error.is_denial() => Err(error.into()),
        snapshot => Ok(Held {
            view,
            shipping,
            snapshot,
        }),
    }
}

/// Whether the volume has another checkpoint than it had, which may be why something went wrong.
fn is_overtaken(view: &View, error: &VolumeError, runtime: &Handle) -> bool {
    let is_bucket = matches!(error, VolumeError::Bucket(_));
    let now = || runtime.block_on(view.refreshed());
    is_bucket && now().is_ok_and(|now| now.head().checkpoint != view.head().checkpoint)
}
