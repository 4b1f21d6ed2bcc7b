//! Making a volume from a checkpoint of another one.

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use vfsd_object_store::store::probe;

use super::damage::Damage;
use super::error::BucketError;
use super::head::{Checkpoint, Description, Head, read_description, write_description};
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
    /// have the volume. One that broke off is gone on with, also if the volume has changed since.
    ///
    /// # Errors
    /// Something else is there, one of the objects is missing, or a store failed: then there is no volume, but objects.
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
        self.check_may_copy(checkpoint, &target).await?;
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
        if !write_description(&target, self.uuid()).await? {
            let found = read_description(&target).await?;
            let same = |found: &Description| {
                found.uuid() == self.uuid() && found.encryption == target.encryption
            };
            if !found.as_ref().is_some_and(same) {
                return Err(BucketError::NotEmpty(target.place.clone()));
            }
        }
        let made = target.create(&target.names.head(), head.to_bytes()).await?;
        match made {
            true => Ok(copied),
            false => Err(BucketError::Exists(target.place.clone())),
        }
    }

    /// Whether nothing is where the new volume is to be but what a copy leaves that broke off, and that does no harm there: what is
    /// copied is put in its place only if that is free or has the same, and a clean-up removes the rest.
    async fn check_may_copy(&self, checkpoint: &Checkpoint, target: &Objects) -> Result<()> {
        let names = &target.names;
        if target.look(&names.head()).await?.is_some() {
            return Err(BucketError::Exists(target.place.clone()));
        }
        let probed = names.below(".vfsd-probe-");
        let may_stay = |key: &str| {
            // What comes next in the log, and new segments, have other names.
            let log = names.parse_log(key);
            let segment = names.parse_segment(key);
            log.is_some_and(|seq| seq <= checkpoint.at.seq)
                || segment.is_some_and(|id| match id {
                    ObjectId::Segment { epoch, .. } => epoch <= self.head.epoch,
                    ObjectId::Log(_) => false,
                })
                || names.parse_part(key).is_some()
                || key == names.volume().as_ref()
                || key.starts_with(&probed)
        };
        let mut other = false;
        target
            .list("", None, |object| other |= !may_stay(&object.key))
            .await?;
        match other {
            true => Err(BucketError::NotEmpty(target.place.clone())),
            false => Ok(()),
        }
    }

    async fn copy_object(&self, target: &Objects, from: Path, to: Path) -> Result<u64> {
        let Some((bytes, _)) = self.objects.read(&from, MAX_LOG_BYTES).await? else {
            return Err(BucketError::damaged(from)(Damage("it is not there")));
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if !target.create(&to, bytes.clone()).await? {
            // Of a copy that broke off, unless it was one of another volume.
            match target.read(&to, MAX_LOG_BYTES).await? {
                Some((found, _)) if found == bytes => {}
                _ => return Err(BucketError::NotEmpty(target.place.clone())),
            }
        }
        Ok(length)
    }
}
