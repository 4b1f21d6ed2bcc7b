//! Which nodes keep their descriptors when there are more nodes than descriptors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::inode::Inode;
use crate::inode_handle::NOWHERE;

/// The nodes whose descriptors may be given up, in shards. Each is a ring that is gone round (the
/// clock algorithm): a node that was used since the last round is passed over once.
#[derive(Debug)]
pub(crate) struct DescriptorCache {
    shards: Box<[Mutex<Ring>]>,
    shard_capacity: usize,
    /// Live nodes that have a handle instead of a descriptor now.
    given_up: AtomicUsize,
    /// How often one of them was found again by name.
    found_again: AtomicUsize,
}

#[derive(Debug, Default)]
struct Ring {
    slots: Vec<Option<Weak<Inode>>>,
    free: Vec<u32>,
    hand: usize,
}

/// A node that is to give its descriptor up, and those that were looked at on the way: the last
/// reference to a node must not be dropped under the lock, which its end takes.
struct Round {
    victim: Option<Arc<Inode>>,
    passed: Vec<Arc<Inode>>,
}

impl Ring {
    fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    fn insert(&mut self, node: &Arc<Inode>) {
        let handle = node.inode_handle();
        if handle.position.load(Ordering::Relaxed) != NOWHERE {
            return;
        }
        let position = match self.free.pop() {
            Some(position) => position,
            None => match u32::try_from(self.slots.len()) {
                Ok(position) if position != NOWHERE => {
                    self.slots.push(None);
                    position
                }
                // Never given up, which is no harm to one in four thousand million.
                _ => return,
            },
        };
        if let Some(slot) = self.slots.get_mut(position as usize) {
            *slot = Some(Arc::downgrade(node));
            handle.position.store(position, Ordering::Relaxed);
        }
    }

    fn remove(&mut self, position: u32) {
        let taken = self.slots.get_mut(position as usize).and_then(Option::take);
        if taken.is_some() {
            self.free.push(position);
            if self.len() == 0 {
                *self = Self::default();
            }
        }
    }

    /// Takes the next node that was not used since the hand last passed it.
    fn take_victim(&mut self) -> Round {
        let mut passed = Vec::new();
        let twice_round = self.slots.len().saturating_mul(2);
        for _ in 0..twice_round {
            let position = self.hand;
            self.hand = match position.saturating_add(1) {
                next if next < self.slots.len() => next,
                _ => 0,
            };
            let slot = self.slots.get(position).and_then(Option::as_ref);
            let Some(node) = slot.and_then(Weak::upgrade) else {
                continue;
            };
            if node.inode_handle().used.swap(false, Ordering::Relaxed) {
                passed.push(node);
                continue;
            }
            if let Ok(position) = u32::try_from(position) {
                self.remove(position);
            }
            node.inode_handle()
                .position
                .store(NOWHERE, Ordering::Relaxed);
            return Round {
                victim: Some(node),
                passed,
            };
        }
        Round {
            victim: None,
            passed,
        }
    }
}

/// With fewer descriptors than this one ring does.
const SHARDING_PAYS: usize = 4096;
const SHARDS: usize = 16;

/// One in so many nodes that are found again gets its descriptor back.
const TAKEN_BACK: usize = 16;

/// A victim that turns out to be needed is replaced by another, this many times.
const ATTEMPTS: usize = 64;

impl DescriptorCache {
    pub(crate) fn new(capacity: usize) -> Self {
        let shards = if capacity < SHARDING_PAYS { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(shards),
            given_up: AtomicUsize::new(0),
            found_again: AtomicUsize::new(0),
        }
    }

    fn shard(&self, node: &Inode) -> Option<&Mutex<Ring>> {
        // Nodes are more than 64 bytes apart.
        let number = (std::ptr::from_ref(node).addr() >> 6).checked_rem(self.shards.len())?;
        self.shards.get(number)
    }

    /// Keeps a node with an open descriptor, and gives up others when there are too many.
    pub(crate) fn insert(&self, node: &Arc<Inode>) {
        if node.mount().has_no_handles() {
            return;
        }
        let Some(shard) = self.shard(node) else {
            return;
        };
        let mut ring = shard.lock();
        ring.insert(node);
        let full = ring.len() > self.shard_capacity;
        drop(ring);
        if full {
            self.give_up_one_of(shard);
        }
    }

    /// Forgets a node that is being dropped.
    pub(crate) fn remove(&self, node: &Inode) {
        let position = node.inode_handle().position.load(Ordering::Relaxed);
        if position != NOWHERE
            && let Some(shard) = self.shard(node)
        {
            shard.lock().remove(position);
        }
    }

    /// A node has lost its descriptor and keeps its handle.
    pub(crate) fn count_given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    /// It has it again, or is gone.
    pub(crate) fn uncount_given_up(&self) {
        self.given_up.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a node that was found again by name, and had given its descriptor up, gets it back.
    ///
    /// Without, each lookup has to compare handles. But when more nodes are in use than there are
    /// descriptors, taking one back only makes another give its up, which costs more than it saves. So few
    /// do: those that are looked up often are soon among them.
    pub(crate) fn takes_back(&self) -> bool {
        self.found_again
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(TAKEN_BACK)
    }

    /// How many live nodes have a handle instead of their descriptor.
    pub(crate) fn given_up(&self) -> usize {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Makes room for one more descriptor, if any can be given up.
    pub(crate) fn give_up_one(&self) -> bool {
        self.shards.iter().any(|shard| self.give_up_one_of(shard))
    }

    fn give_up_one_of(&self, shard: &Mutex<Ring>) -> bool {
        for _ in 0..ATTEMPTS {
            let Round { victim, passed } = shard.lock().take_victim();
            drop(passed);
            let Some(victim) = victim else {
                return false;
            };
            if victim.give_up() {
                return true;
            }
            // On a mount without handles it is not kept for another try.
            if !victim.mount().has_no_handles() {
                victim.inode_handle().used.store(true, Ordering::Relaxed);
                shard.lock().insert(&victim);
            }
        }
        false
    }
}
