//! The files that a guest knows, and how often each was looked up.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use tokio::sync::Notify;
use vfsd_backend::{Errno, Node, NodeIdentity};
use vfsd_fuse::wire::NodeId;
use zerocopy::IntoBytes;

use crate::export::ExportId;
use crate::shards::{ObjectQuota, Shards};
use crate::slots::{Numbered, SHARDS, Slots, shard_of};

/// Below this many files a part of the map keeps its memory.
const SMALL: usize = 256;

/// A file that the guest knows by number.
pub(crate) struct NodeRecord {
    /// The number.
    pub(crate) id: NodeId,
    /// The file.
    pub(crate) node: Arc<dyn Node>,
    /// How often a reply had the file that the guest has not forgotten since. Taken from only under the
    /// write lock of the record's shard.
    lookups: AtomicU64,
    /// The export it belongs to.
    pub(crate) export: ExportId,
    tag: Tag,
}

impl Numbered for Arc<NodeRecord> {
    fn number(&self) -> u64 {
        self.id.0
    }
}

impl NodeRecord {
    fn is(&self, identity: &Identity) -> bool {
        self.export == identity.export && self.node.identity() == identity.node
    }
}

impl fmt::Debug for NodeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeRecord")
            .field("id", &self.id)
            .field("export", &self.export)
            .finish_non_exhaustive()
    }
}

/// What makes two nodes of a session the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    export: ExportId,
    node: NodeIdentity,
}

/// The hash of an identity. It decides about the shard, too: all that concerns a file is under one
/// lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag(u32);

impl Tag {
    /// For the map of a shard: without what all tags of the shard have in common.
    fn hash(self) -> u64 {
        let Self(tag) = self;
        (u64::from(tag) << 32) | u64::from(tag >> SHARDS.trailing_zeros())
    }
}

/// An entry of the map from files to numbers: 8 bytes, since a million of them are usual.
#[derive(Debug, Clone, Copy)]
struct Known {
    tag: Tag,
    /// The lower half of the number.
    slot: u32,
}

/// A part of the table.
#[derive(Debug)]
struct Shard {
    slots: Slots<Arc<NodeRecord>>,
    known: HashTable<Known>,
}

impl Shard {
    fn find(&self, tag: Tag, identity: &Identity) -> Option<&Arc<NodeRecord>> {
        let at = |known: &Known| self.slots.at(known.slot);
        let known = self.known.find(tag.hash(), |known| {
            known.tag == tag && at(known).is_some_and(|record| record.is(identity))
        });
        known.and_then(at)
    }
}

/// All files that the guest knows. The root is always among them, with the number 1.
#[derive(Debug)]
pub(crate) struct NodeTable {
    shards: Shards<Shard>,
    quota: Arc<ObjectQuota>,
    hasher: RandomState,
    /// Added to each hash, so that the root gets into the shard of the number 1.
    turn: u32,
    /// Notified when much of what the guest knew is forgotten.
    shrunk: Arc<Notify>,
}

impl NodeTable {
    /// A table with the root in it, which is counted and always allowed: a guest that has rebooted
    /// can mount whatever is left of the one before.
    ///
    /// # Errors
    /// ENOMEM when the root gets no number, which cannot be.
    pub(crate) fn new(
        export: ExportId,
        root: Arc<dyn Node>,
        quota: Arc<ObjectQuota>,
        shrunk: Arc<Notify>,
    ) -> Result<Self, Errno> {
        let mut table = Self {
            shards: Shards::new(|| Shard {
                slots: Slots::new(),
                known: HashTable::new(),
            }),
            quota,
            hasher: RandomState::new(),
            turn: 0,
            shrunk,
        };
        let Tag(root_tag) = table.tag(&Identity {
            export,
            node: root.identity(),
        });
        table.turn = root_tag.wrapping_neg();
        // Granted once and for all: the count never reaches 0.
        let root = table.insert(export, root, |quota| {
            quota.exceed();
            true
        });
        root?.keep();
        Ok(table)
    }

    /// The file with this number.
    ///
    /// # Errors
    /// ESTALE when there is none, so that the guest looks the name up again.
    pub(crate) fn get(&self, id: NodeId) -> Result<Arc<NodeRecord>, Errno> {
        shard_of(id.0)
            .and_then(|shard| self.shards.get(shard))
            .and_then(|shard| shard.read().slots.get(id.0).cloned())
            .ok_or(Errno::STALE)
    }

    /// Counts one more reply that has a file. The grant is taken back when it is
    /// dropped without [`Grant::keep`].
    ///
    /// # Errors
    /// ENOMEM when the guest may not know more files.
    pub(crate) fn grant(&self, export: ExportId, node: Arc<dyn Node>) -> Result<Grant<'_>, Errno> {
        self.insert(export, node, ObjectQuota::take)
    }

    fn insert(
        &self,
        export: ExportId,
        node: Arc<dyn Node>,
        admit: impl FnOnce(&ObjectQuota) -> bool,
    ) -> Result<Grant<'_>, Errno> {
        let identity = Identity {
            export,
            node: node.identity(),
        };
        let tag = self.tag(&identity);
        let number = usize::try_from(tag.0)
            .ok()
            .and_then(|tag| tag.checked_rem(SHARDS))
            .ok_or(Errno::NOMEM)?;
        let shard = self.shards.get(number).ok_or(Errno::NOMEM)?;
        let again = |record: &Arc<NodeRecord>| {
            record.lookups.fetch_add(1, Ordering::Relaxed);
            Arc::clone(record)
        };
        // Most lookups are of what is known.
        let known = shard.read().find(tag, &identity).map(again);
        if let Some(record) = known {
            return Ok(Grant::new(self, record));
        }
        if !admit(&self.quota) {
            // It may have become known meanwhile, which is no reason to refuse.
            let known = shard.read().find(tag, &identity).map(again);
            return known
                .map(|record| Grant::new(self, record))
                .ok_or(Errno::NOMEM);
        }
        let mut shard = shard.write();
        let meanwhile = shard.find(tag, &identity).map(again);
        if let Some(record) = meanwhile {
            drop(shard);
            self.quota.give_back();
            return Ok(Grant::new(self, record));
        }
        let make = |number| {
            Arc::new(NodeRecord {
                id: NodeId(number),
                node,
                lookups: AtomicU64::new(1),
                export,
                tag,
            })
        };
        let Some(record) = shard.slots.insert(number, make).map(Arc::clone) else {
            drop(shard);
            self.quota.give_back();
            return Err(Errno::NOMEM);
        };
        let slot = slot(record.id);
        shard
            .known
            .insert_unique(tag.hash(), Known { tag, slot }, |known| known.tag.hash());
        drop(shard);
        Ok(Grant::new(self, record))
    }

    /// The guest forgets a file `count` times. Forgetting more often than it was looked up, or what it
    /// never knew, or the root, changes nothing more. True when the guest knows it no longer.
    pub(crate) fn forget(&self, id: NodeId, count: u64) -> bool {
        if id == vfsd_fuse::ROOT_ID {
            return false;
        }
        let Some(shard) = shard_of(id.0).and_then(|shard| self.shards.get(shard)) else {
            return false;
        };
        let mut shard = shard.write();
        let Some(record) = shard.slots.get(id.0) else {
            return false;
        };
        let left = record.lookups.load(Ordering::Relaxed).saturating_sub(count);
        record.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return false;
        }
        let tag = record.tag;
        let slot = slot(id);
        if let Ok(known) = shard
            .known
            .find_entry(tag.hash(), |known| known.slot == slot)
        {
            known.remove();
        }
        let forgotten = shard.slots.remove(id.0);
        let known = &mut shard.known;
        if known.capacity() > SMALL && known.len() < known.capacity() / 8 {
            let room = known.len().saturating_mul(2);
            known.shrink_to(room, |known| known.tag.hash());
            self.shrunk.notify_one();
        }
        drop(shard);
        self.quota.give_back();
        // The node itself, with its descriptor, is dropped after the lock.
        drop(forgotten);
        true
    }

    /// How many files the guest knows, and knew in epochs that are still held.
    pub(crate) fn live(&self) -> usize {
        self.quota.live()
    }

    fn tag(&self, identity: &Identity) -> Tag {
        let NodeIdentity {
            device,
            inode,
            generation,
        } = identity.node;
        let mut hasher = self.hasher.build_hasher();
        // In one piece: less than half the work.
        hasher.write([u64::from(identity.export.0), device, inode, generation].as_bytes());
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        Tag(u32::from_le_bytes([a, b, c, d]).wrapping_add(self.turn))
    }
}

impl Drop for NodeTable {
    fn drop(&mut self) {
        let count = self.shards.iter().map(|shard| shard.read().slots.len());
        self.quota.give_back_all(count.sum());
        self.shrunk.notify_one();
    }
}

/// The lower half of a number.
fn slot(id: NodeId) -> u32 {
    let [a, b, c, d, ..] = id.0.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A file on its way to the guest.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    table: &'a NodeTable,
    record: Arc<NodeRecord>,
    kept: bool,
}

impl<'a> Grant<'a> {
    fn new(table: &'a NodeTable, record: Arc<NodeRecord>) -> Self {
        Self {
            table,
            record,
            kept: false,
        }
    }

    /// The file.
    pub(crate) fn record(&self) -> &Arc<NodeRecord> {
        &self.record
    }

    /// The file's number.
    pub(crate) fn id(&self) -> NodeId {
        self.record.id
    }

    /// The reply was sent: from now on only the guest can forget.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.table.forget(self.record.id, 1);
        }
    }
}
