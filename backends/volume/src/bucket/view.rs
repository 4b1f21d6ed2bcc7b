//! A volume in a bucket as anybody may look at it, whoever owns it.

use std::path::Path;

use bytes::Bytes;
use object_store::UpdateVersion;

use super::chain;
use super::checkpoint;
use super::damage::Damage;
use super::error::BucketError;
use super::frame::Frame;
use super::head::{Changed, Checkpoint, Head, read_description, read_head};
use super::log::{LogObject, Uuid};
use super::object_readahead::ObjectReadahead;
use super::objects::Objects;
use super::place::{ObjectId, Point};
use super::read;
use super::remote::{Remote, host_clock};
use super::segment::{self, Entry, MAX_SEGMENT_BYTES};
use crate::key::Bucket;
use crate::quota::Quota;

/// How often a change of HEAD is tried again that met another one.
const MAX_TRIES: u32 = 16;

type Result<T> = std::result::Result<T, BucketError>;

/// A volume that may be read. What another daemon appends meanwhile is read, too; what one cleans up, is not there.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) objects: Objects,
    pub(super) head: Head,
}

impl View {
    /// Looks at a volume, which changes nothing.
    ///
    /// # Errors
    /// There is none, or one that this program does not know, or whose key this is not, or the store failed.
    pub async fn open(bucket: impl Into<Bucket>, prefix: &str) -> Result<Self> {
        let objects = Objects::new(bucket, prefix)?;
        let missing = || BucketError::Missing(objects.place.clone());
        let description = read_description(&objects).await?.ok_or_else(missing)?;
        let objects = objects.unlocked(&description)?;
        Self::of(&objects, description.uuid()).await
    }

    /// As [`open`](Self::open); the key of an encrypted volume need not be given. Without it rows and content cannot be read.
    ///
    /// # Errors
    /// As those of [`open`](Self::open).
    pub async fn open_outside(bucket: impl Into<Bucket>, prefix: &str) -> Result<Self> {
        let objects = Objects::new(bucket, prefix)?;
        let missing = || BucketError::Missing(objects.place.clone());
        let description = read_description(&objects).await?.ok_or_else(missing)?;
        let objects = objects.unlocked_if_possible(&description)?;
        Self::of(&objects, description.uuid()).await
    }

    /// What the volume is encrypted with.
    pub fn algorithm(&self) -> Option<&str> {
        let encryption = self.objects.encryption.as_ref()?;
        Some(&encryption.algorithm)
    }

    /// The same with HEAD as it is now.
    ///
    /// # Errors
    /// The volume is no longer there, or the store failed.
    pub async fn refreshed(&self) -> Result<Self> {
        Self::of(&self.objects, self.uuid()).await
    }

    async fn of(objects: &Objects, uuid: Uuid) -> Result<Self> {
        match read_head(objects, uuid, None).await? {
            Changed::To(head, _) => Ok(Self {
                objects: objects.clone(),
                head: *head,
            }),
            Changed::No | Changed::Gone => Err(BucketError::Missing(objects.place.clone())),
        }
    }

    /// The volume as it would be after a checkpoint at a point of its chain, and the checkpoint's id.
    pub(crate) fn with_checkpoint_at(mut self, at: Point) -> (Self, u64) {
        let id = 0;
        self.head.checkpoint = Some(Checkpoint {
            at,
            id,
            parts: 0,
            stored: 0,
            length: 0,
            digest: at.hash,
        });
        (self, id)
    }

    /// Changes how much the volume may hold. The owner finds it when it next looks at HEAD, and leaves it as it is.
    ///
    /// # Errors
    /// The volume is no longer there, or the store failed.
    pub async fn change_quota(&self, change: impl Fn(&mut Quota)) -> Result<()> {
        self.change_head(|head| change(&mut head.quota)).await
    }

    /// Changes how long the snapshots are kept that the owner makes by itself, which finds it when it next looks at HEAD.
    ///
    /// # Errors
    /// As those of [`change_quota`](Self::change_quota).
    pub async fn change_snapshot_days(&self, days: Option<u32>) -> Result<()> {
        self.change_head(|head| head.snapshot_days = days).await
    }

    /// Changes what the owner leaves as it is.
    async fn change_head(&self, change: impl Fn(&mut Head)) -> Result<()> {
        let key = self.objects.names.head();
        for _ in 0..MAX_TRIES {
            let Changed::To(mut head, version) =
                read_head(&self.objects, self.uuid(), None).await?
            else {
                return Err(BucketError::Missing(self.objects.place.clone()));
            };
            change(&mut head);
            let replaced = self.objects.replace(&key, head.to_bytes(), version).await?;
            if replaced.is_some() {
                return Ok(());
            }
        }
        Err(BucketError::damaged(key)(Damage(
            "others replace it all the time: try again",
        )))
    }

    /// Of the volume.
    pub fn uuid(&self) -> Uuid {
        self.head.uuid.0
    }

    /// HEAD as it was when the volume was looked at.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// As [`Remote::follow`], to the last log object that is there.
    ///
    /// # Errors
    /// As those of [`Remote::follow`].
    pub async fn follow<E: From<BucketError>>(
        &self,
        after: Point,
        each: impl FnMut(LogObject, Point) -> std::result::Result<(), E>,
    ) -> std::result::Result<Point, E> {
        chain::follow(&self.objects, &self.head, after, None, each).await
    }

    /// Writes the file of a checkpoint, HEAD's or one of a snapshot, to `to`: it is there whole, or not at all.
    ///
    /// # Errors
    /// The checkpoint is damaged or gone, the disk cannot take it, or the store failed.
    pub async fn restore(&self, checkpoint: &Checkpoint, to: &Path) -> Result<()> {
        checkpoint::restore(&self.objects, self.uuid(), checkpoint, to).await
    }

    /// Which ranges of which files the frames of a segment were written for, from the segment alone. `None` where it is
    /// not there.
    ///
    /// # Errors
    /// The segment is damaged, or the store failed.
    pub async fn read_map(&self, id: ObjectId) -> Result<Option<Vec<Entry>>> {
        let key = self.objects.names.object(id);
        let Some((bytes, _)) = self.objects.read(&key, MAX_SEGMENT_BYTES).await? else {
            return Ok(None);
        };
        let entries = segment::read_map(id, self.uuid(), &bytes, &self.objects.cipher);
        entries.map(Some).map_err(BucketError::damaged(key))
    }

    /// For who reads content and writes nothing: one that is fenced already, at a point of the chain.
    pub(crate) fn reader(&self, at: Point) -> Remote {
        let nowhere = UpdateVersion {
            e_tag: None,
            version: None,
        };
        let clock = host_clock();
        let now = clock();
        Remote::new(
            self.objects.clone(),
            (self.head.clone(), nowhere),
            0,
            at,
            (clock, now),
        )
        .closed()
    }

    /// As [`Remote::read_frames`].
    ///
    /// # Errors
    /// As those of [`Remote::read_frames`].
    pub async fn read_frames(&self, frames: &[Frame]) -> Result<Vec<Bytes>> {
        // Whoever looks at a volume names many frames at once.
        read::read_frames(&self.objects, &ObjectReadahead::default(), frames).await
    }
}

impl Remote {
    /// The volume as anybody sees it.
    pub async fn view(&self) -> View {
        View {
            objects: self.objects.clone(),
            head: self.head().await,
        }
    }

    /// Writes the file of HEAD's checkpoint to `to`, whole or not at all, and returns the point to
    /// [`follow`](Self::follow) from. Without a checkpoint there is no file, and all begins at [`Point::START`].
    ///
    /// # Errors
    /// The checkpoint is damaged or gone, the disk cannot take it, or the store failed.
    pub async fn restore(&self, to: &Path) -> Result<Point> {
        let view = self.view().await;
        if let Some(checkpoint) = &view.head.checkpoint {
            view.restore(checkpoint, to).await?;
        }
        Ok(view.head.base())
    }
}
