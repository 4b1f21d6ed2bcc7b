//! Why an index could not be made, or not be read.

use std::io;

use crate::blob::BlobError;
use crate::tar::TarError;

/// Why a layer could not be indexed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The blob can't be read or decoded, or is too large.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// What it decodes to is no tar, or has too much.
    #[error(transparent)]
    Tar(#[from] TarError),
}

/// Why a stored index is not used. It can be made again from the layer.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("the index could not be read: {0}")]
    Io(#[from] io::Error),
    /// It is none, or one of another version.
    #[error("no layer index of version {}", super::VERSION)]
    Foreign,
    /// It was damaged.
    #[error("the index has a wrong checksum")]
    Checksum,
    /// The checksum is right, but what it says can't be.
    #[error("the index is invalid: {0}")]
    Invalid(&'static str),
}
