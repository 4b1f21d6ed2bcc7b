//! How much of what a volume has in its bucket.

use super::error::BucketError;
use super::place::ObjectId;
use super::view::View;

/// Objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Bytes in all of them.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects = self.objects.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What is stored for a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BucketStat {
    /// Log objects that whoever opens the volume reads after the checkpoint.
    pub log: Amount,
    /// Number of the last of them, or of the checkpoint.
    pub end: u64,
    /// Log objects before the checkpoint that are still there.
    pub old_log: Amount,
    /// Data segments.
    pub segments: Amount,
    /// Parts of checkpoints.
    pub checkpoints: Amount,
    /// Snapshots.
    pub snapshots: u64,
    /// Objects that are no part of a volume.
    pub foreign: Amount,
}

impl View {
    /// Lists all objects of the volume: a request for each thousand.
    ///
    /// # Errors
    /// The store's.
    pub async fn stat(&self) -> Result<BucketStat, BucketError> {
        let names = &self.objects.names;
        let base = self.head.base().seq;
        let mut stat = BucketStat {
            end: base,
            ..BucketStat::default()
        };
        let own = [names.volume(), names.head()];
        self.objects
            .list("", None, |object| {
                let key = object.key.as_str();
                if let Some(seq) = names.parse_log(key) {
                    let log = if seq > base {
                        &mut stat.log
                    } else {
                        &mut stat.old_log
                    };
                    log.add(object.size);
                    stat.end = stat.end.max(seq);
                } else if let Some(ObjectId::Segment { .. }) = names.parse_segment(key) {
                    stat.segments.add(object.size);
                } else if names.parse_part(key).is_some() {
                    stat.checkpoints.add(object.size);
                } else if names.parse_snapshot(key).is_some() {
                    stat.snapshots = stat.snapshots.saturating_add(1);
                } else if !own.iter().any(|own| own.as_ref() == key) {
                    stat.foreign.add(object.size);
                }
            })
            .await?;
        Ok(stat)
    }
}
