//! Why a tar could not be read.

/// A tar that can't be read, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tar is malformed at byte {offset}: {what}")]
pub struct TarError {
    /// Where the header, or what belongs to it, stands in the uncompressed tar.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
}
