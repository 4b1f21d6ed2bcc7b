//! What lasts from one INIT to the next: tables, waits, and what was agreed.

use std::sync::Arc;

use tokio::sync::Notify;
use vfsd_backend::Errno;
use vfsd_fuse::{InitFlags, Layout};

use crate::admission::Admission;
use crate::exports::Exports;
use crate::handles::HandleTable;
use crate::implied::Implied;
use crate::nodes::NodeTable;
use crate::options::Budget;
use crate::shards::ObjectQuota;
use crate::waits::Waits;

/// The state of a mounted session. Requests hold the one they began with: those of an epoch that
/// has ended finish on its tables and touch no newer ones.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) layout: Layout,
    pub(crate) nodes: NodeTable,
    pub(crate) handles: HandleTable,
    pub(crate) implied: Implied,
    pub(crate) waits: Arc<Waits>,
    pub(crate) admission: Arc<Admission>,
}

/// What all epochs of a session hold together.
#[derive(Debug)]
pub(crate) struct Holdings {
    nodes: Arc<ObjectQuota>,
    handles: Arc<ObjectQuota>,
    pub(crate) admission: Arc<Admission>,
    /// Notified when much of what the guest knew is forgotten.
    pub(crate) shrunk: Arc<Notify>,
}

impl Holdings {
    /// Nothing yet, and no more than the budget allows.
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            nodes: Arc::new(ObjectQuota::new(budget.nodes)),
            handles: Arc::new(ObjectQuota::new(budget.handles)),
            admission: Admission::new(budget.deferred),
            shrunk: Arc::default(),
        }
    }
}

impl Epoch {
    /// A new epoch, in which only the root is known, and in which so many requests may wait for a
    /// lock: those of an epoch that has ended do not go on waiting.
    ///
    /// # Errors
    /// As [`NodeTable::new`].
    pub(crate) fn new(
        exports: &Exports,
        holdings: &Holdings,
        lock_waits: usize,
        layout: Layout,
    ) -> Result<Self, Errno> {
        let (export, root) = exports.root();
        let nodes = Arc::clone(&holdings.nodes);
        let shrunk = Arc::clone(&holdings.shrunk);
        Ok(Self {
            layout,
            nodes: NodeTable::new(export, root, nodes, shrunk)?,
            handles: HandleTable::new(Arc::clone(&holdings.handles)),
            implied: Implied::new(holdings.handles.limit()),
            waits: Waits::new(lock_waits, Arc::clone(&holdings.admission)),
            admission: Arc::clone(&holdings.admission),
        })
    }

    /// Whether a flag was agreed.
    pub(crate) fn agreed(&self, flag: InitFlags) -> bool {
        self.layout.flags.contains(flag)
    }
}
