//! Tables of contents: what a layer says of all its files in one place, so that it need not be read for that.
//!
//! Two kinds of layers have one. Both are tars whose files' contents begin a gzip member or a zstd frame of their own,
//! in chunks, and both end with a list of all entries and chunks, as JSON:
//!
//! * [eStargz](https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md): the list is a file in the
//!   last member of a gzip layer, which a footer of 51 bytes leads to.
//! * [zstd:chunked](https://github.com/containers/storage/blob/main/docs/containers-storage-zstd-chunked.md): it is in a
//!   skippable frame, which an annotation leads to.
//!
//! A table counts only if the image's manifest names its SHA-256 ([`TocReference`]). Each chunk has one in the table, and
//! is compared with it before anybody gets a byte of it. What the table does not say as a tar would
//! ([`TocError::Unfit`]), or says wrongly, makes it none: then the layer is read as a whole, like any other.

mod assembly;
mod chunked;
mod document;
mod error;
mod estargz;
mod reference;
#[cfg(test)]
pub(crate) mod tests;

pub use error::TocError;
pub use reference::TocReference;

use std::io;

use crate::blob::{
    BlobError, BlobSource, Compression, Decoder, Sha256Digest, SpanError, SpanFault,
};
use crate::index::{IndexOptions, LayerIndex};

use assembly::{Assembly, Whole};

/// The most bytes that a table may have in its layer.
const PACKED_MAX: u64 = 32 << 20;

/// The most bytes that it may decode to: what 300,000 files take.
const DECODED_MAX: u64 = 128 << 20;

/// What there can be too many of.
const OF_TABLE: &str = "bytes of its table of contents";

/// What the manifest and the configuration of an image say of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TocLayer {
    /// SHA-256 of its bytes.
    pub digest: Sha256Digest,
    /// How many they are.
    pub size: u64,
    /// SHA-256 of what they decode to.
    pub diff_id: Sha256Digest,
}

/// The index of a layer, by its table of contents. Reads the table and nothing else.
///
/// Memory: the table, at most 32 MiB as it is and 128 MiB decoded, and the index.
///
/// # Errors
/// Whatever makes the table none; see [`TocError`].
pub fn read_toc(
    source: &dyn BlobSource,
    layer: TocLayer,
    reference: &TocReference,
    options: &IndexOptions,
) -> Result<LayerIndex, TocError> {
    let (compression, (json, end)) = match reference {
        TocReference::EStargz { .. } => (
            Compression::Gzip,
            estargz::read(source, layer, reference.digest())?,
        ),
        TocReference::ZstdChunked(place) => {
            (Compression::Zstd, chunked::read(source, layer, place)?)
        }
    };
    let mut assembly = Assembly::new(options, end);
    document::read(&json, &mut assembly)?;
    assembly.finish(Whole {
        compression,
        layer,
        toc: reference.digest(),
    })
}

/// What `bytes` decode to, if that is at most `limit`.
fn decode(compression: Compression, mut bytes: &[u8], limit: u64) -> Result<Vec<u8>, TocError> {
    let failed = |error| match error {
        BlobError::Io(error) => TocError::Read(error),
        BlobError::Malformed(what) => TocError::Malformed(what),
        BlobError::TooLarge { what, limit } => TocError::TooLarge { what, limit },
        BlobError::NoMemory => TocError::Read(io::ErrorKind::OutOfMemory.into()),
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new(compression).map_err(failed)?;
    let mut decoded = Vec::new();
    loop {
        let step = decoder.step(bytes).map_err(failed)?;
        if step.is_stalled() {
            break;
        }
        if decoded.len().saturating_add(step.output.len()) > most {
            return Err(TocError::TooLarge {
                what: OF_TABLE,
                limit,
            });
        }
        decoded.extend_from_slice(step.output);
        bytes = bytes.get(step.consumed..).unwrap_or_default();
    }
    decoder.finish().map_err(failed)?;
    Ok(decoded)
}

/// Bytes of the layer that are its table, as far as they are right, of a length that was checked.
fn fetch(
    source: &dyn BlobSource,
    layer: TocLayer,
    offset: u64,
    length: u64,
    is_right: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, TocError> {
    if length > PACKED_MAX {
        return Err(TocError::TooLarge {
            what: OF_TABLE,
            limit: PACKED_MAX,
        });
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let check = |bytes: &[u8]| match is_right(bytes) {
        true => Ok(()),
        false => Err(SpanError {
            layer: layer.digest,
            span: 0,
            reason: SpanFault::Contents,
        }),
    };
    source
        .read_right(offset, &mut bytes, &check)
        .map_err(TocError::Read)?;
    Ok(bytes)
}
