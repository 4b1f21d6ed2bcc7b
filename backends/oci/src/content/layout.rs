//! Where the content of a layer's files stands in its cache file.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::ContentError;
use crate::blob::Sha256Digest;
use crate::index::LayerIndex;
use crate::{DataExtent, EntryKind};

/// Alignment of contents, in bytes: what a page has, so that a guest can map them.
pub(super) const PAGE: u64 = 4096;

/// The places of all contents, in the order of the tar.
///
/// A file's content is one run of pages that begins with the file; that of a sparse file is a run
/// for each stretch of pages that has data, so that no hole takes room.
#[derive(Debug)]
pub(super) struct Layout {
    /// For each entry, where what there is of it begins; and then the end of all.
    files: Vec<FileStart>,
    runs: Vec<Run>,
    /// The data, ascending in the tar and in the cache file.
    placed: Vec<Placed>,
    /// Where the cache file ends.
    pub(super) end: u64,
}

/// An entry's file. There is nothing of what is no regular file.
#[derive(Debug, Clone, Copy)]
struct FileStart {
    /// Bytes of the file.
    size: u64,
    /// The number of its first run.
    run: u32,
}

/// Pages of a file, one after the other.
#[derive(Debug, Clone, Copy)]
struct Run {
    file_offset: u64,
    length: u64,
    cache_offset: u64,
}

/// Where data of the tar goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) tar_offset: u64,
    pub(super) cache_offset: u64,
    pub(super) length: u64,
}

/// A piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentPiece {
    /// Its place in the file.
    pub file_offset: u64,
    /// Bytes; at least 1.
    pub length: u64,
    /// Its place in the cache file; none for a hole.
    pub cache_offset: Option<u64>,
}

impl Layout {
    /// Lays out the contents of `index`, from `start` on, which is a multiple of a page.
    pub(super) fn new(index: &LayerIndex, start: u64) -> Result<Self, ContentError> {
        let mut layout = Self {
            files: Vec::with_capacity(index.entries.len().saturating_add(1)),
            runs: Vec::new(),
            placed: Vec::new(),
            end: start,
        };
        for entry in &index.entries {
            match &entry.kind {
                EntryKind::Regular { size, data } => {
                    layout.begin(*size)?;
                    layout.place(data).ok_or(ContentError::TooLarge)?;
                }
                _ => layout.begin(0)?,
            }
        }
        layout.begin(0)?;
        // They stay as long as the layer is used.
        layout.runs.shrink_to_fit();
        layout.placed.shrink_to_fit();
        let ascends = |pair: &[Placed]| match pair {
            [a, b] => a.tar_offset.saturating_add(a.length) <= b.tar_offset,
            _ => true,
        };
        if !layout.placed.windows(2).all(ascends) {
            return Err(ContentError::Disordered);
        }
        if i64::try_from(layout.end).is_err() {
            return Err(ContentError::TooLarge);
        }
        Ok(layout)
    }

    fn begin(&mut self, size: u64) -> Result<(), ContentError> {
        let run = u32::try_from(self.runs.len()).map_err(|_| ContentError::TooLarge)?;
        self.files.push(FileStart { size, run });
        Ok(())
    }

    /// How long an entry's file is, and its runs.
    fn file(&self, entry: usize) -> (u64, &[Run]) {
        let file = || {
            let (first, after) = (
                self.files.get(entry)?,
                self.files.get(entry.checked_add(1)?)?,
            );
            let runs = usize::try_from(first.run).ok()?..usize::try_from(after.run).ok()?;
            Some((first.size, self.runs.get(runs)?))
        };
        file().unwrap_or_default()
    }

    /// Gives a file's data their places, from the end on.
    fn place(&mut self, data: &[DataExtent]) -> Option<()> {
        let mut open: Option<Run> = None;
        for extent in data {
            let first_page = extent.file_offset.checked_sub(extent.file_offset % PAGE)?;
            let end = extent.file_offset.checked_add(extent.length)?;
            let end = end.checked_next_multiple_of(PAGE)?;
            let run = match open {
                Some(run) if first_page <= run.file_offset.checked_add(run.length)? => Run {
                    length: end.checked_sub(run.file_offset)?,
                    ..run
                },
                other => {
                    self.close(other)?;
                    Run {
                        file_offset: first_page,
                        length: end.checked_sub(first_page)?,
                        cache_offset: self.end,
                    }
                }
            };
            let within = extent.file_offset.checked_sub(run.file_offset)?;
            self.placed.push(Placed {
                tar_offset: extent.tar_offset,
                cache_offset: run.cache_offset.checked_add(within)?,
                length: extent.length,
            });
            open = Some(run);
        }
        self.close(open)
    }

    fn close(&mut self, run: Option<Run>) -> Option<()> {
        if let Some(run) = run {
            self.end = self.end.checked_add(run.length)?;
            self.runs.push(run);
        }
        Some(())
    }

    /// The pieces of `range` of an entry's file, up to its end, without gaps.
    pub(super) fn pieces(
        &self,
        entry: usize,
        range: Range<u64>,
    ) -> impl Iterator<Item = ContentPiece> + '_ {
        let (size, runs) = self.file(entry);
        let range = range.start..range.end.min(size);
        let mut next = runs.partition_point(|run| run.end() <= range.start);
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let run = runs.get(next);
            let (end, cache_offset) = match run {
                Some(run) if run.file_offset <= at => {
                    next = next.saturating_add(1);
                    let within = at.saturating_sub(run.file_offset);
                    (run.end(), Some(run.in_cache(within)))
                }
                Some(run) => (run.file_offset, None),
                None => (range.end, None),
            };
            let end = end.min(range.end);
            let piece = ContentPiece {
                file_offset: at,
                length: end.saturating_sub(at),
                cache_offset,
            };
            at = end;
            Some(piece)
        })
    }

    /// Where in the tar the data of `range` of an entry's file are.
    pub(super) fn data(
        &self,
        entry: usize,
        range: Range<u64>,
    ) -> impl Iterator<Item = Range<u64>> + '_ {
        let (_, runs) = self.file(entry);
        let first = runs.partition_point(|run| run.end() <= range.start);
        let rest = runs.get(first..).unwrap_or_default();
        let end = range.end;
        let within = rest.iter().take_while(move |run| run.file_offset < end);
        within.flat_map(move |run| {
            let start = range.start.saturating_sub(run.file_offset);
            let beyond = run.end().saturating_sub(range.end);
            let length = run.length.saturating_sub(beyond);
            let placed = self.placed_by(
                |it| it.cache_offset,
                run.in_cache(start)..run.in_cache(length),
            );
            placed.map(|it| it.tar_offset..it.tar_offset.saturating_add(it.length))
        })
    }

    /// The data that lie in `range` of the tar, the first and the last cut to it.
    pub(super) fn placed_in(&self, range: Range<u64>) -> impl Iterator<Item = Placed> + '_ {
        self.placed_by(|it| it.tar_offset, range)
    }

    /// The data that lie in `range` of where `offset` says, the tar or the cache file, the first and the last cut to it.
    fn placed_by(
        &self,
        offset: fn(&Placed) -> u64,
        range: Range<u64>,
    ) -> impl Iterator<Item = Placed> + '_ {
        let first = self
            .placed
            .partition_point(|it| offset(it).saturating_add(it.length) <= range.start);
        let rest = self.placed.get(first..).unwrap_or_default();
        let end = range.end;
        let within = rest.iter().take_while(move |it| offset(it) < end);
        within.map(move |it| {
            let start = offset(it).max(range.start);
            let end = offset(it).saturating_add(it.length).min(range.end);
            let skipped = start.saturating_sub(offset(it));
            Placed {
                tar_offset: it.tar_offset.saturating_add(skipped),
                cache_offset: it.cache_offset.saturating_add(skipped),
                length: end.saturating_sub(start),
            }
        })
    }

    /// What tells this layout of this layer, cut into these spans, from any other.
    pub(super) fn key(&self, index: &LayerIndex) -> Sha256Digest {
        let mut key = Sha256::new();
        key.update(index.blob.digest.0);
        for span in &index.blob.spans {
            key.update(span.decoded.end.to_le_bytes());
        }
        for it in &self.placed {
            key.update(it.tar_offset.to_le_bytes());
            key.update(it.cache_offset.to_le_bytes());
            key.update(it.length.to_le_bytes());
        }
        key.update(self.end.to_le_bytes());
        // Who names another table of the same layer has other contents.
        if let Some(toc) = index.blob.contents {
            key.update(toc.0);
        }
        key.into()
    }
}

impl Run {
    /// The place in the cache file of what is so many bytes behind its start.
    fn in_cache(&self, distance: u64) -> u64 {
        self.cache_offset.saturating_add(distance)
    }

    fn end(&self) -> u64 {
        self.file_offset.saturating_add(self.length)
    }
}
