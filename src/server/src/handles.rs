//! What a guest has open.

use std::fmt;
use std::sync::Arc;

use vfsd_backend::{Directory, Errno, File};

use crate::nodes::NodeRecord;
use crate::slots::SlotTable;

/// An open file or directory, known to the guest by number.
pub(crate) struct HandleRecord {
    /// The number.
    pub(crate) id: u64,
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

/// Everything that the guest has open.
#[derive(Debug)]
pub(crate) struct HandleTable {
    slots: SlotTable<HandleRecord>,
}

impl HandleTable {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: SlotTable::new(limit),
        })
    }

    /// Gives an open file a number. It is closed again when the grant is dropped without
    /// [`HandleGrant::keep`].
    ///
    /// # Errors
    /// ENFILE when the guest may not have more open.
    pub(crate) fn grant(
        self: &Arc<Self>,
        node: Arc<NodeRecord>,
        open: Open,
    ) -> Result<HandleGrant, Errno> {
        let make = |id| HandleRecord { id, node, open };
        let id = self.slots.insert(make).ok_or(Errno::NFILE)?.id;
        Ok(HandleGrant {
            table: Arc::clone(self),
            id: Some(id),
        })
    }

    /// An open file of a node.
    ///
    /// # Errors
    /// EBADF for a number that is unknown, of another node, or a directory's.
    pub(crate) fn file(&self, node: u64, id: u64) -> Result<Arc<dyn File>, Errno> {
        match self.get(node, id)? {
            Open::File(file) => Ok(file),
            Open::Directory(_) => Err(Errno::BADF),
        }
    }

    /// An open directory.
    ///
    /// # Errors
    /// EBADF for a number that is unknown, of another node, or a file's.
    pub(crate) fn directory(&self, node: u64, id: u64) -> Result<Arc<dyn Directory>, Errno> {
        match self.get(node, id)? {
            Open::Directory(directory) => Ok(directory),
            Open::File(_) => Err(Errno::BADF),
        }
    }

    /// Whatever is open under a number.
    ///
    /// # Errors
    /// EBADF for a number that is unknown or of another node.
    pub(crate) fn get(&self, node: u64, id: u64) -> Result<Open, Errno> {
        let record = self.slots.get(id).ok_or(Errno::BADF)?;
        if record.node.id == node {
            Ok(record.open.clone())
        } else {
            Err(Errno::BADF)
        }
    }

    /// Takes a number out of use. The file is closed when no request uses it any more.
    ///
    /// # Errors
    /// EBADF for a number that is unknown, of another node, or of the other kind.
    pub(crate) fn release(
        &self,
        node: u64,
        id: u64,
        kind: HandleKind,
    ) -> Result<Arc<HandleRecord>, Errno> {
        let fits = |record: &HandleRecord| {
            record.node.id == node
                && match record.open {
                    Open::File(_) => kind == HandleKind::File,
                    Open::Directory(_) => kind == HandleKind::Directory,
                }
        };
        self.slots.remove_if(id, fits).ok_or(Errno::BADF)
    }

    /// How much the guest has open.
    pub(crate) fn live(&self) -> usize {
        self.slots.live()
    }
}

/// What kind of handle is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandleKind {
    File,
    Directory,
}

/// A handle that the guest is being told of.
#[derive(Debug)]
pub(crate) struct HandleGrant {
    table: Arc<HandleTable>,
    id: Option<u64>,
}

impl HandleGrant {
    /// The number.
    pub(crate) fn id(&self) -> u64 {
        self.id.unwrap_or(0)
    }

    /// The guest was told: from now on only it can release.
    pub(crate) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for HandleGrant {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            drop(self.table.slots.remove_if(id, |_| true));
        }
    }
}
