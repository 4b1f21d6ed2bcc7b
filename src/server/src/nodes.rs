//! The files that a guest knows, and how often it was told of each.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use vfsd_backend::{Errno, Node, NodeIdentity};

use crate::export::{Export, ExportId};
use crate::slots::SlotTable;

/// The map from files to numbers is cut into this many parts with a lock each.
const SHARDS: usize = 32;

/// Below this many files a part of the map keeps its memory.
const SMALL: usize = 256;

/// A file that the guest knows by number.
pub(crate) struct NodeRecord {
    /// The number.
    pub(crate) id: u64,
    /// The export it belongs to.
    pub(crate) export: Arc<Export>,
    /// The file.
    pub(crate) node: Arc<dyn Node>,
    identity: Identity,
    /// How often the guest was told of the file and has not forgotten it. Changed under the lock of
    /// the identity's shard.
    lookups: AtomicU64,
}

impl fmt::Debug for NodeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeRecord")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What makes two nodes of a session the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    export: ExportId,
    node: NodeIdentity,
}

/// All files that the guest knows. The root is always among them, with the number 1.
#[derive(Debug)]
pub(crate) struct NodeTable {
    slots: SlotTable<NodeRecord>,
    known: [Mutex<HashMap<Identity, u64>>; SHARDS],
    hasher: RandomState,
    /// Told when much of what the guest knew is forgotten.
    shrunk: Arc<Notify>,
}

impl NodeTable {
    /// A table with the root in it.
    ///
    /// # Errors
    /// ENOMEM when not even the root is allowed.
    pub(crate) fn new(
        export: Arc<Export>,
        root: Arc<dyn Node>,
        limit: usize,
        shrunk: Arc<Notify>,
    ) -> Result<Arc<Self>, Errno> {
        let table = Arc::new(Self {
            slots: SlotTable::new(limit),
            known: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            hasher: RandomState::new(),
            shrunk,
        });
        // Granted once and for all: the count never reaches 0.
        table.grant(export, root)?.keep();
        Ok(table)
    }

    /// The file with this number.
    ///
    /// # Errors
    /// ESTALE when there is none, so that the guest looks the name up again.
    pub(crate) fn get(&self, id: u64) -> Result<Arc<NodeRecord>, Errno> {
        self.slots.get(id).ok_or(Errno::STALE)
    }

    /// Counts one more time that the guest is told of a file. The grant is taken back when it is
    /// dropped without [`Grant::keep`].
    ///
    /// # Errors
    /// ENOMEM when the guest may not know more files.
    pub(crate) fn grant(
        self: &Arc<Self>,
        export: Arc<Export>,
        node: Arc<dyn Node>,
    ) -> Result<Grant, Errno> {
        let identity = Identity {
            export: export.id,
            node: node.identity(),
        };
        let mut known = self.shard(&identity).ok_or(Errno::NOMEM)?.lock();
        let found = known.get(&identity).and_then(|id| self.slots.get(*id));
        let record = match found {
            Some(record) => {
                record.lookups.fetch_add(1, Ordering::Relaxed);
                record
            }
            None => {
                let lookups = AtomicU64::new(1);
                let make = |id| NodeRecord {
                    id,
                    export,
                    node,
                    identity,
                    lookups,
                };
                let record = self.slots.insert(make).ok_or(Errno::NOMEM)?;
                known.insert(identity, record.id);
                record
            }
        };
        drop(known);
        Ok(Grant {
            table: Arc::clone(self),
            record: Some(record),
        })
    }

    /// The guest forgets a file `count` times. Forgetting more often than it was told, or what it
    /// never knew, or the root, changes nothing more.
    pub(crate) fn forget(&self, id: u64, count: u64) {
        if id == vfsd_fuse::ROOT_ID {
            return;
        }
        let Some(record) = self.slots.get(id) else {
            return;
        };
        let Some(shard) = self.shard(&record.identity) else {
            return;
        };
        let mut known = shard.lock();
        let left = record.lookups.load(Ordering::Relaxed).saturating_sub(count);
        record.lookups.store(left, Ordering::Relaxed);
        if left == 0 && self.slots.remove_if(id, |_| true).is_some() {
            known.remove(&record.identity);
            if known.capacity() > SMALL && known.len() < known.capacity() / 8 {
                let room = known.len().saturating_mul(2);
                known.shrink_to(room);
                self.shrunk.notify_one();
            }
        }
        // The node itself, with its descriptor, is dropped after the lock.
        drop(known);
    }

    /// How many files the guest knows.
    pub(crate) fn live(&self) -> usize {
        self.slots.live()
    }

    fn shard(&self, identity: &Identity) -> Option<&Mutex<HashMap<Identity, u64>>> {
        let hash = usize::try_from(self.hasher.hash_one(identity) >> 32).ok()?;
        self.known.get(hash.checked_rem(SHARDS)?)
    }
}

impl Drop for NodeTable {
    fn drop(&mut self) {
        self.shrunk.notify_one();
    }
}

/// A file that the guest is being told of.
#[derive(Debug)]
pub(crate) struct Grant {
    table: Arc<NodeTable>,
    record: Option<Arc<NodeRecord>>,
}

impl Grant {
    /// The file's number.
    pub(crate) fn id(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.id)
    }

    /// The guest was told: from now on only it can forget.
    pub(crate) fn keep(mut self) {
        self.record = None;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.table.forget(record.id, 1);
        }
    }
}
