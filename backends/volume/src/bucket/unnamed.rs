//! Segments of a daemon that no log object names yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::damage::Damage;
use super::place::{ObjectId, Piece};
use super::segment::{Entry, Segment};

/// All that were begun to be stored. No clean-up may remove one of them.
#[derive(Debug, Default)]
pub(super) struct Unnamed(Mutex<BTreeMap<ObjectId, Waiting>>);

#[derive(Debug)]
struct Waiting {
    entries: Arc<[Entry]>,
    /// The store has answered that it has it.
    stored: bool,
}

impl Unnamed {
    /// One is about to be stored.
    pub(super) fn begin(&self, segment: &Segment) {
        self.0.lock().entry(segment.id).or_insert_with(|| Waiting {
            entries: segment.entries.clone(),
            stored: false,
        });
    }

    /// One is stored.
    pub(super) fn stored(&self, id: ObjectId) {
        if let Some(waiting) = self.0.lock().get_mut(&id) {
            waiting.stored = true;
        }
    }

    /// One has a name now, or will have none.
    pub(super) fn remove(&self, id: ObjectId) {
        self.0.lock().remove(&id);
    }

    pub(super) fn ids(&self) -> BTreeSet<ObjectId> {
        self.0.lock().keys().copied().collect()
    }

    /// Whether the segments that pieces name are stored, and all of their content is what the pieces say.
    pub(super) fn check(&self, pieces: &[Piece]) -> Result<(), Damage> {
        let mut named: HashMap<ObjectId, Vec<Entry>> = HashMap::new();
        for piece in pieces {
            let Some((frame, skip)) = piece.place else {
                continue;
            };
            if !matches!(frame.object, ObjectId::Segment { .. }) {
                continue;
            }
            if skip != 0 || piece.length != u64::from(frame.length) {
                return Err(Damage("it names a part of new content only"));
            }
            named.entry(frame.object).or_default().push(Entry {
                ino: piece.ino,
                offset: piece.offset,
                frame,
            });
        }
        let waiting = self.0.lock();
        for (id, mut entries) in named {
            let segment = waiting.get(&id).filter(|segment| segment.stored);
            let segment = segment.ok_or(Damage("it names content that was not stored"))?;
            entries.sort_unstable_by_key(|entry| entry.frame.offset);
            if *segment.entries != *entries {
                return Err(Damage("it does not name content as it was stored"));
            }
        }
        Ok(())
    }
}
