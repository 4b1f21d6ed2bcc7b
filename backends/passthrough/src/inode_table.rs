//! The nodes that are alive, by what they are on the host.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::inode::Inode;

/// Where an inode is: the mount and file system, and the number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InodeKey {
    pub(crate) place: u64,
    pub(crate) inode: u64,
}

const SHARDS: usize = 64;

/// Below this a table keeps its memory.
const SMALL: usize = 256;

type Shard = HashMap<InodeKey, Weak<Inode>>;

/// The nodes that are alive. It does not keep them so.
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
    fn shard(&self, key: InodeKey) -> &Mutex<Shard> {
        // Inode numbers of one directory are close together, which spreads them well. The remainder
        // is always a shard; the first stands in for the compiler.
        let number = (key.inode ^ key.place).checked_rem(SHARDS as u64);
        let [first, ..] = &self.shards;
        number
            .and_then(|number| self.shards.get(usize::try_from(number).ok()?))
            .unwrap_or(first)
    }

    /// The live node at `key`.
    pub(crate) fn get(&self, key: InodeKey) -> Option<Arc<Inode>> {
        self.shard(key).lock().get(&key).and_then(Weak::upgrade)
    }

    /// Puts `node` at `key`, unless a node other than `stale` is alive there: then that one is
    /// answered instead.
    pub(crate) fn insert(
        &self,
        key: InodeKey,
        node: Arc<Inode>,
        stale: Option<&Arc<Inode>>,
    ) -> Arc<Inode> {
        let mut shard = self.shard(key).lock();
        let alive = shard.get(&key).and_then(Weak::upgrade);
        match alive {
            Some(alive) if !stale.is_some_and(|stale| Arc::ptr_eq(stale, &alive)) => {
                // The lock is released before `node` is dropped, which takes it.
                drop(shard);
                alive
            }
            other => {
                shard.insert(key, Arc::downgrade(&node));
                drop(shard);
                drop(other);
                node
            }
        }
    }

    /// Forgets a node that is being dropped.
    pub(crate) fn remove(&self, key: InodeKey, node: &Weak<Inode>) {
        let mut shard = self.shard(key).lock();
        if shard.get(&key).is_some_and(|known| known.ptr_eq(node)) {
            shard.remove(&key);
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
