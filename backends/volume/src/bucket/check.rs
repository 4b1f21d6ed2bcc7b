//! Whether what a volume's rows and log objects name is in the bucket, as it was written.

use std::collections::HashMap;

use super::error::BucketError;
use super::frame::Frame;
use super::place::{ObjectId, Piece, Point};
use super::view::View;

/// How deep a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckLevel {
    /// Objects are there and long enough, which takes listings alone.
    Presence,
    /// All content is read, and its checksums are right.
    Content,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct BucketReport {
    /// Log objects that were read.
    pub log_objects: u64,
    /// Frames that were looked at.
    pub frames: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// What is wrong, a line each, up to a thousand.
    pub problems: Vec<String>,
    /// How many more there are.
    pub more: u64,
}

const MAX_PROBLEMS: usize = 1000;
/// Content that is read at once.
const BATCH_BYTES: u64 = 32 << 20;
const BATCH_FRAMES: usize = 4096;

impl BucketReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn tell(&mut self, problem: String) {
        match self.problems.len() < MAX_PROBLEMS {
            true => self.problems.push(problem),
            false => self.more = self.more.saturating_add(1),
        }
    }

    /// Failures of the store end a check, damage is a finding.
    fn take<T>(&mut self, result: Result<T, BucketError>) -> Result<Option<T>, BucketError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ BucketError::Damaged { .. }) => {
                self.tell(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl View {
    /// Checks the chain after the checkpoint, what its pieces name, and `frames`, those that the extents of the checkpoint
    /// name: give them in the order of their objects, so that they are read with few requests.
    ///
    /// # Errors
    /// The store failed: nothing is known about the rest.
    pub async fn check(
        &self,
        frames: impl IntoIterator<Item = Frame>,
        level: CheckLevel,
    ) -> Result<BucketReport, BucketError> {
        let mut report = BucketReport::default();
        let mut batch = Batch::default();
        let sizes = self.sizes().await?;
        for frame in frames {
            self.look_at(frame, level, &sizes, &mut batch, &mut report)
                .await?;
        }
        // Objects of the log come and go while others own the volume: each is asked about by itself.
        let mut named = Vec::new();
        let mut objects = 0_u64;
        let followed = self.follow::<BucketError>(self.head.base(), |object, _: Point| {
            objects = objects.saturating_add(1);
            let frame = |piece: &Piece| piece.place.map(|(frame, _)| frame);
            named.extend(object.pieces.iter().filter_map(frame));
            Ok(())
        });
        let followed = followed.await;
        report.take(followed)?;
        report.log_objects = objects;
        let sizes = self.sizes().await?;
        for frame in named {
            self.look_at(frame, level, &sizes, &mut batch, &mut report)
                .await?;
        }
        self.read_batch(&mut batch, &mut report).await?;
        Ok(report)
    }

    /// Sizes of all objects that hold content.
    async fn sizes(&self) -> Result<HashMap<ObjectId, u64>, BucketError> {
        let names = &self.objects.names;
        let mut sizes = HashMap::new();
        for folder in ["log/", "seg/"] {
            self.objects
                .list(folder, None, |object| {
                    let log = names.parse_log(&object.key).map(ObjectId::Log);
                    let id = log.or_else(|| names.parse_segment(&object.key));
                    sizes.extend(id.map(|id| (id, object.size)));
                })
                .await?;
        }
        Ok(sizes)
    }

    async fn look_at(
        &self,
        frame: Frame,
        level: CheckLevel,
        sizes: &HashMap<ObjectId, u64>,
        batch: &mut Batch,
        report: &mut BucketReport,
    ) -> Result<(), BucketError> {
        report.frames = report.frames.saturating_add(1);
        let key = self.objects.names.object(frame.object);
        match sizes.get(&frame.object) {
            None => report.tell(format!("{key}: it is not there")),
            Some(size) if frame.end() > *size => {
                report.tell(format!("{key}: it is too short for a frame of content"));
            }
            Some(_) if level == CheckLevel::Content => {
                batch.add(frame);
                if batch.is_full() {
                    self.read_batch(batch, report).await?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    async fn read_batch(
        &self,
        batch: &mut Batch,
        report: &mut BucketReport,
    ) -> Result<(), BucketError> {
        let frames = std::mem::take(batch);
        match self.read_frames(&frames.frames).await {
            Ok(_) => {}
            Err(BucketError::Damaged { .. }) => {
                // One by one, to name each that is damaged.
                for frame in &frames.frames {
                    let read = self.read_frames(std::slice::from_ref(frame)).await;
                    let place = format!("bytes {} to {}", frame.offset, frame.end());
                    match read {
                        Err(BucketError::Damaged { key, damage }) => {
                            report.tell(format!("{key}: {damage} ({place})"));
                        }
                        read => {
                            read?;
                        }
                    }
                }
            }
            Err(error) => return Err(error),
        }
        report.bytes = report.bytes.saturating_add(frames.bytes);
        Ok(())
    }
}

/// Frames that are to be read.
#[derive(Default)]
struct Batch {
    frames: Vec<Frame>,
    bytes: u64,
}

impl Batch {
    fn add(&mut self, frame: Frame) {
        self.bytes = self.bytes.saturating_add(frame.length.into());
        self.frames.push(frame);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.frames.len() >= BATCH_FRAMES
    }
}
