//! What a guest has open.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use vfsd_backend::{Directory, Errno, File};
use vfsd_fuse::wire::{HandleId, NodeId};

use crate::nodes::NodeRecord;
use crate::shards::{ObjectQuota, Shards};
use crate::slots::{Numbered, Slots, shard_of};

/// An open file or directory, known to the guest by number.
pub(crate) struct HandleRecord {
    /// The number.
    pub(crate) id: HandleId,
    /// The file it belongs to; a handle is only valid together with it.
    pub(crate) node: Arc<NodeRecord>,
    /// What is open.
    pub(crate) open: Open,
}

/// What a handle stands for.
#[derive(Clone)]
pub(crate) enum Open {
    /// A file.
    File(Arc<dyn File>),
    /// A file that the guest runs: its kernel closes it when the last process ends that does.
    Program(Arc<dyn File>),
    /// A directory.
    Directory(Arc<dyn Directory>),
}

impl fmt::Debug for HandleRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleRecord")
            .field("id", &self.id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Numbered for HandleRecord {
    fn number(&self) -> u64 {
        self.id.0
    }
}

/// Everything that the guest has open. Handles of one file are in one part of the table.
#[derive(Debug)]
pub(crate) struct HandleTable {
    shards: Shards<Slots<HandleRecord>>,
    quota: Arc<ObjectQuota>,
}

impl HandleTable {
    pub(crate) fn new(quota: Arc<ObjectQuota>) -> Self {
        Self {
            shards: Shards::new(Slots::new),
            quota,
        }
    }

    /// Gives an open file a number. It is closed again when the grant is dropped without
    /// [`HandleGrant::keep`].
    ///
    /// # Errors
    /// ENFILE when the guest may not have more open.
    pub(crate) fn grant(
        &self,
        node: Arc<NodeRecord>,
        open: Open,
    ) -> Result<HandleGrant<'_>, Errno> {
        if !self.quota.take() {
            return Err(Errno::NFILE);
        }
        let inserted = shard_of(node.id.0).and_then(|part| {
            let mut shard = self.shards.get(part)?.write();
            let record = shard.insert(part, |number| HandleRecord {
                id: HandleId(number),
                node,
                open,
            })?;
            Some(record.id)
        });
        match inserted {
            Some(id) => Ok(HandleGrant {
                table: self,
                id: Some(id),
            }),
            None => {
                self.quota.give_back();
                Err(Errno::NFILE)
            }
        }
    }

    /// An open file of a node.
    ///
    /// # Errors
    /// EBADF for a number that is unknown, of another node, or a directory's.
    pub(crate) fn file(&self, node: NodeId, id: HandleId) -> Result<Arc<dyn File>, Errno> {
        match self.get(node, id)? {
            Open::File(file) | Open::Program(file) => Ok(file),
            Open::Directory(_) => Err(Errno::BADF),
        }
    }

    /// Whether the guest runs a file. Looks at all that is open in the file's part of the table.
    pub(crate) fn is_run(&self, node: NodeId) -> bool {
        let shard = shard_of(node.0).and_then(|part| self.shards.get(part));
        shard.is_some_and(|shard| {
            let runs = |record: &HandleRecord| {
                record.node.id == node && matches!(record.open, Open::Program(_))
            };
            shard.read().iter().any(runs)
        })
    }

    /// An open directory.
    ///
    /// # Errors
    /// EBADF for a number that is unknown, of another node, or a file's.
    pub(crate) fn directory(
        &self,
        node: NodeId,
        id: HandleId,
    ) -> Result<Arc<dyn Directory>, Errno> {
        match self.get(node, id)? {
            Open::Directory(directory) => Ok(directory),
            Open::File(_) | Open::Program(_) => Err(Errno::BADF),
        }
    }

    /// Whatever is open under a number.
    ///
    /// # Errors
    /// EBADF for a number that is unknown or of another node.
    pub(crate) fn get(&self, node: NodeId, id: HandleId) -> Result<Open, Errno> {
        let shard = self.shard(id).ok_or(Errno::BADF)?.read();
        shard
            .get(id.0)
            .filter(|record| record.node.id == node)
            .map(|record| record.open.clone())
            .ok_or(Errno::BADF)
    }

    /// Takes a number out of use. The file is closed when no request uses it any more.
    ///
    /// # Errors
    /// EBADF for a number that is unknown, of another node, or of the other kind.
    pub(crate) fn release(
        &self,
        node: NodeId,
        id: HandleId,
        kind: HandleKind,
    ) -> Result<HandleRecord, Errno> {
        let fits = |record: &HandleRecord| {
            record.node.id == node
                && match record.open {
                    Open::File(_) | Open::Program(_) => kind == HandleKind::File,
                    Open::Directory(_) => kind == HandleKind::Directory,
                }
        };
        self.remove_if(id, fits).ok_or(Errno::BADF)
    }

    fn remove_if(
        &self,
        id: HandleId,
        condition: impl FnOnce(&HandleRecord) -> bool,
    ) -> Option<HandleRecord> {
        let mut shard = self.shard(id)?.write();
        let removed = shard
            .get(id.0)
            .is_some_and(condition)
            .then(|| shard.remove(id.0))
            .flatten();
        drop(shard);
        removed.inspect(|_| self.quota.give_back())
    }

    fn shard(&self, id: HandleId) -> Option<&RwLock<Slots<HandleRecord>>> {
        self.shards.get(shard_of(id.0)?)
    }

    /// How much the guest has open, and had in epochs that are still held.
    pub(crate) fn live(&self) -> usize {
        self.quota.live()
    }
}

impl Drop for HandleTable {
    fn drop(&mut self) {
        let count = self.shards.iter().map(|shard| shard.read().len());
        self.quota.give_back_all(count.sum());
    }
}

/// What kind of handle is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandleKind {
    File,
    Directory,
}

/// A handle on its way to the guest.
#[derive(Debug)]
pub(crate) struct HandleGrant<'a> {
    table: &'a HandleTable,
    id: Option<HandleId>,
}

impl HandleGrant<'_> {
    /// The number.
    pub(crate) fn id(&self) -> HandleId {
        self.id.unwrap_or(HandleId::NONE)
    }

    /// The reply was sent: from now on only the guest can release.
    pub(crate) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for HandleGrant<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            drop(self.table.remove_if(id, |_| true));
        }
    }
}
