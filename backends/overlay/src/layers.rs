//! What all nodes of one overlay have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::RwLock;
use vfsd_backend::posix::LockBudget;
use vfsd_backend::{Backend, Capabilities, Errno, Node, Result, Ttl};

use crate::index::Index;
use crate::known_names::NamesMemory;
use crate::listing_budget::ListingBudget;
use crate::numbers::Numbers;
use crate::options::Options;
use crate::parts::Part;
use crate::table::NodeTable;
use crate::work::WorkDirectory;
use crate::xattr::Namespace;

/// A layer of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Layer {
    /// 0 is the upper; the lowers follow, the topmost first.
    from_above: u32,
    /// 0 is the upper; the lowers follow, the lowest first: it stays when one is put on top.
    from_below: u32,
}

impl Layer {
    pub(crate) const UPPER: Self = Self {
        from_above: 0,
        from_below: 0,
    };

    /// The lower layer with this index of so many.
    pub(crate) fn lower(index: usize, count: usize) -> Self {
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            from_above: narrow(index.saturating_add(1)),
            from_below: narrow(count.saturating_sub(index)),
        }
    }

    pub(crate) fn number_from_below(self) -> u32 {
        self.from_below
    }

    /// Whether it lies below another.
    pub(crate) fn is_below(self, other: Self) -> bool {
        self.from_above > other.from_above
    }
}

/// The writable layer.
pub(crate) struct UpperLayer {
    /// Kept for as long as its nodes.
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) root: Arc<dyn Node>,
    pub(crate) work: WorkDirectory,
    pub(crate) index: Index,
}

/// What all nodes of one overlay have in common.
pub(crate) struct Shared {
    /// Kept for as long as their nodes.
    pub(crate) lowers: Vec<Arc<dyn Backend>>,
    /// Their roots, the topmost first.
    roots: Vec<Part>,
    pub(crate) upper: Option<UpperLayer>,
    pub(crate) namespace: Namespace,
    /// Directories that are merged can be moved.
    pub(crate) redirects: bool,
    pub(crate) numbers: Numbers,
    pub(crate) capabilities: Capabilities,
    pub(crate) nodes: NodeTable,
    /// For the locks of all files together.
    pub(crate) lock_budget: Arc<LockBudget>,
    /// For the lists of all open directories together.
    pub(crate) listing_budget: Arc<ListingBudget>,
    /// For the names that are known of layers' directories.
    pub(crate) names_memory: NamesMemory,
    /// Held to read while names are looked up or listed, to write while they change.
    pub(crate) names: RwLock<()>,
    serial: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        options: &Options,
        roots: Vec<Part>,
        upper: Option<UpperLayer>,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            upper,
            redirects: options.redirects,
            lowers: options.lowers.clone(),
            roots,
            namespace: options.namespace,
            numbers: Numbers {
                one_file_system: options.one_file_system,
            },
            capabilities,
            nodes: NodeTable::default(),
            lock_budget: LockBudget::new(LockBudget::USUAL),
            listing_budget: ListingBudget::new(ListingBudget::USUAL),
            names_memory: NamesMemory::new(options.names_memory),
            names: RwLock::new(()),
            serial: AtomicU64::new(1),
        }
    }

    /// Whether there is no layer below.
    pub(crate) fn is_lowest(&self, layer: Layer) -> bool {
        let count = self.lowers.len();
        layer == Layer::lower(count.saturating_sub(1), count)
    }

    /// The writable layer.
    ///
    /// # Errors
    /// EROFS when there is none.
    pub(crate) fn upper(&self) -> Result<&UpperLayer> {
        Ok(self.upper.as_ref().ok_or(Errno::ROFS)?)
    }

    /// The roots of the lower layers, the topmost first.
    pub(crate) fn root_lowers(&self) -> &[Part] {
        &self.roots
    }

    /// Checks, in a debug build, that the names cannot change.
    pub(crate) fn check_names_are_locked(&self) {
        debug_assert!(self.names.try_write().is_err(), "the names can change");
    }

    /// A number that no other node of this overlay has.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// How long the guest may keep what it is told.
    pub(crate) fn ttl(&self) -> Ttl {
        match self.capabilities.contains(Capabilities::IMMUTABLE) {
            true => Ttl::Forever,
            false => Ttl::Policy,
        }
    }
}
