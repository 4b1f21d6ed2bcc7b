//! The table of a zstd:chunked layer.

use crate::blob::{BlobSource, Compression, Sha256Digest};

use super::reference::ChunkedPlace;
use super::{DECODED_MAX, TocError, TocLayer, decode, fetch};

/// Bytes of the head of a skippable frame.
const FRAME: u64 = 8;

/// The table, as JSON that was compared with its digest, and where what it speaks of ends.
pub(super) fn read(
    source: &dyn BlobSource,
    layer: TocLayer,
    place: &ChunkedPlace,
) -> Result<(Vec<u8>, u64), TocError> {
    let start = place.offset.checked_sub(FRAME);
    let start = start.ok_or(TocError::Malformed("it begins before its frame"))?;
    let end = place.offset.checked_add(place.length);
    if end.is_none_or(|end| end > layer.size) {
        return Err(TocError::Malformed("it ends after the layer"));
    }
    let is_right = |bytes: &[u8]| Sha256Digest::of(bytes) == place.sha256;
    let bytes = fetch(source, layer, place.offset, place.length, &is_right)?;
    if !is_right(&bytes) {
        return Err(TocError::Digest);
    }
    let json = decode(Compression::Zstd, &bytes, place.decoded.min(DECODED_MAX))?;
    Ok((json, start))
}
