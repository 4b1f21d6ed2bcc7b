//! The nodes that are alive, by the files of the layers that they stand for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vfsd_backend::NodeIdentity;

use crate::layers::Layer;
use crate::node::OverlayNode;

/// Below this a table keeps its memory.
const SMALL: usize = 256;

/// A file of a layer. Its node is alive as long as the overlay's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) layer: Layer,
    pub(crate) identity: NodeIdentity,
}

/// The nodes that are alive. It does not keep them so. A node that was copied up is found by its file in
/// the upper and by the one it was copied from.
#[derive(Default)]
pub(crate) struct NodeTable {
    nodes: Mutex<HashMap<Key, Weak<OverlayNode>>>,
}

impl NodeTable {
    /// The live node of a file.
    pub(crate) fn get(&self, key: Key) -> Option<Arc<OverlayNode>> {
        self.nodes.lock().get(&key).and_then(Weak::upgrade)
    }

    /// Enters a node under its keys, unless one is alive under the first: then that one is answered.
    pub(crate) fn enter(&self, keys: &[Key], node: Arc<OverlayNode>) -> Arc<OverlayNode> {
        let mut nodes = self.nodes.lock();
        let alive = keys
            .first()
            .and_then(|key| nodes.get(key))
            .and_then(Weak::upgrade);
        if let Some(alive) = alive {
            // The lock is released before `node` is dropped, which takes it.
            drop(nodes);
            return alive;
        }
        for key in keys {
            nodes.insert(*key, Arc::downgrade(&node));
        }
        drop(nodes);
        node
    }

    /// Enters a node under one more key.
    pub(crate) fn add(&self, key: Key, node: &Weak<OverlayNode>) {
        self.nodes.lock().insert(key, node.clone());
    }

    /// Forgets a node that is being dropped.
    pub(crate) fn forget(&self, keys: &[Key], node: *const OverlayNode) {
        let mut nodes = self.nodes.lock();
        for key in keys {
            if nodes
                .get(key)
                .is_some_and(|known| std::ptr::eq(known.as_ptr(), node))
            {
                nodes.remove(key);
            }
        }
        if nodes.capacity() > SMALL && nodes.len() < nodes.capacity() / 8 {
            let room = nodes.len().saturating_mul(2);
            nodes.shrink_to(room);
        }
    }
}
