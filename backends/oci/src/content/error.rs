//! Why a layer's content is not there.

use std::io;
use std::sync::Arc;

use crate::blob::SpanError;

/// Why a layer's content is not there. It can be passed to all who wait for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContentError {
    /// A span could not be read, or is not what it was when the layer was indexed.
    #[error(transparent)]
    Span(Arc<SpanError>),
    /// The cache could not be read or written.
    #[error("the cache: {0}")]
    Cache(Arc<io::Error>),
    /// Nobody filled it, because whoever began to has failed badly.
    #[error("the fill was given up")]
    GivenUp,
    /// The files of the layer are together larger than a file can be.
    #[error("the layer's files are too large for a cache")]
    TooLarge,
    /// The entries of the index are not in the order of the tar.
    #[error("the index has entries that share data, or in disorder")]
    Disordered,
}

impl From<SpanError> for ContentError {
    fn from(error: SpanError) -> Self {
        Self::Span(Arc::new(error))
    }
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> Self {
        Self::Cache(Arc::new(error))
    }
}

impl From<ContentError> for vfsd_backend::Error {
    fn from(error: ContentError) -> Self {
        Self::Storage(Box::new(error))
    }
}
