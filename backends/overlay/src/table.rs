//! The nodes that are alive, by the files of the layers that they stand for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vfsd_backend::NodeIdentity;

use crate::layers::Layer;
use crate::node::OverlayNode;

/// Below this a table keeps its memory.
const SMALL: usize = 256;

/// A file of a layer. Its node is alive as long as the overlay's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) layer: Layer,
    pub(crate) identity: NodeIdentity,
}

/// A file system of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Device {
    layer: Layer,
    device: u64,
}

impl Key {
    fn device(self) -> Device {
        Device {
            layer: self.layer,
            device: self.identity.device,
        }
    }
}

/// Those of one node: by its file in the upper, and by its topmost lower one.
pub(crate) type Keys = [Option<Key>; 2];

/// By inode number. One whose number was given to a new file is found no more.
type Numbered = HashMap<u64, Known, Near>;

/// Few, as a rule one in each layer.
type Devices = HashMap<Device, Numbered, BuildHasherDefault<DeviceHasher>>;

struct Known {
    node: Weak<OverlayNode>,
    generation: u64,
}

/// The nodes that are alive. It does not keep them so. A node that was copied up is found by its file in
/// the upper and by the one it was copied from.
#[derive(Default)]
pub(crate) struct NodeTable {
    nodes: Mutex<Devices>,
}

impl NodeTable {
    /// The live node of a file.
    pub(crate) fn get(&self, key: Key) -> Option<Arc<OverlayNode>> {
        alive(&self.nodes.lock(), key)
    }

    /// Enters a node under its keys, unless one is alive under the first: then that one is answered.
    pub(crate) fn enter(&self, keys: Keys, node: Arc<OverlayNode>) -> Arc<OverlayNode> {
        let mut nodes = self.nodes.lock();
        let mut keys = keys.into_iter().flatten();
        let alive = keys
            .next()
            .and_then(|key| alive_or_entered(&mut nodes, key, &node));
        if alive.is_none() {
            for key in keys {
                insert(&mut nodes, key, Arc::downgrade(&node));
            }
        }
        // The lock is released before `node` is dropped, which takes it.
        drop(nodes);
        alive.unwrap_or(node)
    }

    /// Enters a node under one more key.
    pub(crate) fn add(&self, key: Key, node: &Weak<OverlayNode>) {
        insert(&mut self.nodes.lock(), key, node.clone());
    }

    /// Forgets a node that is being dropped.
    pub(crate) fn forget(&self, keys: Keys, node: *const OverlayNode) {
        let mut nodes = self.nodes.lock();
        for key in keys.into_iter().flatten() {
            let Some(numbered) = nodes.get_mut(&key.device()) else {
                continue;
            };
            let number = key.identity.inode;
            if numbered
                .get(&number)
                .is_some_and(|known| std::ptr::eq(known.node.as_ptr(), node))
            {
                numbered.remove(&number);
            }
            if numbered.is_empty() {
                nodes.remove(&key.device());
            } else if numbered.capacity() > SMALL && numbered.len() < numbered.capacity() / 8 {
                let room = numbered.len().saturating_mul(2);
                numbered.shrink_to(room);
            }
        }
    }
}

impl Known {
    /// The node, if it is that of this key and alive.
    fn alive(&self, key: Key) -> Option<Arc<OverlayNode>> {
        let same = self.generation == key.identity.generation;
        same.then(|| self.node.upgrade()).flatten()
    }
}

fn alive(nodes: &Devices, key: Key) -> Option<Arc<OverlayNode>> {
    let known = nodes.get(&key.device())?.get(&key.identity.inode)?;
    known.alive(key)
}

/// The node that is alive under a key; none if this one was entered there.
fn alive_or_entered(
    nodes: &mut Devices,
    key: Key,
    node: &Arc<OverlayNode>,
) -> Option<Arc<OverlayNode>> {
    let known = || Known {
        node: Arc::downgrade(node),
        generation: key.identity.generation,
    };
    match nodes
        .entry(key.device())
        .or_default()
        .entry(key.identity.inode)
    {
        Entry::Occupied(mut occupied) => {
            let alive = occupied.get().alive(key);
            if alive.is_none() {
                occupied.insert(known());
            }
            alive
        }
        Entry::Vacant(vacant) => {
            vacant.insert(known());
            None
        }
    }
}

fn insert(nodes: &mut Devices, key: Key, node: Weak<OverlayNode>) {
    let known = Known {
        node,
        generation: key.identity.generation,
    };
    let numbered = nodes.entry(key.device()).or_default();
    numbered.insert(key.identity.inode, known);
}

/// For file systems, which are the host's: nobody makes many whose hashes are the same.
#[derive(Default)]
struct DeviceHasher(u64);

impl Hasher for DeviceHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // An odd constant far from a power of two, as of SplitMix64.
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Inode numbers in a row, as files of one directory often have them, whose places in a table are neighbours: they come
/// into the processor's cache together.
const IN_A_ROW: u64 = 16;

/// Keyed at random by row: which files there are is for the guest to choose.
#[derive(Default)]
struct Near(RandomState);

struct NearHasher {
    row: DefaultHasher,
    place: u64,
}

impl BuildHasher for Near {
    type Hasher = NearHasher;

    fn build_hasher(&self) -> NearHasher {
        NearHasher {
            row: self.0.build_hasher(),
            place: 0,
        }
    }
}

impl Hasher for NearHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.row.write(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.row.write_u64(number / IN_A_ROW);
        self.place = number % IN_A_ROW;
    }

    /// A table takes its lowest bits for the place, and its highest to tell apart what is there.
    fn finish(&self) -> u64 {
        let row = self.row.finish() & !(IN_A_ROW - 1);
        (row | self.place) ^ self.place.rotate_right(6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_neighbours_and_rows_are_not() {
        let near = Near::default();
        let hashes: Vec<u64> = (0..64 * IN_A_ROW)
            .map(|number| near.hash_one(number))
            .collect();
        let mut rows = std::collections::HashSet::new();
        for row in hashes.chunks(16) {
            let places: Vec<u64> = row.iter().map(|hash| hash % IN_A_ROW).collect();
            assert_eq!(places, (0..IN_A_ROW).collect::<Vec<_>>());
            let mut tags: Vec<u64> = row.iter().map(|hash| hash >> 57).collect();
            tags.sort_unstable();
            tags.dedup();
            assert_eq!(tags.len(), row.len(), "each is told apart");
            let middle = |hash: &u64| hash << 7 >> 11;
            assert!(row.iter().all(|hash| middle(hash) == middle(&row[0])));
            rows.insert(middle(&row[0]));
        }
        assert_eq!(rows.len(), 64);
    }
}
