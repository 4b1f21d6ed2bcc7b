//! Whether the disk still has what was written to it.

use std::io;
use std::path::Path;

use vfsd_backend::Wait;

use super::file::{ABSENT, CacheFile, HostBoot, states_of};
use super::layout::Layout;
use super::pins::{Lock, lock};
use super::{ContentError, place};
use crate::blob::Blake3Digest;
use crate::index::LayerIndex;

/// How much is read at once.
const PIECE: usize = 1 << 20;

/// What was found in the cache of a layer's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifiedContent {
    /// Spans that are there and right.
    pub right: usize,
    /// Those that were wrong. They are absent now, and will be read from the layer again.
    pub wrong: Vec<usize>,
}

/// Reads all that the cache in `folder` has of a layer, and drops what is not what was written there. A daemon that
/// serves it meanwhile notices when it opens the layer the next time.
///
/// # Errors
/// What the file system answers; an index that has no layout.
pub fn verify_content(folder: &Path, index: &LayerIndex) -> Result<VerifiedContent, ContentError> {
    let (path, shape, layout) = place(folder, index)?;
    let mut found = VerifiedContent::default();
    let Some((file, states)) = CacheFile::existing(&path, shape, HostBoot::current())? else {
        return Ok(found);
    };
    for (span, state) in states.into_iter().enumerate() {
        // Nobody takes it away meanwhile.
        let place = span..span.saturating_add(1);
        lock(&file.writable, &place, Lock::Shared, Wait::Allowed)?;
        if state == ABSENT || file.state(span)? == ABSENT {
            lock(&file.writable, &place, Lock::None, Wait::Refused)?;
            continue;
        }
        // Another daemon may be writing it again, the same to the same place: then the second look is right.
        let is_right = || -> io::Result<bool> {
            Ok(sum(&file, &layout, index, span)? == Some(file.sum(span)?))
        };
        if is_right()? || is_right()? {
            found.right = found.right.saturating_add(1);
        } else {
            file.set_state(span, ABSENT)?;
            found.wrong.push(span);
        }
        lock(&file.writable, &place, Lock::None, Wait::Refused)?;
    }
    if !found.wrong.is_empty() {
        file.sync()?;
    }
    Ok(found)
}

/// The BLAKE3 of what a span has in the file; none where the disk cannot be read.
fn sum(
    file: &CacheFile,
    layout: &Layout,
    index: &LayerIndex,
    span: usize,
) -> io::Result<Option<Blake3Digest>> {
    use std::os::unix::fs::FileExt as _;
    let decoded = index.blob.spans.get(span).map(|span| span.decoded.clone());
    let mut buffer = vec![0; PIECE];
    let mut sum = blake3::Hasher::new();
    for placed in layout.placed_in(decoded.unwrap_or(0..0)) {
        let mut done: u64 = 0;
        while done < placed.length {
            let left = usize::try_from(placed.length.saturating_sub(done)).unwrap_or(PIECE);
            let target = buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
            let offset = placed.cache_offset.saturating_add(done);
            match file.readable.read_exact_at(target, offset) {
                Ok(()) => drop(sum.update(target)),
                // A sector that is lost is as wrong as one that has other bytes.
                Err(_) => return Ok(None),
            }
            done = done.saturating_add(u64::try_from(target.len()).unwrap_or(u64::MAX));
        }
    }
    Ok(Some((&sum).into()))
}

/// Which spans a cache file has, for whoever only counts: for each whether it is there. None if `path` is no such
/// file.
pub(crate) fn resident_spans_of(path: &Path) -> io::Result<Option<Vec<bool>>> {
    let states = states_of(path, HostBoot::current())?;
    Ok(states.map(|states| states.iter().map(|state| *state != ABSENT).collect()))
}
