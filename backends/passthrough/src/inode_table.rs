//! The nodes of a mount that are alive, by their inode numbers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::inode::Inode;

const SHARDS: usize = 64;

/// Below this a table keeps its memory.
const SMALL: usize = 256;

type Shard = HashMap<u64, Weak<Inode>>;

/// The nodes of a mount that are alive. It does not keep them so.
#[derive(Debug)]
pub(crate) struct InodeTable {
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for InodeTable {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl InodeTable {
    fn shard(&self, number: u64) -> &Mutex<Shard> {
        // Inode numbers of one directory are close together, which spreads them well. The remainder
        // is always a shard; the first stands in for the compiler.
        let [first, ..] = &self.shards;
        number
            .checked_rem(SHARDS as u64)
            .and_then(|shard| self.shards.get(usize::try_from(shard).ok()?))
            .unwrap_or(first)
    }

    /// The live node with this inode number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Inode>> {
        self.shard(number)
            .lock()
            .get(&number)
            .and_then(Weak::upgrade)
    }

    /// Puts `node` at its number, unless a node other than `stale` is alive there: then that one is
    /// answered instead.
    pub(crate) fn insert(
        &self,
        number: u64,
        node: Arc<Inode>,
        stale: Option<&Arc<Inode>>,
    ) -> Arc<Inode> {
        let mut shard = self.shard(number).lock();
        let alive = shard.get(&number).and_then(Weak::upgrade);
        match alive {
            Some(alive) if !stale.is_some_and(|stale| Arc::ptr_eq(stale, &alive)) => {
                // The lock is released before `node` is dropped, which takes it.
                drop(shard);
                alive
            }
            other => {
                shard.insert(number, Arc::downgrade(&node));
                drop(shard);
                drop(other);
                node
            }
        }
    }

    /// Forgets a node that is being dropped.
    pub(crate) fn remove(&self, number: u64, node: &Inode) {
        let mut shard = self.shard(number).lock();
        if shard
            .get(&number)
            .is_some_and(|known| std::ptr::eq(known.as_ptr(), node))
        {
            shard.remove(&number);
            if shard.capacity() > SMALL && shard.len() < shard.capacity() / 8 {
                let room = shard.len().saturating_mul(2);
                shard.shrink_to(room);
            }
        }
    }

    /// How many nodes are alive.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
