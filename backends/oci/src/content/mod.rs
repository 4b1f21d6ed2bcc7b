//! The content of a layer's files, decoded and kept on disk as it is asked for.
//!
//! A [`LayerContent`] is a sparse file in which every file of the layer begins at a multiple of 4
//! KiB, so that a read is one system call from there into the guest, and a page can be mapped. It
//! is filled span by span; a byte is there when its span was verified and written, not before.

mod error;
mod file;
mod fill;
mod flight;
mod layout;
mod pinned;
mod pins;
mod residency;
mod run;
#[cfg(test)]
mod tests;
mod trim;
mod verify;

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use error::ContentError;
pub use file::HostBoot;
use file::{CacheFile, Shape, contents_start};
use flight::Flights;
pub use layout::ContentPiece;
use layout::Layout;
use pinned::Bounded;
pub(crate) use pinned::{Pinned, Room};
use residency::Residency;
pub(crate) use trim::{Places, trim_content};
pub(crate) use verify::resident_spans_of;
pub use verify::{VerifiedContent, verify_content};

use crate::blob::{BlobIndex, BlobSource, SpanReader};
use crate::counters::Counters;
use crate::index::LayerIndex;

/// The largest span that is verified in memory. A larger one goes through a temporary file.
const IN_MEMORY: usize = 8 << 20;

/// The cache of one layer's content.
#[expect(missing_debug_implementations, reason = "a source need have none")]
pub struct LayerContent {
    /// The layer and its spans. What its entries are called is the tree's to know.
    blob: Arc<BlobIndex>,
    reader: SpanReader<Arc<dyn BlobSource>>,
    layout: Layout,
    file: CacheFile,
    /// The folder of the file, where temporary files go, too.
    folder: Box<Path>,
    residency: Residency,
    flights: Flights,
    in_memory: usize,
    /// How often the disk has not taken what was written.
    syncs_failed: AtomicU64,
    /// What is needed where content may be taken away at any time.
    bounded: Option<Bounded>,
    counters: Arc<Counters>,
}

impl LayerContent {
    /// Opens the cache of a layer in `folder`, or begins it. Several daemons may do so at once.
    /// Missing spans will be read from `source`. What was written in this `boot` of the host counts, however who wrote
    /// it has ended. Nothing is taken away from it by others as long as it is open.
    ///
    /// # Errors
    /// What the file system answers; a layer of more than 2^63 bytes; an index whose entries share
    /// data.
    pub fn open(
        folder: &Path,
        index: &LayerIndex,
        source: Arc<dyn BlobSource>,
        boot: HostBoot,
    ) -> Result<Self, ContentError> {
        Self::open_in(folder, index, source, boot, None, Arc::default())
    }

    /// As [`open`](Self::open). With a `room` content may be taken away at any time, unless it is [pinned](Self::pin), by
    /// all who use the cache. What is read and filled is counted by `counters`.
    pub(crate) fn open_in(
        folder: &Path,
        index: &LayerIndex,
        source: Arc<dyn BlobSource>,
        boot: HostBoot,
        room: Option<Arc<dyn Room>>,
        counters: Arc<Counters>,
    ) -> Result<Self, ContentError> {
        let (path, shape, layout) = place(folder, index)?;
        let (file, states) = CacheFile::open(&path, shape, boot)?;
        let bounded = room.map(|room| Bounded::new(room, states.len()));
        let is_bounded = bounded.is_some();
        let content = Self {
            reader: SpanReader::new(source, Arc::clone(&index.blob)),
            blob: Arc::clone(&index.blob),
            layout,
            file,
            folder: folder.into(),
            residency: Residency::new(&states),
            flights: Flights::default(),
            in_memory: IN_MEMORY,
            syncs_failed: AtomicU64::new(0),
            bounded,
            counters,
        };
        if !is_bounded {
            content.pin_for_good()?;
        }
        Ok(content)
    }

    /// Whether content may be taken away at any time.
    pub(crate) fn is_bounded(&self) -> bool {
        self.bounded.is_some()
    }

    /// The layer and its spans.
    pub fn blob(&self) -> &Arc<BlobIndex> {
        &self.blob
    }

    /// The cache file, for reading. What [`locate`](Self::locate) names is in it as soon as it is
    /// [resident](Self::is_resident); before that there are zeros.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.readable.as_fd()
    }

    /// Where `range` of the file of an entry (by its number in the index) stands: pieces without gaps
    /// between them, up to the end of the file. There are none for what is no regular file.
    pub fn locate(
        &self,
        entry: usize,
        range: Range<u64>,
    ) -> impl Iterator<Item = ContentPiece> + '_ {
        self.layout.pieces(entry, range)
    }

    /// Whether all of `range` of an entry's file can be read from the cache file. Waits for
    /// nothing.
    pub fn is_resident(&self, entry: usize, range: Range<u64>) -> bool {
        self.count_resident(entry, range).is_some()
    }

    /// The number of spans that hold data of `range` of an entry's file, if all of them are there.
    pub(crate) fn count_resident(&self, entry: usize, range: Range<u64>) -> Option<u64> {
        let mut spans = self.spans_of(entry, range).flatten();
        spans.try_fold(0_u64, |count, span| {
            self.residency.has(span).then_some(count.saturating_add(1))
        })
    }

    /// Where it is counted what is read.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The spans that hold data of `range` of an entry's file.
    pub(crate) fn spans_of(
        &self,
        entry: usize,
        range: Range<u64>,
    ) -> impl Iterator<Item = Range<usize>> + '_ {
        let data = self.layout.data(entry, range);
        data.map(|range| self.blob.spans_of(range))
    }

    /// Whether missing spans have to be fetched from another host.
    pub(crate) fn is_distant(&self) -> bool {
        self.reader.source().is_distant()
    }

    pub(crate) fn is_span_resident(&self, span: usize) -> bool {
        self.residency.has(span) || self.blob.spans.get(span).is_none()
    }

    /// Bytes of the layer that these spans have.
    pub(crate) fn size_of_run(&self, spans: Range<usize>) -> u64 {
        let spans = self.blob.spans.get(spans).unwrap_or_default();
        let start = spans.first().map_or(0, |span| span.compressed.start);
        let end = spans.last().map_or(0, |span| span.compressed.end);
        end.saturating_sub(start)
    }

    /// Bytes that the layer decodes to, and how many of them are there.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let spans = self.blob.spans.iter().enumerate();
        spans.fold((0, 0), |(all, there), (number, span)| {
            let length = span.decoded.end.saturating_sub(span.decoded.start);
            let more = match self.residency.has(number) {
                true => length,
                false => 0,
            };
            (all.saturating_add(length), there.saturating_add(more))
        })
    }

    /// How many of the layer's spans are there.
    pub fn resident_spans(&self) -> usize {
        self.residency.count()
    }
}

/// Removes what was decoded by an index.
pub(crate) fn forget_content(folder: &Path, index: &LayerIndex) -> Result<(), ContentError> {
    let (path, ..) = place(folder, index)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Gives what was decoded by an index to another one that says the same, unless that has something already.
pub(crate) fn rename_content(
    folder: &Path,
    from: &LayerIndex,
    to: &LayerIndex,
) -> Result<(), ContentError> {
    let (old, old_shape, _) = place(folder, from)?;
    let (new, new_shape, _) = place(folder, to)?;
    if old_shape.key != new_shape.key || new.exists() {
        return forget_content(folder, from);
    }
    match std::fs::rename(old, new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The cache file of a layer, what it has to be, and what stands where in it.
fn place(folder: &Path, index: &LayerIndex) -> Result<(PathBuf, Shape, Layout), ContentError> {
    let spans = u64::try_from(index.blob.spans.len()).map_err(io::Error::other)?;
    let start = contents_start(spans).ok_or(ContentError::TooLarge)?;
    let layout = Layout::new(index, start)?;
    let key = layout.key(index);
    let shape = Shape {
        key,
        spans,
        end: layout.end,
    };
    // By a table of contents, or by an index of others: the same name as the index.
    let end = match index.borrowed {
        Some(artifact) => artifact.hex(),
        None => index.blob.contents.unwrap_or(key).short_hex(),
    };
    let name = format!("{}-{end}.content", index.blob.digest.hex());
    Ok((folder.join(name), shape, layout))
}
