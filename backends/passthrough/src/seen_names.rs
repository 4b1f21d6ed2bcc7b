//! Names that were looked up before.
//!
//! A lookup has two ways. For a name whose node is alive, one statx(2) by name is all it takes,
//! and it does not wait for a disk, because the node's descriptor keeps the directory entry in
//! memory. For a new name, an `O_PATH` open comes first, which can be told not to wait. This table
//! guesses which of the two is right. A wrong guess costs time only.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use vfsd_backend::{Name, NodeIdentity};

/// Names that have a place at first, and at most. Four bytes each.
const FEWEST: usize = 1 << 15;
const MOST: usize = 1 << 21;

type Slots = Box<[AtomicU32]>;

/// Remembers the names that were looked up last, of those that share a slot.
#[derive(Debug)]
pub(crate) struct SeenNames {
    slots: ArcSwap<Slots>,
    /// Keyed at random: which names share a slot is not for the guest to choose.
    hasher: RandomState,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenName(u64);

impl SeenName {
    fn slot(self, slots: &Slots) -> Option<&AtomicU32> {
        let index = usize::try_from(self.0 & 0xffff_ffff).ok()?;
        // The length is a power of two.
        slots.get(index & slots.len().wrapping_sub(1))
    }

    fn tag(self) -> u32 {
        // 0 is an empty slot.
        u32::try_from(self.0 >> 32).unwrap_or(0) | 1
    }
}

fn empty(length: usize) -> Arc<Slots> {
    Arc::new((0..length).map(|_| AtomicU32::new(0)).collect())
}

impl Default for SeenNames {
    fn default() -> Self {
        Self {
            slots: ArcSwap::new(empty(FEWEST)),
            hasher: RandomState::new(),
        }
    }
}

impl SeenNames {
    pub(crate) fn key(&self, directory: &NodeIdentity, name: Name<'_>) -> SeenName {
        let key = (directory.device, directory.inode, name.as_bytes());
        SeenName(self.hasher.hash_one(key))
    }

    pub(crate) fn contains(&self, name: SeenName) -> bool {
        let slots = self.slots.load();
        name.slot(&slots)
            .is_some_and(|slot| slot.load(Ordering::Relaxed) == name.tag())
    }

    /// Remembers a name. The table grows, and is empty for a moment, when the guest knows more nodes
    /// than fit: `nodes` is about how many. It becomes small again when the guest has forgotten them.
    pub(crate) fn insert(&self, name: SeenName, nodes: usize) {
        let slots = self.slots.load();
        if let Some(slot) = name.slot(&slots) {
            slot.store(name.tag(), Ordering::Relaxed);
        }
        let length = slots.len();
        if nodes > length / 2 && length < MOST {
            self.slots.store(empty(length.saturating_mul(4).min(MOST)));
        } else if nodes < length / 32 && length > FEWEST {
            self.slots.store(empty(FEWEST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_seen_in_its_own_directory_only() {
        let seen = SeenNames::default();
        let directory = |inode| NodeIdentity {
            device: 1,
            inode,
            generation: 0,
        };
        let name = Name::new(b"name").unwrap();
        seen.insert(seen.key(&directory(2), name), 0);
        assert!(seen.contains(seen.key(&directory(2), name)));
        assert!(!seen.contains(seen.key(&directory(3), name)));
    }
    #[test]
    fn the_table_grows_with_what_the_guest_knows_and_shrinks_when_it_forgets() {
        let seen = SeenNames::default();
        let directory = NodeIdentity {
            device: 1,
            inode: 2,
            generation: 0,
        };
        let length = || seen.slots.load().len();
        let mut known = 0;
        let mut insert = |nodes| {
            let name = known.to_string();
            known += 1;
            seen.insert(
                seen.key(&directory, Name::new(name.as_bytes()).unwrap()),
                nodes,
            );
        };
        insert(FEWEST / 2);
        assert_eq!(length(), FEWEST);
        (0..10).for_each(|_| insert(1_000_000));
        assert!((1_000_000..=MOST).contains(&length()));
        insert(1_000_000);
        let last = seen.key(&directory, Name::new(b"11").unwrap());
        assert!(seen.contains(last));
        insert(0);
        assert_eq!(length(), FEWEST);
        assert!(!seen.contains(last));
    }
}
