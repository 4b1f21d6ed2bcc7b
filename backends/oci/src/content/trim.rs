//! Taking content away again, span by span.

use std::cmp::Reverse;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vfsd_backend::Wait;

use super::file::{ABSENT, CacheFile, DURABLE, Shape};
use super::layout::{Layout, PAGE};
use super::pins::{Lock, is_locked_for_good, lock};
use super::place;
use crate::index::LayerIndex;

/// Where the spans of a layer stand in its cache file.
#[derive(Debug)]
pub(crate) struct Places {
    path: PathBuf,
    shape: Shape,
    /// For each span its bytes.
    bytes: Vec<Range<u64>>,
}

/// A span that is in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resident {
    /// When it was read last, as far as it was noted, in milliseconds since 1970.
    pub(crate) read: u64,
    pub(crate) span: usize,
    /// Bytes that it takes.
    pub(crate) size: u64,
}

impl Places {
    /// Those of a layer whose cache is in `folder`.
    ///
    /// # Errors
    /// An index that has no layout.
    pub(crate) fn of(folder: &Path, index: &LayerIndex) -> io::Result<Self> {
        let (path, shape, layout) = place(folder, index).map_err(io::Error::other)?;
        let spans = 0..index.blob.spans.len();
        Ok(Self {
            bytes: spans.map(|span| bytes_of(span, index, &layout)).collect(),
            path,
            shape,
        })
    }

    /// How many spans there are.
    pub(crate) fn spans(&self) -> usize {
        self.bytes.len()
    }

    /// Those of a file with so many empty spans.
    #[cfg(test)]
    pub(crate) fn with_spans(spans: usize) -> Self {
        Self {
            path: PathBuf::new(),
            shape: Shape {
                key: crate::blob::Sha256Digest::of(b""),
                spans: 0,
                end: 0,
            },
            bytes: vec![0..0; spans],
        }
    }

    /// Whether these are those of the file at `path`.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        self.path == path
    }

    /// The spans that are there.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn resident(&self) -> io::Result<Vec<Resident>> {
        let Some((file, states)) = CacheFile::as_it_is(&self.path, self.shape)? else {
            return Ok(Vec::new());
        };
        let read = file.reads()?;
        let spans = states.into_iter().zip(read).enumerate();
        let there = spans.filter(|(_, (state, _))| *state != ABSENT);
        Ok(there
            .map(|(span, (_, read))| Resident {
                read,
                span,
                size: self.size(span),
            })
            .collect())
    }

    /// Takes spans away, as far as nobody [holds](super::LayerContent::pin) them, and gives the bytes that the disk has
    /// again. Of a span that is absent already what is left of it goes.
    ///
    /// It may be cut off at any time: a span is absent, durably, before its bytes go.
    ///
    /// # Errors
    /// What the file system answers, also where it knows no holes.
    pub(crate) fn take(&self, spans: impl IntoIterator<Item = usize>) -> io::Result<u64> {
        // Its locks end with it.
        let Some((file, _)) = CacheFile::as_it_is(&self.path, self.shape)? else {
            return Ok(0);
        };
        let before = file.disk()?;
        let (mut going, mut are_durable) = (Vec::new(), false);
        for span in spans {
            let place = span..span.saturating_add(1);
            if !lock(&file.writable, &place, Lock::Exclusive, Wait::Refused)? {
                continue;
            }
            let state = file.state(span)?;
            if state != ABSENT {
                file.set_state(span, ABSENT)?;
                are_durable |= state == DURABLE;
            }
            going.push(span);
        }
        // After a crash of the host no state may say that there is content where there is a hole. One that is only
        // written says nothing then.
        if are_durable {
            file.sync()?;
        }
        going.sort_unstable();
        for hole in self.holes(&going) {
            file.punch(hole)?;
        }
        Ok(before.saturating_sub(file.disk()?))
    }

    /// What spans have, those that touch in one hole: the page that two share goes with both.
    fn holes(&self, spans: &[usize]) -> Vec<Range<u64>> {
        let mut holes: Vec<Range<u64>> = Vec::new();
        for bytes in spans.iter().filter_map(|span| self.bytes.get(*span)) {
            match holes.last_mut() {
                Some(hole) if hole.end == bytes.start => hole.end = bytes.end,
                _ => holes.push(bytes.clone()),
            }
        }
        holes
    }

    /// The spans that are absent, but that have left something on the disk: an eviction was cut off, or the host went
    /// down.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn left_over(&self) -> io::Result<Vec<usize>> {
        let Some((file, states)) = CacheFile::as_it_is(&self.path, self.shape)? else {
            return Ok(Vec::new());
        };
        let mut left = Vec::new();
        // Where the next data are, at or after the last place that was looked at.
        let mut data = Some(0);
        for (span, (state, bytes)) in states.iter().zip(&self.bytes).enumerate() {
            // The pages at its ends may have something of others.
            let start = bytes.start.next_multiple_of(PAGE);
            let end = bytes
                .end
                .checked_div(PAGE)
                .unwrap_or(0)
                .saturating_mul(PAGE);
            if *state != ABSENT || start >= end {
                continue;
            }
            if data.is_some_and(|data| data < start) {
                data = file.data_from(start)?;
            }
            match data {
                Some(data) if data < end => left.push(span),
                Some(_) => {}
                None => break,
            }
        }
        Ok(left)
    }

    /// Whether somebody has the layer open for whom nothing may be taken away.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn is_kept(&self) -> io::Result<bool> {
        match CacheFile::as_it_is(&self.path, self.shape)? {
            Some((file, _)) => is_locked_for_good(&file.writable),
            None => Ok(false),
        }
    }

    fn size(&self, span: usize) -> u64 {
        let bytes = self.bytes.get(span).cloned().unwrap_or(0..0);
        bytes.end.saturating_sub(bytes.start)
    }
}

/// Takes spans away from the cache of a layer that **nobody has open**, until the disk has `wanted` bytes again: those
/// of the lowest `worth` first, and of the same worth the later ones. Gives the bytes that the disk has.
///
/// # Errors
/// As [`Places::take`].
pub(crate) fn trim_content(
    places: &Places,
    wanted: u64,
    worth: impl Fn(usize) -> usize,
) -> io::Result<u64> {
    let mut there = places.resident()?;
    let is_there: std::collections::HashSet<_> = there.iter().map(|it| it.span).collect();
    // What an eviction that was cut off, or a host that went down, has left.
    let absent = (0..places.bytes.len()).filter(|span| !is_there.contains(span));
    let freed = places.take(absent)?;
    let mut left = wanted.saturating_sub(freed);
    there.sort_by_key(|it| (worth(it.span), Reverse(it.span)));
    let going = there.into_iter().take_while(|it| {
        let goes = left > 0;
        left = left.saturating_sub(it.size);
        goes
    });
    let going: Vec<usize> = going.map(|it| it.span).collect();
    Ok(freed.saturating_add(places.take(going)?))
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
