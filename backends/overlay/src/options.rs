//! What an overlay is made of.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use vfsd_backend::{Backend, Errno, Error as BackendError};

use crate::Namespace;

/// What an overlay is made of.
pub struct Options {
    /// The read-only trees, the topmost first: at least one. Nobody changes them while they are
    /// served.
    pub lowers: Vec<Arc<dyn Backend>>,
    /// Where the overlay keeps its own extended attributes, in all layers.
    pub namespace: Namespace,
    /// All layers lie on one file system, so that their inode numbers are different: they are shown
    /// as they are. Otherwise the number of the layer is in the upper 16 bits.
    pub one_file_system: bool,
}

impl Options {
    /// Read-only trees over one another, the topmost first.
    pub fn new(lowers: Vec<Arc<dyn Backend>>) -> Self {
        Self {
            lowers,
            namespace: Namespace::default(),
            one_file_system: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("lowers", &self.lowers.len())
            .field("namespace", &self.namespace)
            .field("one_file_system", &self.one_file_system)
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
}

/// A layer, as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The lower layer with this number, from 1 at the top.
    Lower(usize),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lower(number) => write!(f, "lower layer {number}"),
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
