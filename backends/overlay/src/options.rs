//! What an overlay is made of.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use vfsd_backend::{Backend, Errno, Error as BackendError, Node};

use crate::Namespace;

/// What an overlay is made of.
pub struct Options {
    /// The read-only trees, the topmost first: at least one. Nobody changes them while they are
    /// served.
    pub lowers: Vec<Arc<dyn Backend>>,
    /// Where changes go; without it the overlay is read-only.
    pub upper: Option<Upper>,
    /// Which trees the lower layers are, in words: the first of these is kept in an upper that has none yet; one that is
    /// not among them is refused. None: neither.
    pub lowers_names: Vec<String>,
    /// Let directories that a lower layer has a part in be moved. With [`Namespace::User`] the kernel
    /// does not follow what is written for it; without, such a rename is EXDEV, and programs copy.
    pub redirects: bool,
    /// Where the overlay keeps its own extended attributes, in all layers.
    pub namespace: Namespace,
    /// All layers lie on one file system, so that their inode numbers are different: they are shown
    /// as they are. Otherwise the number of the layer is in the upper 16 bits.
    pub one_file_system: bool,
    /// Bytes of memory for the names that layers' directories are known to have, so that they are not asked for
    /// others. What has no room is asked for each time.
    pub names_memory: usize,
}

/// The writable layer: two directories of one backend, neither in the other, on one file system.
/// Nobody else changes them, which is the caller's to see to: a second overlay of the same directories would
/// spoil them.
pub struct Upper {
    /// The backend that both are of.
    pub backend: Arc<dyn Backend>,
    /// What is changed, in the kernel's format.
    pub root: Arc<dyn Node>,
    /// Where the overlay makes files before they get their names.
    pub work: Arc<dyn Node>,
}

impl fmt::Debug for Upper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upper")
            .field("root", &self.root.identity())
            .field("work", &self.work.identity())
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Enough for two million names.
    const NAMES_MEMORY: usize = 32 << 20;

    /// Read-only trees over one another, the topmost first.
    pub fn new(lowers: Vec<Arc<dyn Backend>>) -> Self {
        Self {
            lowers,
            upper: None,
            lowers_names: Vec::new(),
            redirects: true,
            namespace: Namespace::default(),
            one_file_system: false,
            names_memory: Self::NAMES_MEMORY,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("lowers", &self.lowers.len())
            .field("upper", &self.upper.is_some())
            .field("lowers_names", &self.lowers_names)
            .field("redirects", &self.redirects)
            .field("namespace", &self.namespace)
            .field("one_file_system", &self.one_file_system)
            .field("names_memory", &self.names_memory)
            .finish_non_exhaustive()
    }
}

/// Why layers cannot be stacked. Each is told in one line that says what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is nothing below.
    #[error("an overlay needs a lower layer: name at least one")]
    NoLower,
    /// There are too many layers.
    #[error("an overlay can have 65,000 lower layers, not {0}: merge some of them")]
    TooManyLowers(usize),
    /// A layer's root is a file.
    #[error("{0} of the overlay is no directory: give the directory that holds it")]
    NotADirectory(Which),
    /// A layer cannot be read.
    #[error("{which} of the overlay cannot be read: {}", reason(.error))]
    Unreadable {
        /// Which.
        which: Which,
        /// Why not.
        error: BackendError,
    },
    /// The upper and its work directory are on different file systems.
    #[error("the work directory is not on the upper's file system: choose one beside the upper")]
    WorkElsewhere,
    /// The upper cannot carry the overlay's extended attributes.
    #[error(
        "the upper cannot carry {prefix}* attributes ({}): {}",
        reason(.error),
        match .prefix.starts_with("trusted") {
            true => "keep CAP_SYS_ADMIN, or keep them in user.overlay.*",
            false => "choose a file system with user attributes",
        }
    )]
    NoXattrs {
        /// What their names begin with.
        prefix: String,
        /// Why not.
        error: BackendError,
    },
    /// The upper's file system lacks something that an overlay needs.
    #[error("the upper's file system lacks {what} ({}): choose ext4, XFS, btrfs or tmpfs", reason(.error))]
    Lacks {
        /// What it lacks.
        what: &'static str,
        /// What was answered.
        error: BackendError,
    },
    /// The kernel has written the upper without making anything durable (`volatile`).
    #[error(
        "the kernel's overlay was mounted on the upper with {feature:?}, so that a crash may have damaged it: if the host has not crashed since, remove work/incompat in the work directory"
    )]
    Incompatible {
        /// The mount option.
        feature: String,
    },
    /// The upper has the changes to other trees.
    #[error(
        "the upper has the changes to {found}, not to {wanted}: choose an empty upper, or the lower that it belongs to; if that was only moved or renamed, remove the upper's attribute {attribute}"
    )]
    OtherLowers {
        /// Those that it belongs to.
        found: String,
        /// Those that were given.
        wanted: String,
        /// What says so, of the upper's root.
        attribute: String,
    },
    /// Copies of files with several names are in another work directory: without them each name would have a file of its own.
    #[error(
        "the upper was used with another work directory, which has files of several names: name it as the work directory; if it is lost, remove the upper's attribute {attribute}, and such files come apart"
    )]
    OtherWork {
        /// What says so, of the upper's root.
        attribute: String,
    },
}

/// A layer, as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The lower layer with this number, from 1 at the top.
    Lower(usize),
    /// The upper.
    Upper,
    /// The work directory.
    Work,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lower(number) => write!(f, "lower layer {number}"),
            Self::Upper => f.write_str("the upper"),
            Self::Work => f.write_str("the work directory"),
        }
    }
}

/// What an operator understands of an error.
pub(crate) fn reason(error: &BackendError) -> String {
    match error {
        BackendError::Errno(Errno::OPNOTSUPP) => BackendError::NotSupported.to_string(),
        BackendError::Storage(source) => source.to_string(),
        other => other.to_string(),
    }
}
