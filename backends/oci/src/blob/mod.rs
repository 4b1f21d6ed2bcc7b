//! A layer as a blob: how it is compressed, and how any piece of it is read without the rest.
//!
//! A [`BlobIndexer`] decodes a layer once, from its first byte to its last, and notes [spans](Span):
//! where decoding can begin anew, and what digest the bytes up to the next such place have. From
//! then on a [`SpanReader`] reads any span by itself, and hands nothing out that differs.

mod checkpoint;
mod compression;
mod decoder;
mod digest;
mod error;
mod frames;
mod gzip;
mod hashing;
mod header;
mod indexer;
mod reader;
mod source;
mod span;
mod span_digest;
#[cfg(test)]
pub(crate) mod tests;

pub use compression::Compression;
pub(crate) use decoder::Decoder;
pub use digest::{BadDigest, Sha256Digest};
pub use error::{BlobError, SpanError, SpanFault};
pub use indexer::{BlobIndexer, BlobOptions};
pub use reader::SpanReader;
pub use source::{BlobSource, Check};
pub use span::{BlobIndex, Resume, Span, Window};
pub(crate) use span_digest::SpanHasher;
pub use span_digest::{Blake3Digest, SpanDigest};
