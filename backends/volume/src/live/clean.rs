//! Removing by hand what a volume in a bucket does not need any more.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;

use super::care;
use super::check::image;
use super::extents::objects;
use super::moving::{Moving, Unmoved};
use super::open::host_name;
use super::shipped::{Shipped, Shipping};
use crate::Volume;
use crate::bucket::{
    ABANDONED, BucketError, CARETAKER, Collected, Named, ObjectId, Opener, Remote, View,
};
use crate::error::VolumeError;
use crate::failpoint::Failpoints;
use crate::key::Bucket;

impl Volume {
    /// Removes what the volume below `prefix` of a bucket does not need any more, and is older than `min_age`. Nobody may use
    /// the volume meanwhile: a daemon that has it open does the same by itself. With `dry` nothing is changed, and it may be in
    /// use: what would be removed is told.
    ///
    /// `min_age` has to be longer than the ten minutes for which a daemon that was suspended believes to have the volume
    /// still. `scratch` is an empty directory of this host. Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// There is no volume, it is in use, the store failed, or the directory cannot be used.
    pub fn clean_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        scratch: &Path,
        min_age: Duration,
        dry: bool,
        runtime: &Handle,
    ) -> Result<Collected, VolumeError> {
        let path = scratch.join("shipped.sqlite");
        if dry {
            let view = runtime.block_on(View::open(bucket, prefix))?;
            let shipping = image(&view, &path, runtime)?;
            let end = shipping.point();
            drop(shipping);
            let (view, id) = view.with_checkpoint_at(end);
            let known = named_in(&path, id)?;
            return Ok(runtime.block_on(async {
                let given_up = view.abandoned(ABANDONED).await?;
                let known = Named { given_up, ..known };
                let named = view.named(scratch, known, objects).await?;
                view.survey(&named, min_age).await
            })?);
        }
        let opener = Opener::new(CARETAKER, host_name());
        let remote = runtime
            .block_on(Remote::open(bucket, prefix, &opener))
            .map_err(BucketError::tended)?
            .remote;
        let cleaned = clean(&remote, scratch, min_age, runtime);
        let closed = runtime.block_on(remote.close());
        let cleaned = cleaned?;
        closed?;
        Ok(cleaned)
    }
}

/// By the owner, who writes nothing else meanwhile.
fn clean(
    remote: &Remote,
    scratch: &Path,
    min_age: Duration,
    runtime: &Handle,
) -> Result<Collected, VolumeError> {
    let view = runtime.block_on(remote.view());
    let image_at = scratch.join("shipped.sqlite");
    let mut shipping = image(&view, &image_at, runtime)?;
    let mut cleaned = collect(remote, &shipping, scratch, min_age, runtime)?;
    let sparse = cleaned.sparse.clone();
    if !sparse.is_empty() && move_out_of(remote, sparse, &mut shipping, &image_at, runtime)? {
        let more = collect(remote, &shipping, scratch, min_age, runtime)?;
        cleaned.then(more);
    }
    Ok(cleaned)
}

/// Makes a checkpoint of an image, and removes what it does not need.
fn collect(
    remote: &Remote,
    shipping: &Shipping,
    scratch: &Path,
    min_age: Duration,
    runtime: &Handle,
) -> Result<Collected, VolumeError> {
    let copy = scratch.join("checkpoint.sqlite");
    let _ = std::fs::remove_file(&copy);
    let copied = shipping.copy(&copy);
    copied.map_err(VolumeError::storage(
        scratch,
        "cannot be used for a clean-up",
    ))?;
    // From here on nothing before the end of the log is needed.
    let made = runtime.block_on(remote.checkpoint(&copy, shipping.point()))?;
    let known = named_in(&copy, made.id)?;
    Ok(runtime.block_on(async {
        let view = remote.view().await;
        view.drop_abandoned(ABANDONED).await?;
        let named = view.named(scratch, known, objects).await?;
        remote.collect(&named, min_age).await
    })?)
}

/// Moves what is left in objects into others. Whether there was any.
fn move_out_of(
    remote: &Remote,
    sparse: Vec<ObjectId>,
    shipping: &mut Shipping,
    image: &Path,
    runtime: &Handle,
) -> Result<bool, VolumeError> {
    let storage = || VolumeError::storage(image, "cannot be used for a clean-up");
    let mut moving = Moving::out_of(sparse, shipping).map_err(storage())?;
    let (shipped, failpoints) = (Shipped::new(image), Failpoints::default());
    let mut any = false;
    let failed = |error| match error {
        Unmoved::Ship(error) => error.into(),
        Unmoved::Local(error) => storage()(error),
        Unmoved::Io(error) => VolumeError::failed(image, "cannot be used for a clean-up")(error),
    };
    while let Some(moved) = moving
        .part(remote, (&shipped, shipping), runtime, &failpoints)
        .map_err(failed)?
    {
        runtime.block_on(remote.append(&moved.sealed))?;
        let applied = shipping.apply(&moved.step, &moved.pieces);
        applied.map_err(|refused| storage()(refused.into()))?;
        any = true;
    }
    Ok(any)
}

/// What the extents of an image name, which is that of a checkpoint.
fn named_in(path: &Path, checkpoint: u64) -> Result<Named, VolumeError> {
    care::named_in(path, checkpoint).map_err(VolumeError::failed(path, "cannot be read"))
}
