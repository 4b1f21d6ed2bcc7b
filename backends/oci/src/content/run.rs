//! Filling many spans with one read of the layer.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::file::{ABSENT, WRITTEN};
use super::flight::Landing;
use super::{ContentError, LayerContent};
use crate::blob::{BlobSource, SpanReader};

impl LayerContent {
    /// The first span from `from` on that is not there, and those after it that may be read together with it: at most
    /// `most` bytes of the layer, or one span. None when all is there.
    pub(crate) fn missing_run(&self, from: usize, most: u64) -> Option<Range<usize>> {
        let spans = &self.index.blob.spans;
        let first = (from..spans.len()).find(|span| !self.residency.has(*span))?;
        let start = spans.get(first)?.compressed.start;
        let fits = |span: usize| {
            let end = spans.get(span).map_or(u64::MAX, |span| span.compressed.end);
            !self.residency.has(span) && end.saturating_sub(start) <= most
        };
        let mut end = first.saturating_add(1);
        while end < spans.len() && fits(end) {
            end = end.saturating_add(1);
        }
        Some(first..end)
    }

    /// Makes spans resident, with one read of the layer for all that are missing. Whoever asks for one of them
    /// meanwhile waits; those that others are filling already are left to them. Blocks, as
    /// [`fill`](Self::fill) does.
    ///
    /// Memory: the bytes of the run.
    ///
    /// # Errors
    /// The first that a span met; the others were tried all the same.
    pub(crate) fn fill_run(&self, spans: Range<usize>) -> Result<(), ContentError> {
        let mut landings: Vec<Landing<'_>> = Vec::new();
        for span in spans.filter(|span| *span < self.index.blob.spans.len()) {
            if self.residency.has(span) {
                continue;
            }
            let Some(mut landing) = self.flights.begin(span) else {
                continue;
            };
            // By another thread before it was ours, or by another daemon.
            if self.residency.has(span) || self.file.state(span)? != ABSENT {
                self.residency.set(span);
                landing.outcome = Ok(());
                continue;
            }
            landings.push(landing);
        }
        let place = |landing: Option<&Landing<'_>>| {
            let span = self.index.blob.spans.get(landing?.span)?;
            Some(span.compressed.clone())
        };
        let ends = place(landings.first()).zip(place(landings.last()));
        let Some((first, last)) = ends else {
            return Ok(());
        };
        let source: Arc<dyn BlobSource> = match landings.len() {
            1 => Arc::clone(self.reader.source()),
            _ => match self.read(first.start..last.end) {
                Ok(read) => Arc::new(read),
                Err(error) => {
                    let error = ContentError::from(error);
                    for landing in &mut landings {
                        landing.outcome = Err(error.clone());
                    }
                    return Err(error);
                }
            },
        };
        let reader = SpanReader::new(source, Arc::clone(&self.index.blob));
        let mut outcome = Ok(());
        for mut landing in landings {
            landing.outcome = self.settle(landing.span, &reader);
            outcome = outcome.and(landing.outcome.clone());
        }
        outcome
    }

    /// Fetches a span that is ours to fill, and says that it is there.
    pub(super) fn settle(
        &self,
        span: usize,
        reader: &SpanReader<Arc<dyn BlobSource>>,
    ) -> Result<(), ContentError> {
        let sum = self.fetch(span, reader)?;
        self.file.set_sum(span, sum)?;
        self.file.set_state(span, WRITTEN)?;
        self.residency.set(span);
        Ok(())
    }

    fn read(&self, range: Range<u64>) -> io::Result<Piece> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.reader.source().read_at(range.start, &mut bytes)?;
        Ok(Piece {
            start: range.start,
            bytes,
        })
    }
}

/// A piece of a blob, in memory.
struct Piece {
    start: u64,
    bytes: Vec<u8>,
}

impl BlobSource for Piece {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let within = offset.checked_sub(self.start);
        let within = within.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.bytes.read_at(within, buffer)
    }
}
