//! Removing objects that nothing names any more.
//!
//! An object goes only if it was written long ago by the store's clock, and neither the checkpoint of HEAD nor one of a
//! snapshot nor a log object after HEAD's checkpoint names it. In doubt it stays: a leak costs less than a loss.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use vfsd_object_store::store::ListedObject;

use super::error::{BucketError, ShipError};
use super::place::{ObjectId, Piece};
use super::remote::Remote;
use super::stat::Amount;
use super::view::View;

/// How long ago an object must have been written before it may be removed. Far longer than a daemon goes without a
/// look at HEAD.
pub const MIN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Keys that are deleted between two looks at HEAD.
const BATCH: usize = 1000;

/// What checkpoints name: who removes objects has to have read all of those that can be restored.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Ids of the checkpoints that were read: HEAD's and those of all snapshots.
    pub checkpoints: BTreeSet<u64>,
    /// All objects that their extents name.
    pub objects: HashSet<ObjectId>,
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
    /// Objects that could not be deleted, and why the first of them.
    pub failed: u64,
    /// The first failure.
    pub failure: Option<BucketError>,
}

/// An object that may be removed if nothing names it.
struct Candidate {
    key: Path,
    bytes: u64,
    kind: Kind,
    old: bool,
}

enum Kind {
    Log(u64),
    Segment(ObjectId),
    Part(u64),
}

impl View {
    /// Restores HEAD's checkpoint and those of all snapshots one after the other to a file in `folder`, has `read` tell
    /// which objects the extents in it name, and removes it again.
    ///
    /// # Errors
    /// A checkpoint is damaged, `read` failed, or the store or the disk did.
    pub async fn named(
        &self,
        folder: &std::path::Path,
        mut read: impl FnMut(&std::path::Path) -> std::io::Result<Vec<ObjectId>>,
    ) -> Result<Named, BucketError> {
        let mut named = Named::default();
        let snapshots = self.snapshots().await?;
        let pinned = snapshots.into_iter().map(|snapshot| snapshot.checkpoint);
        let file = folder.join("checkpoint-to-read");
        for checkpoint in self.head.checkpoint.clone().into_iter().chain(pinned) {
            if !named.checkpoints.insert(checkpoint.id) {
                continue;
            }
            self.restore(&checkpoint, &file).await?;
            let objects = read(&file);
            let removed = std::fs::remove_file(&file);
            let objects = objects.map_err(BucketError::local("read a checkpoint"))?;
            removed.map_err(BucketError::local("remove a checkpoint's file"))?;
            named.objects.extend(objects);
        }
        Ok(named)
    }
}

impl Remote {
    /// Removes objects that nothing names and that are older than `min_age`, in production [`MIN_AGE`]; with `dry` only tells of them.
    ///
    /// # Errors
    /// A listing failed, or a checkpoint that can be restored is not among `named` ([`BucketError::Uncovered`]): then
    /// nothing was removed. This daemon no longer owns the volume.
    pub async fn collect(
        &self,
        named: &Named,
        min_age: Duration,
        dry: bool,
    ) -> Result<Collected, ShipError> {
        let _care = self.care.lock().await;
        // Before anything is deleted, HEAD says what may be gone: an opener that fell asleep compares its fence with that.
        // HEAD's time of writing then tells the store's clock.
        let head = self
            .change_head(|head| {
                if !dry {
                    head.boundary = head.boundary.max(head.base().seq);
                }
            })
            .await?;
        let key = self.objects.names.head();
        let (_, now) = self.objects.look(&key).await?.ok_or(ShipError::Fenced)?;
        let boundary = head.base().seq;
        let old =
            |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age >= min_age);

        let mut kept: BTreeSet<u64> = head
            .checkpoint
            .iter()
            .map(|checkpoint| checkpoint.id)
            .collect();
        let snapshots = self.view().await.snapshots().await?;
        kept.extend(snapshots.iter().map(|snapshot| snapshot.checkpoint.id));
        if let Some(id) = kept.difference(&named.checkpoints).next() {
            return Err(ShipError::Store(BucketError::Uncovered(*id)));
        }
        let candidates = self.candidates(boundary, old).await?;

        // After the listing: what was listed and is named only now is found here, or is not named yet.
        let unnamed = self.unnamed.lock().clone();
        let mut live = HashSet::new();
        let followed = self.follow::<BucketError>(head.base(), |object, _| {
            let object_of = |piece: &Piece| piece.place.map(|(frame, _)| frame.object);
            live.extend(object.pieces.iter().filter_map(object_of));
            Ok(())
        });
        if let Err(error) = followed.await {
            // Whoever took the volume over may have removed what was to be read.
            self.verify_owner().await?;
            return Err(error.into());
        }
        let used =
            |id: &ObjectId| unnamed.contains(id) || live.contains(id) || named.objects.contains(id);
        let mut collected = Collected::default();
        let mut keys = Vec::new();
        for candidate in candidates {
            let (needed, amount) = match candidate.kind {
                Kind::Log(seq) => (used(&ObjectId::Log(seq)), &mut collected.log),
                Kind::Segment(id) => (used(&id), &mut collected.segments),
                Kind::Part(id) => (kept.contains(&id), &mut collected.checkpoints),
            };
            match (needed, candidate.old) {
                (true, _) => {}
                (false, false) => collected.young.add(candidate.bytes),
                (false, true) => {
                    amount.add(candidate.bytes);
                    keys.push(candidate.key);
                }
            }
        }
        if !dry {
            self.delete(keys, &mut collected).await?;
        }
        Ok(collected)
    }

    async fn candidates(
        &self,
        boundary: u64,
        old: impl Fn(SystemTime) -> bool,
    ) -> Result<Vec<Candidate>, BucketError> {
        let names = &self.objects.names;
        let kind = |key: &str| {
            let log = names
                .parse_log(key)
                .filter(|&seq| seq < boundary)
                .map(Kind::Log);
            log.or_else(|| names.parse_segment(key).map(Kind::Segment))
                .or_else(|| names.parse_part(key).map(|(_, id)| Kind::Part(id)))
        };
        let mut candidates = Vec::new();
        for folder in ["log/", "seg/", "ckpt/"] {
            let each = |object: ListedObject| {
                let key = Path::parse(&object.key).ok();
                candidates.extend(key.zip(kind(&object.key)).map(|(key, kind)| Candidate {
                    key,
                    bytes: object.size,
                    kind,
                    old: old(object.modified),
                }));
            };
            self.objects.list(folder, None, each).await?;
        }
        Ok(candidates)
    }

    async fn delete(&self, keys: Vec<Path>, collected: &mut Collected) -> Result<(), ShipError> {
        for batch in keys.chunks(BATCH) {
            self.verify_owner().await?;
            let wanted = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let (deleted, failure) = self.objects.delete(batch.to_vec()).await;
            collected.failed = collected
                .failed
                .saturating_add(wanted.saturating_sub(deleted));
            collected.failure = collected.failure.take().or(failure);
        }
        Ok(())
    }
}
