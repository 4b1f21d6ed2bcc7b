//! Filling the cache of a layer.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::file::{ABSENT, DURABLE, WRITTEN};
use super::{ContentError, LayerContent};
use crate::blob::{Blake3Digest, BlobSource, SpanFault, SpanReader};
use crate::counters::Found;
use vfsd_backend::Wait;

/// How much is written at once, about.
const PIECE: usize = 1 << 20;

impl LayerContent {
    /// Makes `range` of an entry's file resident. Blocks: for the source of the blob, for the disk,
    /// and for others who fill the same spans; each is filled once, and they share a failure.
    ///
    /// # Errors
    /// A span that can't be read, decoded or verified, with the layer's digest and its number; what
    /// the file system answers. Spans before that one are resident; it can be tried again.
    pub fn fill(&self, entry: usize, range: Range<u64>) -> Result<(), ContentError> {
        let mut runs = self.spans_of(entry, range);
        let filled = runs.try_for_each(|run| {
            let mut spans = run.clone();
            spans.try_for_each(|span| {
                let found = self.fill_wanted(span..run.end)?;
                self.counters.read(1, found);
                Ok(())
            })
        });
        self.make_room();
        filled
    }

    /// Makes a span resident, as [`fill`](Self::fill) does: for those who fill the whole layer.
    ///
    /// # Errors
    /// As for [`fill`](Self::fill).
    pub fn fill_span(&self, span: usize) -> Result<(), ContentError> {
        self.fill_wanted(span..span.saturating_add(1)).map(drop)
    }

    /// Makes the first of the `wanted` spans resident, and others with it where that costs little.
    fn fill_wanted(&self, wanted: Range<usize>) -> Result<Found, ContentError> {
        let span = wanted.start;
        if self.residency.has(span) {
            return Ok(Found::Cached);
        }
        if self.is_distant() {
            return self.fill_neighbours(wanted);
        }
        self.fill_one(span)
    }

    /// Makes a span resident, alone.
    pub(super) fn fill_one(&self, span: usize) -> Result<Found, ContentError> {
        self.flights.join(span, || {
            // Meanwhile, by another thread; or by another daemon.
            if !self.residency.has(span) {
                if self.blob.spans.get(span).is_none() || self.file.state(span)? == ABSENT {
                    self.settle(span, &self.reader)?;
                    return Ok(Found::Fetched);
                }
                self.residency.set(span);
            }
            Ok(Found::Cached)
        })
    }

    /// Makes durable what is resident, so that it is there after a crash of the host, too. Blocks
    /// for the disk: to be called now and then, and at the end. What was not synced is lost only
    /// when the host goes down, not with the daemon.
    ///
    /// # Errors
    /// What fdatasync(2) answers; then nothing that was not durable before is resident any more.
    pub fn sync(&self) -> Result<(), ContentError> {
        self.sync_by(|| self.file.sync())
    }

    /// As [`sync`](Self::sync), by what syncs the file.
    pub(super) fn sync_by(
        &self,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), ContentError> {
        let mut written = Vec::new();
        for span in 0..self.blob.spans.len() {
            if !self.residency.has(span) {
                continue;
            }
            // Nobody takes it away before it is said that it is durable.
            if let Some(pinned) = self.pin_span(span, Wait::Refused)?
                && self.file.state(span)? == WRITTEN
            {
                written.push((span, pinned));
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        if let Err(error) = sync() {
            self.lose_written()?;
            return Err(error.into());
        }
        for (span, _pinned) in written {
            // Who has verified it meanwhile may have found it wrong.
            if self.file.state(span)? == WRITTEN {
                self.file.set_state(span, DURABLE)?;
            }
        }
        Ok(())
    }

    /// Has nothing that was only written: the disk said once that it did not take something, does not say what, and will
    /// not say so again.
    fn lose_written(&self) -> Result<(), ContentError> {
        // What is being written at the moment sees this, or is seen below.
        self.syncs_failed.fetch_add(1, Ordering::SeqCst);
        for span in 0..self.blob.spans.len() {
            if self.file.state(span)? == WRITTEN {
                self.residency.clear(span);
                self.file.set_state(span, ABSENT)?;
            }
        }
        Ok(())
    }

    /// Reads a span, verifies it, and only then writes its contents to their places; gives the BLAKE3 of those.
    pub(super) fn fetch(
        &self,
        span: usize,
        reader: &SpanReader<Arc<dyn BlobSource>>,
    ) -> Result<Blake3Digest, ContentError> {
        let mut sum = blake3::Hasher::new();
        match reader.read(span, self.in_memory) {
            Ok(bytes) => {
                let range = self.decoded_range(span);
                self.scatter(&bytes, range.start, &mut sum)?;
                return Ok((&sum).into());
            }
            Err(error) if matches!(error.reason, SpanFault::TooLarge { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut verified = self.through_a_file(span, reader)?;
        let mut at = self.decoded_range(span).start;
        let mut buffer = vec![0; PIECE];
        loop {
            match verified.read(&mut buffer) {
                Ok(0) => return Ok((&sum).into()),
                Ok(count) => {
                    self.scatter(buffer.get(..count).unwrap_or_default(), at, &mut sum)?;
                    at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn decoded_range(&self, span: usize) -> Range<u64> {
        let span = self.blob.spans.get(span);
        span.map_or(0..0, |span| span.decoded.clone())
    }

    /// A file without a name that has the verified bytes of a span.
    fn through_a_file(
        &self,
        span: usize,
        reader: &SpanReader<Arc<dyn BlobSource>>,
    ) -> Result<File, ContentError> {
        let mut file = tempfile::tempfile_in(&self.folder)?;
        reader.stream(span, |piece| file.write_all(piece))?;
        file.rewind()?;
        Ok(file)
    }

    /// Writes what `bytes`, which stand at `tar_offset`, have of files to their places.
    ///
    /// Places ascend as data do in the tar, and what is between them is padding: so one write does
    /// for many small files.
    fn scatter(&self, bytes: &[u8], tar_offset: u64, sum: &mut blake3::Hasher) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        let end = tar_offset.saturating_add(length);
        let mut gathered: Vec<u8> = Vec::new();
        let mut start: u64 = 0;
        for placed in self.layout.placed_in(tar_offset..end) {
            let from = usize::try_from(placed.tar_offset.saturating_sub(tar_offset));
            let length = usize::try_from(placed.length);
            let (from, length) = (
                from.map_err(io::Error::other)?,
                length.map_err(io::Error::other)?,
            );
            let piece = bytes.get(from..).and_then(|rest| rest.get(..length));
            let piece = piece.ok_or(io::ErrorKind::InvalidData)?;
            let gap = placed.cache_offset.saturating_sub(start);
            let gap = usize::try_from(gap).unwrap_or(usize::MAX);
            if gathered.is_empty() || gap.saturating_add(length) > PIECE {
                self.file.write(start, &gathered)?;
                gathered.clear();
                start = placed.cache_offset;
            } else {
                gathered.resize(gap, 0);
            }
            sum.update(piece);
            gathered.extend_from_slice(piece);
        }
        self.file.write(start, &gathered)
    }
}
