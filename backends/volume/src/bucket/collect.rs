//! Removing objects that nothing names any more.
//!
//! An object goes only if it was written long ago by the store's clock, and neither the checkpoint of HEAD nor one of a
//! snapshot nor a log object after HEAD's checkpoint names it. In doubt it stays: a leak costs less than a loss.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use vfsd_object_store::store::ListedObject;

use super::error::{BucketError, ShipError};
use super::head::Head;
use super::log::LogObject;
use super::objects::Objects;
use super::place::{ObjectId, Piece, Point};
use super::remote::Remote;
use super::snapshot::Snapshot;
use super::stat::Amount;
use super::view::View;

/// How long ago an object must have been written before it may be removed. Far longer than a daemon goes without a
/// look at HEAD.
pub const MIN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Objects that are deleted between two looks at HEAD.
const BATCH: usize = 1000;
/// Objects that one clean-up removes at most: what it remembers of them is about 20 MiB. The next one goes on.
const MOST: usize = 500_000;

/// An object of which less is live has its content moved, and goes.
const SPARSE_PER_CENT: u64 = 30;
/// So many of them are remembered.
const MOST_SPARSE: usize = 10_000;
/// Content of shorter log objects is moved, however much of them it is.
const SMALL_LOG_BYTES: u64 = 64 << 10;

/// A checkpoint that is read for a clean-up, in the folder that was named for it.
pub(crate) const CHECKPOINT_TO_READ: &str = "checkpoint-to-read";

/// What checkpoints name: who removes objects has to have read all of those that can be restored.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Ids of the checkpoints that were read: HEAD's and those of all snapshots.
    pub checkpoints: BTreeSet<u64>,
    /// All objects that their extents name.
    pub objects: HashSet<ObjectId>,
    /// How many stored bytes of each object HEAD's checkpoint needs, about, if that was counted.
    pub live: HashMap<ObjectId, u64>,
    /// Objects that snapshots name.
    pub pinned: HashSet<ObjectId>,
    /// Names of snapshots that count as gone: whoever removes objects gives them up first.
    pub given_up: BTreeSet<String>,
}

impl Named {
    /// The snapshots of a volume but for those that count as gone.
    async fn snapshots(&self, view: &View) -> Result<Vec<Snapshot>, BucketError> {
        let mut snapshots = view.snapshots().await?;
        snapshots.retain(|snapshot| !self.given_up.contains(&snapshot.name));
        Ok(snapshots)
    }
}

/// What a clean-up removed, or would remove.
#[derive(Debug, Default)]
pub struct Collected {
    /// Log objects from before the checkpoint.
    pub log: Amount,
    /// Segments, also such as a daemon stored that ended before it named them.
    pub segments: Amount,
    /// Parts of earlier checkpoints.
    pub checkpoints: Amount,
    /// Objects that nothing names, but that are too young.
    pub young: Amount,
    /// Old objects of which little is [live](Named::live), and which nothing else needs: those whose content is worth moving.
    pub sparse: Vec<ObjectId>,
    /// Objects that could not be deleted, and why the first of them.
    pub failed: u64,
    /// The first failure.
    pub failure: Option<BucketError>,
}

/// An object that may be removed if nothing names it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    kind: Kind,
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Content(ObjectId),
    Part { seq: u64, id: u64, part: u32 },
}

impl Candidate {
    fn key(&self, objects: &Objects) -> Path {
        match self.kind {
            Kind::Content(id) => objects.names.object(id),
            Kind::Part { seq, id, part } => objects.names.checkpoint_part(seq, id, part),
        }
    }
}

impl Collected {
    fn count(&mut self, candidate: &Candidate) {
        let amount = match candidate.kind {
            Kind::Content(ObjectId::Log(_)) => &mut self.log,
            Kind::Content(ObjectId::Segment { .. }) => &mut self.segments,
            Kind::Part { .. } => &mut self.checkpoints,
        };
        amount.add(candidate.bytes);
    }

    /// What two clean-ups did, one after the other.
    pub(crate) fn then(&mut self, next: Self) {
        for (sum, one) in [
            (&mut self.log, next.log),
            (&mut self.segments, next.segments),
            (&mut self.checkpoints, next.checkpoints),
        ] {
            sum.objects = sum.objects.saturating_add(one.objects);
            sum.bytes = sum.bytes.saturating_add(one.bytes);
        }
        self.young = next.young;
        self.failed = self.failed.saturating_add(next.failed);
        self.failure = self.failure.take().or(next.failure);
    }

    /// How much of everything was removed, or would be.
    pub fn removed(&self) -> Amount {
        let all = [self.log, self.segments, self.checkpoints];
        all.into_iter().fold(Amount::default(), |sum, one| Amount {
            objects: sum.objects.saturating_add(one.objects),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

/// Adds the objects that a log object names.
fn add_named(live: &mut HashSet<ObjectId>, object: &LogObject) {
    let object_of = |piece: &Piece| piece.place.map(|(frame, _)| frame.object);
    live.extend(object.pieces.iter().filter_map(object_of));
}

/// What stays whatever the log says, and how old something has to be that goes.
struct Rules<'a> {
    head: &'a Head,
    named: &'a Named,
    /// Checkpoints that can be restored.
    kept: BTreeSet<u64>,
    now: SystemTime,
    min_age: Duration,
}

impl<'a> Rules<'a> {
    async fn new(
        view: &'a View,
        named: &'a Named,
        now: SystemTime,
        min_age: Duration,
    ) -> Result<Self, BucketError> {
        let ids = view.head.checkpoint.iter().map(|checkpoint| checkpoint.id);
        let mut kept: BTreeSet<u64> = ids.collect();
        let snapshots = named.snapshots(view).await?;
        kept.extend(snapshots.iter().map(|snapshot| snapshot.checkpoint.id));
        if let Some(id) = kept.difference(&named.checkpoints).next() {
            return Err(BucketError::Uncovered(*id));
        }
        Ok(Self {
            head: &view.head,
            named,
            kept,
            now,
            min_age,
        })
    }

    fn is_kept(&self, kind: Kind) -> bool {
        match kind {
            Kind::Content(id) => self.named.objects.contains(&id),
            Kind::Part { id, .. } => self.kept.contains(&id),
        }
    }

    /// Whether little is live of an object that stays.
    fn is_sparse(&self, id: ObjectId, object: &ListedObject) -> bool {
        let Some(live) = self.named.live.get(&id) else {
            return false;
        };
        let age = self.now.duration_since(object.modified);
        let is_old = age.is_ok_and(|age| age >= self.min_age);
        // A log object is small as a rule: many of them are one segment.
        let is_small = matches!(id, ObjectId::Log(_)) && object.size < SMALL_LOG_BYTES;
        let most = object.size.saturating_mul(SPARSE_PER_CENT) / 100;
        is_old && !self.named.pinned.contains(&id) && (is_small || *live < most)
    }

    /// Lists what may go. What is too young is counted only.
    async fn candidates(
        &self,
        objects: &Objects,
        live: &HashSet<ObjectId>,
        collected: &mut Collected,
    ) -> Result<Vec<Candidate>, BucketError> {
        let names = &objects.names;
        let boundary = self.head.base().seq;
        let kind = |key: &str| {
            let log = names.parse_log(key).filter(|&seq| seq < boundary);
            let content = log.map(ObjectId::Log).or_else(|| names.parse_segment(key));
            let part = || {
                let (seq, id, part) = names.parse_part(key)?;
                Some(Kind::Part { seq, id, part })
            };
            content.map(Kind::Content).or_else(part)
        };
        let mut candidates = Vec::new();
        for folder in ["log/", "seg/", "ckpt/"] {
            let each = |object: ListedObject| {
                let Some(kind) = kind(&object.key) else {
                    return;
                };
                if self.is_kept(kind) {
                    if let Kind::Content(id) = kind
                        && collected.sparse.len() < MOST_SPARSE
                        && self.is_sparse(id, &object)
                    {
                        collected.sparse.push(id);
                    }
                    return;
                }
                if matches!(kind, Kind::Content(id) if live.contains(&id)) {
                    return;
                }
                let age = self.now.duration_since(object.modified);
                if !age.is_ok_and(|age| age >= self.min_age) {
                    collected.young.add(object.size);
                } else if candidates.len() < MOST {
                    let bytes = object.size;
                    candidates.push(Candidate { kind, bytes });
                }
            };
            objects.list(folder, None, each).await?;
        }
        Ok(candidates)
    }
}

impl View {
    /// Restores HEAD's checkpoint and those of all snapshots that are not `known` one after the other to a file in
    /// `folder`, has `read` tell which objects the extents in it name, and removes it again.
    ///
    /// # Errors
    /// A checkpoint is damaged, `read` failed, or the store or the disk did.
    pub async fn named(
        &self,
        folder: &std::path::Path,
        known: Named,
        read: fn(&std::path::Path) -> std::io::Result<Vec<ObjectId>>,
    ) -> Result<Named, BucketError> {
        let mut named = known;
        let head = self
            .head
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.id);
        let snapshots = named.snapshots(self).await?;
        let pinned = snapshots.into_iter().map(|snapshot| snapshot.checkpoint);
        let pinned: Vec<_> = pinned.collect();
        if pinned.iter().any(|checkpoint| Some(checkpoint.id) == head) {
            // It names all that could be moved.
            named.live.clear();
        }
        let file = folder.join(CHECKPOINT_TO_READ);
        for checkpoint in self.head.checkpoint.clone().into_iter().chain(pinned) {
            if !named.checkpoints.insert(checkpoint.id) {
                continue;
            }
            self.restore(&checkpoint, &file).await?;
            let path = file.clone();
            let objects = tokio::task::spawn_blocking(move || {
                let objects = read(&path);
                std::fs::remove_file(&path)?;
                objects
            });
            let objects = objects
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let objects = objects.map_err(BucketError::local("read a checkpoint"))?;
            if Some(checkpoint.id) != head {
                named.pinned.extend(&objects);
            }
            named.objects.extend(objects);
        }
        Ok(named)
    }

    /// What a [clean-up](Remote::collect) by the owner would remove now, about: ages are told by this host's clock.
    ///
    /// # Errors
    /// As those of a clean-up.
    pub async fn survey(&self, named: &Named, min_age: Duration) -> Result<Collected, BucketError> {
        let rules = Rules::new(self, named, SystemTime::now(), min_age).await?;
        let mut live = HashSet::new();
        let followed = self.follow::<BucketError>(self.head.base(), |object, _| {
            add_named(&mut live, &object);
            Ok(())
        });
        followed.await?;
        let mut collected = Collected::default();
        let candidates = rules
            .candidates(&self.objects, &live, &mut collected)
            .await?;
        candidates
            .iter()
            .for_each(|candidate| collected.count(candidate));
        Ok(collected)
    }
}

impl Remote {
    /// Removes objects that nothing names and that are older than `min_age`, in production [`MIN_AGE`].
    ///
    /// # Errors
    /// A listing failed, or a checkpoint that can be restored is not among `named` ([`BucketError::Uncovered`]): then
    /// nothing was removed. This daemon no longer owns the volume.
    pub async fn collect(&self, named: &Named, min_age: Duration) -> Result<Collected, ShipError> {
        let _care = self.care.lock().await;
        // Before anything is deleted, HEAD says what may be gone: an opener that fell asleep compares its fence with that.
        // HEAD's time of writing then tells the store's clock.
        let head = self
            .change_head(|head| head.boundary = head.boundary.max(head.base().seq))
            .await?;
        let key = self.objects.names.head();
        let (_, now) = self.objects.look(&key).await?.ok_or(ShipError::Fenced)?;
        let view = View {
            objects: self.objects.clone(),
            head,
        };
        let rules = Rules::new(&view, named, now, min_age).await?;
        let mut live = HashSet::new();
        let end = self.add_live(view.head.base(), &mut live).await?;
        let mut collected = Collected::default();
        let mut candidates = rules
            .candidates(&self.objects, &live, &mut collected)
            .await?;
        // After the listing: what was listed and is named only now is found here, or is not named yet.
        let unnamed = self.unnamed.ids();
        self.add_live(end, &mut live).await?;
        candidates.retain(|candidate| match candidate.kind {
            Kind::Content(id) => !unnamed.contains(&id) && !live.contains(&id),
            Kind::Part { .. } => true,
        });
        candidates
            .iter()
            .for_each(|candidate| collected.count(candidate));
        self.delete(&candidates, &mut collected).await?;
        Ok(collected)
    }

    /// Adds what the log objects after a point name, up to the end of the chain, which is returned.
    async fn add_live(
        &self,
        after: Point,
        live: &mut HashSet<ObjectId>,
    ) -> Result<Point, ShipError> {
        let followed = self.follow::<BucketError>(after, |object, _| {
            add_named(live, &object);
            Ok(())
        });
        match followed.await {
            Ok(end) => Ok(end),
            Err(error) => {
                // Whoever took the volume over may have removed what was to be read.
                self.verify_owner().await?;
                Err(error.into())
            }
        }
    }

    async fn delete(
        &self,
        candidates: &[Candidate],
        collected: &mut Collected,
    ) -> Result<(), ShipError> {
        for batch in candidates.chunks(BATCH) {
            self.verify_owner().await?;
            let wanted = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let keys = batch.iter().map(|candidate| candidate.key(&self.objects));
            let (deleted, failure) = self.objects.delete(keys.collect()).await;
            collected.failed = collected
                .failed
                .saturating_add(wanted.saturating_sub(deleted));
            collected.failure = collected.failure.take().or(failure);
        }
        Ok(())
    }
}
