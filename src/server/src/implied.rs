//! What is open for a guest that opens nothing: files and listings by their node, opened by the
//! requests that need them and closed when there are too many or the node is forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vfsd_backend::{Directory, File};
use vfsd_fuse::wire::NodeId;

use crate::shards::Shards;
use crate::slots::{SHARDS, shard_of};

/// Files that stay open at most, give or take what one part of the table has more than another.
const FILES: usize = 4096;
/// Listings that are under way at most, as for files.
const LISTINGS: usize = 128;

/// An open file that no handle stands for.
#[derive(Clone)]
pub(crate) struct ImpliedFile {
    pub(crate) file: Arc<dyn File>,
    /// It is open to write, too. All are open to read.
    pub(crate) writable: bool,
}

/// What is open without a handle.
#[derive(Debug)]
pub(crate) struct Implied {
    pub(crate) files: ByNode<ImpliedFile>,
    /// Listings that have begun and not come to their end.
    pub(crate) listings: ByNode<Arc<dyn Directory>>,
}

impl Implied {
    /// Nothing, and no more files at once than the guest may have open.
    pub(crate) fn new(handles: usize) -> Self {
        Self {
            files: ByNode::new(FILES.min(handles)),
            listings: ByNode::new(LISTINGS.min(handles)),
        }
    }
}

/// Something for each of a bounded number of nodes. Over the bound the one is given up that was not
/// used lately (the clock algorithm).
pub(crate) struct ByNode<T> {
    shards: Shards<Ring<T>>,
    /// Of a shard.
    capacity: usize,
}

struct Ring<T> {
    places: HashMap<NodeId, usize>,
    slots: Vec<Slot<T>>,
    hand: usize,
}

struct Slot<T> {
    node: NodeId,
    /// Since the hand last passed.
    used: AtomicBool,
    object: T,
}

impl<T: Clone> ByNode<T> {
    fn new(capacity: usize) -> Self {
        Self {
            shards: Shards::new(|| Ring {
                places: HashMap::new(),
                slots: Vec::new(),
                hand: 0,
            }),
            capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// What is there for a node.
    pub(crate) fn get(&self, node: NodeId) -> Option<T> {
        let shard = self.shards.get(shard_of(node.0)?)?.read();
        let slot = shard.slots.get(*shard.places.get(&node)?)?;
        // Most uses find it set, and leave the cache line to other threads.
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(slot.object.clone())
    }

    /// Puts something there for a node, unless what is there already `does` as well. Answers what had
    /// to go for it, which may be `object` itself.
    pub(crate) fn put(&self, node: NodeId, object: T, does: impl FnOnce(&T) -> bool) -> Option<T> {
        let Some(shard) = shard_of(node.0).and_then(|shard| self.shards.get(shard)) else {
            return Some(object);
        };
        let mut shard = shard.write();
        let place = shard.places.get(&node).copied();
        if let Some(slot) = place.and_then(|place| shard.slots.get_mut(place)) {
            return match does(&slot.object) {
                true => Some(object),
                false => Some(std::mem::replace(&mut slot.object, object)),
            };
        }
        let over = (shard.slots.len() >= self.capacity)
            .then(|| shard.victim())
            .flatten()
            .and_then(|victim| shard.remove(victim));
        let place = shard.slots.len();
        shard.places.insert(node, place);
        shard.slots.push(Slot {
            node,
            used: AtomicBool::new(true),
            object,
        });
        over
    }

    /// Takes out what is there for a node.
    pub(crate) fn remove(&self, node: NodeId) -> Option<T> {
        let shard = self.shards.get(shard_of(node.0)?)?;
        // Most nodes that are forgotten have nothing.
        if !shard.read().places.contains_key(&node) {
            return None;
        }
        shard.write().remove(node)
    }

    /// Takes out everything.
    pub(crate) fn clear(&self) -> Vec<T> {
        let mut all = Vec::new();
        for shard in self.shards.iter() {
            let mut shard = shard.write();
            shard.places.clear();
            all.extend(shard.slots.drain(..).map(|slot| slot.object));
        }
        all
    }

    /// How many nodes have something.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.read().slots.len())
            .sum()
    }
}

impl<T> Ring<T> {
    /// The node whose turn it is to go.
    fn victim(&mut self) -> Option<NodeId> {
        let twice_round = self.slots.len().saturating_mul(2);
        for _ in 0..twice_round {
            self.hand = self.hand.checked_add(1).unwrap_or(0);
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = self.slots.get_mut(self.hand)?;
            if !std::mem::replace(slot.used.get_mut(), false) {
                return Some(slot.node);
            }
        }
        None
    }

    fn remove(&mut self, node: NodeId) -> Option<T> {
        let place = self.places.remove(&node)?;
        if place >= self.slots.len() {
            return None;
        }
        let slot = self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.node, place);
        }
        Some(slot.object)
    }
}

impl std::fmt::Debug for ImpliedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImpliedFile")
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

impl<T: Clone> std::fmt::Debug for ByNode<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByNode").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of the same shard.
    fn node(index: u64) -> NodeId {
        NodeId(1 + index * SHARDS as u64)
    }

    #[test]
    fn what_was_not_used_lately_goes_first() {
        let table = ByNode::new(SHARDS * 3);
        for index in 0..3 {
            assert_eq!(table.put(node(index), index, |_| false), None);
        }
        // All were used once; the hand takes that from them, and then the first it meets.
        let gone = table.put(node(3), 3, |_| false).unwrap();
        assert_eq!(table.get(node(gone)), None);
        let kept = (0..3).find(|index| *index != gone).unwrap();
        assert_eq!(table.get(node(kept)), Some(kept));
        table.put(node(4), 4, |_| false).unwrap();
        assert_eq!(table.get(node(kept)), Some(kept), "it was used");
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn what_does_as_well_stays() {
        let table = ByNode::new(1);
        table.put(node(0), "first", |_| false);
        assert_eq!(table.put(node(0), "second", |_| true), Some("second"));
        assert_eq!(table.put(node(0), "third", |_| false), Some("first"));
        assert_eq!(table.get(node(0)), Some("third"));
        assert_eq!(table.remove(node(0)), Some("third"));
        assert_eq!((table.remove(node(0)), table.len()), (None, 0));
    }

    #[test]
    fn what_is_taken_out_leaves_the_others_where_they_are_found() {
        let table = ByNode::new(SHARDS * 8);
        for index in 0..8 {
            table.put(node(index), index, |_| false);
        }
        for index in [0, 7, 3] {
            assert_eq!(table.remove(node(index)), Some(index));
        }
        let left: Vec<_> = (0..8).filter_map(|index| table.get(node(index))).collect();
        assert_eq!(left, [1, 2, 4, 5, 6]);
        assert_eq!(table.clear().len(), 5);
        assert_eq!(table.get(node(1)), None);
    }
}
