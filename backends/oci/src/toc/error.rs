//! Why a layer's table of contents is not used.

use std::io;

/// Why a layer's table of contents is not used. The layer can be read as a whole instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TocError {
    /// The layer could not be read.
    #[error("the table of contents could not be read: {0}")]
    Read(io::Error),
    /// It is another one than the manifest names.
    #[error("the table of contents has another SHA-256 than the manifest says")]
    Digest,
    /// It is not where it should be, or is none.
    #[error("the table of contents is malformed: {0}")]
    Malformed(&'static str),
    /// It is no JSON of the kind that is wanted.
    #[error("the table of contents cannot be understood: {0}")]
    Json(#[from] serde_json::Error),
    /// It is right, but does not say all that the layer's tar does.
    #[error("the table of contents is not used: {0}")]
    Unfit(&'static str),
    /// It is larger than is allowed.
    #[error("the layer has more than {limit} {what}")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
}
