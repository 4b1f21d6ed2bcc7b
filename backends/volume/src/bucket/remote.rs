//! The bucket's side of a volume that this daemon owns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use object_store::UpdateVersion;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::chain;
use super::damage::Damage;
use super::error::{BucketError, ShipError};
use super::frame::Frame;
use super::head::{Changed, Head, read_head};
use super::log::{Inline, Link, LogObject, Unwritable, Uuid};
use super::object_readahead::ObjectReadahead;
use super::objects::Objects;
use super::place::{ChainHash, ObjectId, Piece, Point};
use super::read;
use super::segment::{Segment, SegmentWriter};
use super::unnamed::Unnamed;
use crate::meta::journal::Lsn;

/// After so long without a look at HEAD an append looks again before it counts.
///
/// Shorter by far than the age at which log objects may be deleted: within this time nobody can have taken the
/// volume over, written the next log object, and deleted it again, so that a create-only write of its number would
/// succeed.
const VERIFIED_FOR: Duration = Duration::from_secs(600);
/// How often a change of HEAD is tried again that met another of this daemon.
const MAX_TRIES: u32 = 16;

/// A clock that goes on while the machine sleeps.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The clock of this host.
pub fn host_clock() -> Clock {
    Arc::new(|| {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(now.tv_sec).unwrap_or(0),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        )
    })
}

/// A volume's objects, owned by this daemon until another one takes it over.
///
/// All methods may be called from several tasks; appends take their turn.
pub struct Remote {
    pub(super) objects: Objects,
    ahead: ObjectReadahead,
    pub(super) uuid: Uuid,
    pub(super) epoch: u64,
    nonce: u128,
    clock: Clock,
    /// Nothing is written any more: taken over, or closed.
    fenced: AtomicBool,
    /// Held while a log object is appended.
    turn: tokio::sync::Mutex<()>,
    end: Mutex<Point>,
    /// HEAD as it was last seen or written, and when by the clock.
    head: tokio::sync::Mutex<KnownHead>,
    next_segment: AtomicU64,
    /// Segments that no appended log object names yet.
    pub(super) unnamed: Unnamed,
    /// Held by a checkpoint and by a clean-up: one at a time.
    pub(super) care: tokio::sync::Mutex<()>,
}

struct KnownHead {
    head: Head,
    version: UpdateVersion,
    verified: Duration,
}

/// A log object that is ready to be appended, as often as it takes.
#[derive(Debug, Clone)]
pub struct Sealed {
    bytes: Bytes,
    before: Point,
    point: Point,
    segments: Vec<ObjectId>,
}

impl Sealed {
    /// The point of the chain that it becomes.
    pub fn point(&self) -> Point {
        self.point
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("place", &self.objects.place)
            .field("epoch", &self.epoch)
            .field("end", &*self.end.lock())
            .finish_non_exhaustive()
    }
}

impl Remote {
    pub(super) fn new(
        objects: Objects,
        (head, version): (Head, UpdateVersion),
        nonce: u128,
        end: Point,
        (clock, verified): (Clock, Duration),
    ) -> Self {
        Self {
            objects,
            ahead: ObjectReadahead::default(),
            uuid: head.uuid.0,
            epoch: head.epoch,
            nonce,
            clock,
            fenced: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
            end: Mutex::new(end),
            head: tokio::sync::Mutex::new(KnownHead {
                head,
                version,
                verified,
            }),
            next_segment: AtomicU64::new(0),
            unnamed: Unnamed::default(),
            care: tokio::sync::Mutex::new(()),
        }
    }

    /// The same when writing has ended for good.
    pub(super) fn closed(self) -> Self {
        self.fenced.store(true, Ordering::SeqCst);
        self
    }

    /// Of the volume.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Counts the daemons that had the volume; this one's number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where the chain ends: at the last log object that was appended.
    pub fn end(&self) -> Point {
        *self.end.lock()
    }

    /// Whether writing has ended for good, because another daemon took over or this one closed the volume.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst)
    }

    /// Begins a segment. One that is never stored costs nothing.
    ///
    /// # Errors
    /// Its key cannot be made.
    pub fn segment(&self) -> std::io::Result<SegmentWriter> {
        self.segment_in(Vec::new())
    }

    /// As [`segment`](Self::segment), in memory that is empty.
    pub(crate) fn segment_in(&self, memory: Vec<u8>) -> std::io::Result<SegmentWriter> {
        let seq = self.next_segment.fetch_add(1, Ordering::Relaxed);
        let name = (self.epoch, seq);
        SegmentWriter::new(self.uuid, name, &self.objects.cipher, memory)
    }

    /// Collects small content that goes into the next log object itself. Worth nothing once another one was appended.
    ///
    /// # Errors
    /// Its key cannot be made.
    pub fn inline(&self) -> std::io::Result<Inline> {
        Inline::new(self.end().seq.saturating_add(1), &self.objects.cipher)
    }

    /// Bytes that each frame takes beside its content.
    pub fn frame_overhead(&self) -> usize {
        self.objects.cipher.overhead()
    }

    /// Stores a segment. To be repeated with the same segment after a failure.
    ///
    /// No clean-up removes it until a log object that names it was [appended](Self::append), or it was
    /// [given up](Self::forget_segment).
    ///
    /// # Errors
    /// The store's. A daemon that was fenced stores no segments.
    pub async fn put_segment(&self, segment: &Segment) -> Result<(), ShipError> {
        if self.is_fenced() {
            return Err(ShipError::Fenced);
        }
        self.unnamed.begin(segment);
        let key = self.objects.names.object(segment.id);
        if !self.objects.create(&key, segment.bytes.clone()).await? {
            // An earlier attempt of this daemon: nobody else has its epoch.
            let limit = u64::try_from(segment.bytes.len()).unwrap_or(u64::MAX);
            match self.objects.read(&key, limit).await? {
                Some((bytes, _)) if bytes == segment.bytes => {}
                _ => {
                    let another = Damage("another segment of this name is there");
                    return Err(ShipError::Store(BucketError::damaged(key)(another)));
                }
            }
        }
        self.unnamed.stored(segment.id);
        Ok(())
    }

    /// Lets clean-ups remove a segment that no log object will name.
    pub fn forget_segment(&self, id: ObjectId) {
        self.unnamed.remove(id);
    }

    /// The log object that comes next: all redo records up to `last` that are not in the chain yet, where content lies
    /// after them, and small content itself. Segments that `pieces` name have to be stored before.
    ///
    /// # Errors
    /// What was given is too much for one object, or it is not all: a record is missing, or content that was stored.
    pub fn seal(
        &self,
        last: Lsn,
        records: Vec<(Lsn, Vec<u8>)>,
        pieces: Vec<Piece>,
        inline: Inline,
    ) -> Result<Sealed, Unwritable> {
        let before = self.end();
        let object = LogObject {
            last,
            records,
            pieces,
            inline: inline.finish(),
            ..self.next_after(before)
        };
        self.seal_object(&object, before)
    }

    /// The log object that comes next and says where content lies now that was moved. Nothing else changes. Segments that `pieces`
    /// name have to be stored before.
    ///
    /// # Errors
    /// As those of [`seal`](Self::seal).
    pub fn seal_moved(&self, pieces: Vec<Piece>) -> Result<Sealed, Unwritable> {
        let before = self.end();
        let object = LogObject {
            pieces,
            moves: true,
            ..self.next_after(before)
        };
        self.seal_object(&object, before)
    }

    /// An empty one.
    fn next_after(&self, before: Point) -> LogObject {
        LogObject {
            seq: before.seq.saturating_add(1),
            epoch: self.epoch,
            first: before.lsn.saturating_add(1),
            last: before.lsn,
            ..LogObject::default()
        }
    }

    fn seal_object(&self, object: &LogObject, before: Point) -> Result<Sealed, Unwritable> {
        let stored = self.unnamed.check(&object.pieces);
        stored.map_err(Unwritable::Unsound)?;
        let link = Link {
            uuid: self.uuid,
            nonce: self.nonce,
            previous: before.hash,
        };
        let bytes = object.encode(&link, &self.objects.cipher)?;
        Ok(Sealed {
            point: object.point(ChainHash::of(&bytes)),
            segments: segments(&object.pieces),
            bytes,
            before,
        })
    }

    /// Appends a log object: when this returns, what is in it is in the bucket, and this daemon owned the volume.
    ///
    /// After [`ShipError::Store`] it may be there or not: append the same again until there is an answer.
    /// To append one that is the end of the chain already changes nothing.
    ///
    /// # Errors
    /// [`ShipError`] says for each what to do.
    pub async fn append(&self, sealed: &Sealed) -> Result<Point, ShipError> {
        let _turn = self.turn.lock().await;
        if self.is_fenced() {
            return Err(ShipError::Fenced);
        }
        let end = self.end();
        if sealed.point == end {
            return Ok(end);
        }
        if sealed.before != end {
            return Err(ShipError::Stale);
        }
        let key = self.objects.names.log(sealed.point.seq);
        let mut earlier = None;
        if !self.objects.create(&key, sealed.bytes.clone()).await? {
            match chain::fetch(&self.objects, self.uuid, sealed.point.seq).await? {
                Some(found) if found.point == sealed.point => {}
                Some(found) if found.link.nonce == self.nonce && found.follows(end) => {
                    earlier = Some(found);
                }
                Some(_) => return Err(self.fence()),
                // It was there and is gone: whoever took the volume over removed it, unless the store errs.
                None => {
                    self.verify_owner().await?;
                    let gone = Damage("it was there, and is gone");
                    return Err(ShipError::Store(BucketError::damaged(key)(gone)));
                }
            }
        }
        if self.age_of_ownership().await > VERIFIED_FOR {
            self.verify_owner().await?;
        }
        match earlier {
            None => {
                self.reach(sealed.point, &sealed.segments);
                Ok(sealed.point)
            }
            Some(found) => {
                self.reach(found.point, &segments(&found.object.pieces));
                Err(ShipError::Earlier(Box::new(found.object), found.point))
            }
        }
    }

    /// The chain ends at `end` now, with a log object that names these segments.
    fn reach(&self, end: Point, named: &[ObjectId]) {
        // In this order: a clean-up reads what has no name yet, then the chain.
        *self.end.lock() = end;
        for id in named {
            self.unnamed.remove(*id);
        }
    }

    fn fence(&self) -> ShipError {
        if !self.fenced.swap(true, Ordering::SeqCst) {
            tracing::error!(
                place = &*self.objects.place,
                epoch = self.epoch,
                "another daemon took over the volume; nothing more is written to it here"
            );
        }
        ShipError::Fenced
    }

    async fn age_of_ownership(&self) -> Duration {
        // Both are of the same clock; one that goes backwards proves nothing.
        let now = (self.clock)();
        let verified = self.head.lock().await.verified;
        now.checked_sub(verified).unwrap_or(Duration::MAX)
    }

    /// Asks the bucket whether this daemon owns the volume still.
    ///
    /// # Errors
    /// [`ShipError::Fenced`] when it does not, or the store's failure.
    pub async fn verify_owner(&self) -> Result<(), ShipError> {
        if self.is_fenced() {
            return Err(ShipError::Fenced);
        }
        let mut known = self.head.lock().await;
        let now = (self.clock)();
        match read_head(&self.objects, self.uuid, Some(&known.version)).await? {
            Changed::No => {}
            Changed::To(head, version) if head.is_of(self.epoch, self.nonce) => {
                known.head = *head;
                known.version = version;
            }
            Changed::To(..) | Changed::Gone => return Err(self.fence()),
        }
        known.verified = now;
        Ok(())
    }

    /// HEAD as this daemon last knew it.
    pub async fn head(&self) -> Head {
        self.head.lock().await.head.clone()
    }

    /// Replaces HEAD under the condition that it is this daemon's still.
    pub(super) async fn change_head(&self, change: impl Fn(&mut Head)) -> Result<Head, ShipError> {
        if self.is_fenced() {
            return Err(ShipError::Fenced);
        }
        let key = self.objects.names.head();
        let mut known = self.head.lock().await;
        for _ in 0..MAX_TRIES {
            let now = (self.clock)();
            let mut head = known.head.clone();
            change(&mut head);
            let old = known.version.clone();
            if let Some(version) = self.objects.replace(&key, head.to_bytes(), old).await? {
                *known = KnownHead {
                    head: head.clone(),
                    version,
                    verified: now,
                };
                return Ok(head);
            }
            // Perhaps an earlier attempt of this daemon whose answer never came.
            match read_head(&self.objects, self.uuid, None).await? {
                Changed::To(head, version) if head.is_of(self.epoch, self.nonce) => {
                    *known = KnownHead {
                        head: *head,
                        version,
                        verified: now,
                    };
                }
                _ => return Err(self.fence()),
            }
        }
        Err(ShipError::Store(BucketError::damaged(key)(Damage(
            "it cannot be replaced, although nobody else does",
        ))))
    }

    /// Gives the volume back, so that any daemon may open it. Nothing can be written afterwards.
    ///
    /// # Errors
    /// Somebody else has it, or the store failed: then it may be tried again.
    pub async fn close(&self) -> Result<(), ShipError> {
        let _turn = self.turn.lock().await;
        self.change_head(|head| head.owner = None).await?;
        self.fenced.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The content of one frame.
    ///
    /// # Errors
    /// It is damaged or gone, or the store failed.
    pub async fn read_frame(&self, frame: &Frame) -> Result<Bytes, BucketError> {
        let read = self.read_frames(std::slice::from_ref(frame)).await?;
        Ok(read.into_iter().next().unwrap_or_default())
    }

    /// The content of several frames, in their order; those that lie together are read together.
    ///
    /// # Errors
    /// One of them is damaged or gone, or the store failed.
    pub async fn read_frames(&self, frames: &[Frame]) -> Result<Vec<Bytes>, BucketError> {
        read::read_frames(&self.objects, &self.ahead, frames).await
    }

    /// As [`read_frames`](Self::read_frames), each with its place among them as soon as it is there.
    pub(crate) fn frames_as_they_come<'a>(
        &'a self,
        frames: &'a [Frame],
    ) -> impl Stream<Item = Result<(usize, Bytes), BucketError>> + Send + 'a {
        read::frames_as_they_come(&self.objects, &self.ahead, frames)
    }

    /// Hands out all log objects after a point up to the end of the chain, each with the point that it is, and
    /// returns the end.
    ///
    /// # Errors
    /// [`BucketError::Diverged`]: `after` is no point of the chain. [`BucketError::Gone`]: what follows it may have
    /// been removed; begin with the checkpoint. Damage, the store's failures, and those of `each`, which end it.
    pub async fn follow<E: From<BucketError>>(
        &self,
        after: Point,
        each: impl FnMut(LogObject, Point) -> Result<(), E>,
    ) -> Result<Point, E> {
        let head = self.head().await;
        chain::follow(&self.objects, &head, after, Some(self.end()), each).await
    }
}

/// All segments that pieces name.
fn segments(pieces: &[Piece]) -> Vec<ObjectId> {
    let object = |piece: &Piece| Some(piece.place?.0.object);
    let segment = |id: &ObjectId| matches!(id, ObjectId::Segment { .. });
    pieces.iter().filter_map(object).filter(segment).collect()
}
