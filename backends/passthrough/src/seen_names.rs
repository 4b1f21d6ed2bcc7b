//! Names that were looked up before.
//!
//! A lookup has two ways. For a name whose node is alive, one statx(2) by name is all it takes,
//! and it does not wait for a disk, because the node's descriptor keeps the directory entry in
//! memory. For a new name, an `O_PATH` open comes first, which can be told not to wait. This table
//! guesses which of the two is right. A wrong guess costs time only.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use vfsd_backend::{Name, NodeIdentity};

const SLOTS: u64 = 1 << 15;

/// Remembers the names that were looked up last, of those that share a slot.
#[derive(Debug)]
pub(crate) struct SeenNames {
    slots: Box<[AtomicU32]>,
    /// Keyed at random: which names share a slot is not for the guest to choose.
    hasher: RandomState,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenName {
    slot: usize,
    tag: u32,
}

impl Default for SeenNames {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl SeenNames {
    pub(crate) fn key(&self, directory: &NodeIdentity, name: Name<'_>) -> SeenName {
        let hash = self
            .hasher
            .hash_one((directory.device, directory.inode, name.as_bytes()));
        SeenName {
            slot: usize::try_from(hash % SLOTS).unwrap_or(0),
            // 0 is an empty slot.
            tag: u32::try_from(hash >> 32).unwrap_or(0) | 1,
        }
    }

    pub(crate) fn contains(&self, name: SeenName) -> bool {
        self.slots
            .get(name.slot)
            .is_some_and(|slot| slot.load(Ordering::Relaxed) == name.tag)
    }

    pub(crate) fn insert(&self, name: SeenName) {
        if let Some(slot) = self.slots.get(name.slot) {
            slot.store(name.tag, Ordering::Relaxed);
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
        seen.insert(seen.key(&directory(2), name));
        assert!(seen.contains(seen.key(&directory(2), name)));
        assert!(!seen.contains(seen.key(&directory(3), name)));
    }
}
