//! The spans of a layer: pieces of it that can be decoded by themselves.

use std::ops::Range;

use super::gzip::WINDOW;
use super::reader::decode_all;
use super::{Blake3Digest, BlobError, Compression, Sha256Digest, SpanDigest, SpanError, SpanFault};

/// Where the spans of a blob lie and what they must be: enough to read any of them by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobIndex {
    /// How the blob is compressed.
    pub compression: Compression,
    /// SHA-256 of the blob as it is: the layer's digest in the manifest.
    pub digest: Sha256Digest,
    /// Bytes of the blob as it is.
    pub size: u64,
    /// SHA-256 of the decoded blob: the layer's diff-id in the image's configuration.
    pub diff_id: Sha256Digest,
    /// Bytes of the decoded blob.
    pub decoded_size: u64,
    /// At least one; each begins where the one before ends, in the decoded blob. Only the last can
    /// be empty.
    pub spans: Vec<Span>,
    /// The SHA-256 of the table of contents that all of this is from; none where the blob was read as a whole.
    ///
    /// With a table neither `digest` nor `diff_id` was compared with anything. The decoded blob is no tar then, but the
    /// chunks of files one after the other; there may be none, and the blob has other bytes between them.
    pub contents: Option<Sha256Digest>,
}

impl BlobIndex {
    /// The span that holds the byte at `offset` of the decoded blob, if there is such a byte.
    pub fn span_at(&self, offset: u64) -> Option<usize> {
        let after = self
            .spans
            .partition_point(|span| span.decoded.start <= offset);
        let candidates = self.spans.get(..after)?;
        let found = candidates
            .iter()
            .rposition(|span| span.decoded.contains(&offset))?;
        Some(found)
    }

    /// The spans that hold the bytes of `range` of the decoded blob, as far as it has them.
    pub fn spans_of(&self, range: Range<u64>) -> Range<usize> {
        let end = range.end.min(self.decoded_size);
        if range.start >= end {
            return 0..0;
        }
        let last = self.span_at(end.saturating_sub(1));
        match (self.span_at(range.start), last) {
            (Some(first), Some(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    }
}

impl BlobIndex {
    /// Whether `bytes` are those of a span in the blob.
    ///
    /// # Errors
    /// `Mismatch`, with the layer and the span, if they are not.
    pub fn check(&self, span: usize, bytes: &[u8]) -> Result<(), SpanError> {
        let wanted = self.spans.get(span).ok_or(SpanFault::Missing);
        let checked = wanted.and_then(|wanted| match wanted.compressed_digest {
            Some(digest) if digest == Blake3Digest::of(bytes) => Ok(()),
            Some(_) => Err(SpanFault::Mismatch("compressed")),
            None => decode_all(self.compression, wanted, bytes),
        });
        checked.map_err(|reason| SpanError {
            layer: self.digest,
            span,
            reason,
        })
    }
}

/// A piece of a blob that can be decoded by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its place in the blob. A gzip span may share a byte with the one before.
    pub compressed: Range<u64>,
    /// Its place in the decoded blob.
    pub decoded: Range<u64>,
    /// How decoding begins.
    pub resume: Resume,
    /// The digest of its bytes in the blob; none where only that of the decoded ones is known.
    pub compressed_digest: Option<Blake3Digest>,
    /// The digest of its decoded bytes.
    pub decoded_digest: SpanDigest,
}

/// How the decoding of a span begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// A gzip member or a zstd frame starts, or the blob is not compressed.
    Fresh,
    /// Between two blocks of a deflate stream.
    Block {
        /// High bits of the span's first byte that are still unread, 0 to 7. At 0 the first byte
        /// is unread altogether; otherwise the bytes after it follow.
        bits: u8,
        /// What came before, as far as it may be repeated.
        window: Window,
    },
}

/// The up to 32 KiB before a checkpoint, kept compressed. What the span does not repeat of it may be zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window(Box<[u8]>);

impl Window {
    /// The most that the compressed form of a window can take, in bytes.
    pub const PACKED_MAX: usize = WINDOW + 1024;

    /// Compresses a window.
    pub(crate) fn pack(
        packer: &mut zstd::bulk::Compressor<'static>,
        window: &[u8],
    ) -> Result<Self, BlobError> {
        Ok(Self(packer.compress(window)?.into_boxed_slice()))
    }

    /// A window that was stored.
    ///
    /// # Errors
    /// `Malformed` for more than [`PACKED_MAX`](Self::PACKED_MAX) bytes. What they are is seen when they are used.
    pub fn from_packed(packed: &[u8]) -> Result<Self, BlobError> {
        if packed.len() > Self::PACKED_MAX {
            return Err(BlobError::Malformed("a window of more than 32 KiB"));
        }
        Ok(Self(packed.into()))
    }

    /// The compressed form, which is to be stored.
    pub fn packed(&self) -> &[u8] {
        &self.0
    }

    /// The window itself, at most 32 KiB.
    pub(crate) fn unpack(&self) -> Result<Vec<u8>, BlobError> {
        zstd::bulk::decompress(&self.0, WINDOW)
            .map_err(|_| BlobError::Malformed("a checkpoint's window can't be decoded"))
    }
}
