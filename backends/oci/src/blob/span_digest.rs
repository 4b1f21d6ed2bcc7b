//! What the bytes of a span are compared with.
//!
//! Blobs and what they decode to have the SHA-256 that an image's documents name. What a span has is compared with what
//! was seen when the layer was indexed, and for that nobody else says which digest it is: BLAKE3 withstands collisions as
//! SHA-256 does, and takes less than half of the time even where the processor has instructions for SHA-256.

use sha2::{Digest as _, Sha256};

use super::Sha256Digest;

/// The BLAKE3 of some bytes, 256 bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blake3Digest(pub [u8; 32]);

impl Blake3Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl From<&blake3::Hasher> for Blake3Digest {
    fn from(hasher: &blake3::Hasher) -> Self {
        Self(hasher.finalize().into())
    }
}

/// The digest of what a span decodes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanDigest {
    /// Of a layer that was indexed.
    Blake3(Blake3Digest),
    /// As a table of contents has it.
    Sha256(Sha256Digest),
}

impl SpanDigest {
    /// What makes such a digest of other bytes.
    pub(crate) fn hasher(&self) -> SpanHasher {
        match self {
            Self::Blake3(_) => SpanHasher::Blake3(Box::default()),
            Self::Sha256(_) => SpanHasher::Sha256(Sha256::new()),
        }
    }

    /// The digest without its algorithm.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Blake3(digest) => &digest.0,
            Self::Sha256(digest) => &digest.0,
        }
    }
}

/// Takes what a span decodes to, piece by piece.
pub(crate) enum SpanHasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
}

impl SpanHasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => drop(hasher.update(bytes)),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> SpanDigest {
        match self {
            Self::Blake3(hasher) => SpanDigest::Blake3((&*hasher).into()),
            Self::Sha256(hasher) => SpanDigest::Sha256(hasher.into()),
        }
    }
}
