//! Making a volume from a checkpoint of another one.

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use vfsd_object_store::store::probe;

use super::damage::Damage;
use super::error::BucketError;
use super::head::{Checkpoint, Head, write_description};
use super::log::MAX_LOG_BYTES;
use super::objects::Objects;
use super::open::random;
use super::place::ObjectId;
use super::stat::Amount;
use super::view::View;
use crate::key::Bucket;

type Result<T> = std::result::Result<T, BucketError>;

/// Objects that are copied at a time: each is in memory meanwhile.
const PARALLEL: usize = 8;

impl View {
    /// Makes a volume below `prefix` of a bucket, which may be another one, of a checkpoint and the `content` that it
    /// names. Nobody owns it afterwards, and the two go their own ways. The checkpoint has to be pinned, or nobody to
    /// have the volume.
    ///
    /// # Errors
    /// Something is there, one of the objects is missing, or a store failed: then there is no volume, but objects.
    pub async fn copy_to(
        &self,
        checkpoint: &Checkpoint,
        content: Vec<ObjectId>,
        bucket: impl Into<Bucket>,
        prefix: &str,
    ) -> Result<Amount> {
        let mut target = Objects::new(bucket, prefix)?;
        // What is sealed stays so.
        target.encryption = self.objects.encryption.clone();
        if !target.is_empty().await? {
            return Err(BucketError::NotEmpty(target.place));
        }
        let report = probe(&target.store, &target.names.below("")).await;
        let report = report.map_err(BucketError::store("be tried"))?;
        if !report.is_safe() {
            return Err(BucketError::Unsafe(report.to_string()));
        }
        let part = |objects: &Objects, number| {
            let names = &objects.names;
            names.checkpoint_part(checkpoint.at.seq, checkpoint.id, number)
        };
        let parts = (0..checkpoint.parts).map(|number| {
            let (from, to) = (part(&self.objects, number), part(&target, number));
            self.copy_object(&target, from, to)
        });
        let content = content.into_iter().map(|id| {
            let from = self.objects.names.object(id);
            self.copy_object(&target, from, target.names.object(id))
        });
        let mut copied = Amount::default();
        let mut parts = stream::iter(parts).buffer_unordered(PARALLEL);
        while let Some(bytes) = parts.try_next().await? {
            copied.add(bytes);
        }
        let mut content = stream::iter(content).buffer_unordered(PARALLEL);
        while let Some(bytes) = content.try_next().await? {
            copied.add(bytes);
        }
        let head = Head {
            uuid: self.head.uuid,
            // Segments of earlier epochs were copied: the names of new ones have to be others.
            epoch: self.head.epoch,
            nonce: random().to_le_bytes().into(),
            owner: None,
            checkpoint: Some(checkpoint.clone()),
            boundary: checkpoint.at.seq.saturating_add(1),
            quota: self.head.quota,
            snapshot_days: self.head.snapshot_days,
        };
        let made = write_description(&target, self.uuid()).await?
            && target.create(&target.names.head(), head.to_bytes()).await?;
        match made {
            true => Ok(copied),
            false => Err(BucketError::Exists(target.place.clone())),
        }
    }

    async fn copy_object(&self, target: &Objects, from: Path, to: Path) -> Result<u64> {
        let Some((bytes, _)) = self.objects.read(&from, MAX_LOG_BYTES).await? else {
            return Err(BucketError::damaged(from)(Damage("it is not there")));
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match target.create(&to, bytes).await? {
            true => Ok(length),
            false => Err(BucketError::NotEmpty(target.place.clone())),
        }
    }
}
