//! Why a layer could not be indexed, or a span of it not be read.

use std::io;

use super::Sha256Digest;

/// Why a blob could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It could not be read.
    #[error("the layer could not be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what its first bytes say it is.
    #[error("the layer is malformed: {0}")]
    Malformed(&'static str),
    /// It is larger than the options allow.
    #[error("the layer has more than {limit} {what}")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// A decoder could not get memory.
    #[error("out of memory for a decoder")]
    NoMemory,
}

/// Why a span gave no bytes.
#[derive(Debug, thiserror::Error)]
#[error("layer {layer}, span {span}: {reason}")]
pub struct SpanError {
    /// The layer's digest.
    pub layer: Sha256Digest,
    /// The span's number.
    pub span: usize,
    /// What is wrong with it.
    #[source]
    pub reason: SpanFault,
}

impl SpanFault {
    /// Whether what was read is wrong, rather than not to be had.
    pub(crate) fn is_of_content(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Mismatch(_) | Self::Contents)
    }
}

/// What is wrong with a span.
#[derive(Debug, thiserror::Error)]
pub enum SpanFault {
    /// The index has no span of that number.
    #[error("the index has no such span")]
    Missing,
    /// The blob could not be read.
    #[error("the blob could not be read: {0}")]
    Source(io::Error),
    /// What was read can't be decoded.
    #[error("{0}")]
    Decode(BlobError),
    /// What was read is not what was there when the layer was indexed.
    #[error("the {0} bytes have another digest than the index says")]
    Mismatch(&'static str),
    /// What was read is not the table of contents that the image's manifest names.
    #[error("the table of contents has another SHA-256 than the manifest says")]
    Contents,
    /// The decoded bytes could not be passed on.
    #[error("the decoded bytes could not be kept: {0}")]
    Sink(io::Error),
    /// The span is larger than the caller wants to hold in memory.
    #[error("the span has {length} bytes, more than {limit}")]
    TooLarge {
        /// Decoded bytes of the span.
        length: u64,
        /// What the caller would have taken.
        limit: u64,
    },
}
