//! The index of a layer: what its tar says, and how any byte of it is reached.
//!
//! It is made once, in one pass over the layer ([`IndexBuilder`]), and kept in a file of its own,
//! which never changes and is the same for the same layer and options ([`LayerIndex::store`]). A layer that has a
//! [table of its contents](crate::toc) gets one without being read.

mod build;
mod error;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

pub(crate) use build::PIECE;
pub use build::{IndexBuilder, IndexOptions, IndexProgress, build_index};
pub use error::{IndexError, LoadError};

use crate::LayerEntry;
use crate::blob::{BlobIndex, Sha256Digest};

/// What is known of a layer after one pass over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    /// The blob and its spans.
    pub blob: Arc<BlobIndex>,
    /// The entries of the tar, in its order. No extent is beyond the decoded blob.
    pub entries: Vec<LayerEntry>,
    /// What of the tar was skipped and why, for whoever looks at the image.
    pub notes: Vec<String>,
    /// The artifact that it is from, where another host has made it: then nothing of it has been compared with the
    /// layer. None where this host did.
    pub borrowed: Option<Sha256Digest>,
}

/// The first bytes of a stored index.
const MAGIC: [u8; 8] = *b"vfsdlayr";

/// The version of the format that is written. Others are not read: an index can be made again.
const VERSION: u32 = 2;

/// How much more the number of the compression is for an index from a table of contents.
const OF_CONTENTS: u8 = 3;

/// How much more it is for one that another host has made.
const BORROWED: u8 = 6;

/// Bytes of the SHA-256 at the end.
const FOOTER: usize = 32;
