//! Removing by hand what a volume in a bucket does not need any more.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;

use super::check::image;
use super::open::host_name;
use super::shipped::objects;
use crate::Volume;
use crate::bucket::{BucketError, CARETAKER, Collected, Named, Opener, Remote, View};
use crate::error::VolumeError;
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
    let storage = VolumeError::storage(scratch, "cannot be used for a clean-up");
    let view = runtime.block_on(remote.view());
    let shipping = image(&view, &scratch.join("shipped.sqlite"), runtime)?;
    let copy = scratch.join("checkpoint.sqlite");
    shipping.copy(&copy).map_err(storage)?;
    // From here on nothing before the end of the log is needed.
    let made = runtime.block_on(remote.checkpoint(&copy, shipping.point()))?;
    drop(shipping);
    let known = named_in(&copy, made.id)?;
    Ok(runtime.block_on(async {
        let named = remote.view().await.named(scratch, known, objects).await?;
        remote.collect(&named, min_age).await
    })?)
}

/// What the extents of an image name, which is that of a checkpoint.
fn named_in(path: &Path, checkpoint: u64) -> Result<Named, VolumeError> {
    let objects = objects(path).map_err(VolumeError::failed(path, "cannot be read"))?;
    Ok(Named {
        checkpoints: [checkpoint].into(),
        objects: objects.into_iter().collect(),
    })
}
