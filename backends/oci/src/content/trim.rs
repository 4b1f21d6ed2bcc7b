//! Taking content away again, span by span.

use std::cmp::Reverse;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::file::{ABSENT, CacheFile};
use super::layout::{Layout, PAGE};
use super::place;
use crate::index::LayerIndex;

/// Takes spans away from the cache in `folder` of a layer that **nobody has open**, until the disk has `wanted` bytes
/// again: those of the lowest `worth` first, and of the same worth the later ones. Gives the bytes that the disk has.
///
/// It may be cut off at any time: a span is absent, durably, before its bytes go.
///
/// # Errors
/// What the file system answers, also where it knows no holes; an index that has no layout.
pub(crate) fn trim_content(
    folder: &Path,
    index: &LayerIndex,
    wanted: u64,
    worth: impl Fn(usize) -> usize,
) -> io::Result<u64> {
    let (path, shape, layout) = place(folder, index).map_err(io::Error::other)?;
    let Some((file, states)) = CacheFile::as_it_is(&path, shape)? else {
        return Ok(0);
    };
    let before = file.disk()?;
    let freed = |file: &CacheFile| Ok(before.saturating_sub(file.disk()?));
    let (absent, mut there): (Vec<_>, Vec<_>) = states
        .into_iter()
        .enumerate()
        .partition(|(_, state)| *state == ABSENT);
    // What an eviction that was cut off, or a host that went down, has left.
    for (span, _) in absent {
        file.punch(bytes_of(span, index, &layout))?;
    }
    let mut left = wanted.saturating_sub(freed(&file)?);
    if left == 0 {
        return freed(&file);
    }
    there.sort_by_key(|(span, _)| (worth(*span), Reverse(*span)));
    let mut going = Vec::new();
    for (span, _) in there {
        if left == 0 {
            break;
        }
        let bytes = bytes_of(span, index, &layout);
        left = left.saturating_sub(bytes.end.saturating_sub(bytes.start));
        file.set_state(span, ABSENT)?;
        going.push(bytes);
    }
    // After a crash of the host no state may say that there is content where there is a hole.
    file.sync()?;
    for bytes in going {
        file.punch(bytes)?;
    }
    freed(&file)
}

/// What a span has in the cache file, with the padding between its files and after them.
fn bytes_of(span: usize, index: &LayerIndex, layout: &Layout) -> Range<u64> {
    let decoded = index.blob.spans.get(span).map(|span| span.decoded.clone());
    let decoded = decoded.unwrap_or(0..0);
    let after = layout.placed_in(decoded.end..u64::MAX).next();
    let mut bytes = 0..0;
    for placed in layout.placed_in(decoded) {
        if bytes.is_empty() {
            bytes.start = placed.cache_offset;
        }
        bytes.end = placed.cache_offset.saturating_add(placed.length);
    }
    // A page is shared only with the rest of the last file.
    let page = bytes.end.next_multiple_of(PAGE);
    if after.map_or(layout.end, |after| after.cache_offset) >= page {
        bytes.end = page;
    }
    bytes
}
