//! What lasts from one INIT to the next: tables, waits, and what was agreed.

use std::sync::Arc;

use tokio::sync::Notify;
use vfsd_backend::Errno;
use vfsd_fuse::{InitFlags, Layout};

use crate::exports::Exports;
use crate::handles::HandleTable;
use crate::nodes::NodeTable;
use crate::options::Budget;
use crate::waits::Waits;

/// The state of a mounted session. Requests hold the one they began with: those of an epoch that
/// has ended finish on its tables and touch no newer ones.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) layout: Layout,
    pub(crate) nodes: NodeTable,
    pub(crate) handles: HandleTable,
    pub(crate) waits: Arc<Waits>,
}

impl Epoch {
    /// A new epoch, in which only the root is known.
    ///
    /// # Errors
    /// ENOMEM when the budget does not even allow that.
    pub(crate) fn new(
        exports: &Exports,
        budget: Budget,
        layout: Layout,
        shrunk: Arc<Notify>,
    ) -> Result<Self, Errno> {
        let (export, root) = exports.root();
        Ok(Self {
            layout,
            nodes: NodeTable::new(export, root, budget.nodes, shrunk)?,
            handles: HandleTable::new(budget.handles),
            waits: Waits::new(budget.lock_waits),
        })
    }

    /// Whether a flag was agreed.
    pub(crate) fn agreed(&self, flag: InitFlags) -> bool {
        self.layout.flags.contains(flag)
    }
}
