//! Filling many spans with one read of the layer.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vfsd_backend::Wait;

use super::file::{ABSENT, WRITTEN};
use super::flight::{Landing, Outcome};
use super::{ContentError, LayerContent};
use crate::blob::{BlobSource, SpanReader};
use crate::counters::Found;

/// How much of a layer that another host has is asked for at once, for whoever waits for a part of it: at least what a
/// link carries while a request is on its way, and more only for who has read what is before it.
const ASKED_AT_ONCE: RangeInclusive<u64> = 256 << 10..=1 << 20;

impl LayerContent {
    /// The first span from `from` on that is not there, and those after it that may be read together with it: at most
    /// `most` bytes of the layer, or one span. None when all is there.
    pub(crate) fn missing_run(&self, from: usize, most: u64) -> Option<Range<usize>> {
        let spans = &self.blob.spans;
        let first = (from..spans.len()).find(|span| !self.residency.has(*span))?;
        Some(first..self.run_end(first, most))
    }

    /// Where the run of missing spans ends that begins with `first`.
    fn run_end(&self, first: usize, most: u64) -> usize {
        let spans = &self.blob.spans;
        let start = spans.get(first).map_or(0, |span| span.compressed.start);
        let fits = |span: usize| {
            let end = spans.get(span).map_or(u64::MAX, |span| span.compressed.end);
            !self.residency.has(span) && end.saturating_sub(start) <= most
        };
        let mut end = first.saturating_add(1);
        while end < spans.len() && fits(end) {
            end = end.saturating_add(1);
        }
        end
    }

    /// How much is asked for at once for who wants the `wanted` spans: these, and as much again as is there before them.
    fn asked_at_once(&self, wanted: Range<usize>) -> u64 {
        let (least, most) = (*ASKED_AT_ONCE.start(), *ASKED_AT_ONCE.end());
        let mut before = wanted.start..wanted.start;
        while let Some(span) = before.start.checked_sub(1)
            && self.residency.has(span)
            && self.size_of_run(before.clone()) < most
        {
            before.start = span;
        }
        let read = self.size_of_run(before);
        self.size_of_run(wanted).max(read).clamp(least, most)
    }

    /// Makes the first of the `wanted` spans resident, which another host has, and with the same request those after it
    /// that are missing, too. Waits for whoever fills it already.
    pub(super) fn fill_neighbours(&self, wanted: Range<usize>) -> Result<Found, ContentError> {
        let (span, most) = (wanted.start, self.asked_at_once(wanted));
        let run = self.begin_run(span..self.run_end(span, most))?;
        match self.fetch_run(run).into_iter().next() {
            Some((_, outcome)) => outcome.map(|()| Found::Fetched),
            None => self.fill_one(span),
        }
    }

    /// Makes spans resident, with one read of the layer for those that are missing side by side. Whoever asks for one of
    /// them meanwhile waits; those that others are filling already are left to them. Blocks, as
    /// [`fill`](Self::fill) does.
    ///
    /// Memory: the bytes of the run.
    ///
    /// # Errors
    /// The first that a span met; the others were tried all the same.
    pub(crate) fn fill_run(&self, spans: Range<usize>) -> Result<(), ContentError> {
        let end = spans.end.min(self.blob.spans.len());
        let mut outcome = Ok(());
        let mut next = spans.start;
        while next < end {
            let run = self.begin_run(next..end)?;
            next = next.saturating_add(run.len().max(1));
            let filled = self.fetch_run(run).into_iter();
            outcome = filled.fold(outcome, |outcome, (_, filled)| outcome.and(filled));
        }
        self.make_room();
        outcome
    }

    /// Makes the spans the caller's to fill from the first one on that are missing, up to one that is there or that
    /// somebody else is filling: what is between two of the caller's would be read with them.
    fn begin_run(&self, spans: Range<usize>) -> Result<Vec<Landing<'_>>, ContentError> {
        let mut landings: Vec<Landing<'_>> = Vec::new();
        for span in spans.start..spans.end.min(self.blob.spans.len()) {
            if self.residency.has(span) {
                break;
            }
            let Some(mut landing) = self.flights.begin(span) else {
                break;
            };
            // By another thread before it was ours, or by another daemon.
            if self.residency.has(span) || self.file.state(span)? != ABSENT {
                self.residency.set(span);
                landing.outcome = Ok(());
                break;
            }
            landings.push(landing);
        }
        Ok(landings)
    }

    /// Fills spans that lie side by side, and says of each what it met.
    fn fetch_run(&self, mut landings: Vec<Landing<'_>>) -> Vec<(usize, Outcome)> {
        let place = |landing: Option<&Landing<'_>>| {
            let span = self.blob.spans.get(landing?.span)?;
            Some(span.compressed.clone())
        };
        let ends = place(landings.first()).zip(place(landings.last()));
        let Some((first, last)) = ends else {
            return Vec::new();
        };
        let source: Arc<dyn BlobSource> = match landings.len() {
            1 => Arc::clone(self.reader.source()),
            _ => match self.read(first.start..last.end, &landings) {
                Ok(read) => Arc::new(read),
                Err(error) => {
                    let error = ContentError::from(error);
                    self.counters.failed(landings.len());
                    for landing in &mut landings {
                        landing.outcome = Err(error.clone());
                    }
                    return landings.iter().map(Landing::told).collect();
                }
            },
        };
        let reader = SpanReader::new(source, Arc::clone(&self.blob));
        let mut filled = Vec::new();
        for mut landing in landings {
            landing.outcome = self.settle(landing.span, &reader);
            filled.push(landing.told());
        }
        filled
    }

    /// Fetches a span that is ours to fill, and says that it is there.
    pub(super) fn settle(
        &self,
        span: usize,
        reader: &SpanReader<Arc<dyn BlobSource>>,
    ) -> Result<(), ContentError> {
        let _pinned = self.pin_span(span, Wait::Allowed)?;
        if self.is_bounded() && self.residency.has(span) {
            return Ok(());
        }
        let failed = self.syncs_failed.load(Ordering::SeqCst);
        let kept = self.fetch(span, reader).and_then(|sum| {
            self.file.set_sum(span, sum)?;
            self.file.set_state(span, WRITTEN)?;
            self.residency.set(span);
            if self.syncs_failed.load(Ordering::SeqCst) != failed {
                // It may be what the disk did not take.
                self.residency.clear(span);
                self.file.set_state(span, ABSENT)?;
                return Err(io::Error::other("the disk failed while it was written").into());
            }
            Ok(())
        });
        self.count_filled(&kept);
        kept?;
        self.note_filled(span);
        Ok(())
    }

    fn count_filled(&self, kept: &Outcome) {
        match kept {
            Ok(()) => self.counters.filled(),
            Err(error) => {
                self.counters.failed(1);
                if matches!(error, ContentError::Span(error) if error.reason.is_of_content()) {
                    self.counters.wrong();
                }
            }
        }
    }

    /// What the layer has in `range`, the spans of `landings` from the first place where they are right.
    fn read(&self, range: Range<u64>, landings: &[Landing<'_>]) -> io::Result<Piece> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let check = |bytes: &[u8]| {
            landings.iter().try_for_each(|landing| {
                let place = self.blob.spans.get(landing.span);
                let place = place.map_or(0..0, |span| span.compressed.clone());
                let [start, end] = [place.start, place.end].map(|offset| {
                    let within = offset.saturating_sub(range.start);
                    usize::try_from(within).unwrap_or(usize::MAX)
                });
                let found = bytes.get(start..end).unwrap_or_default();
                self.blob.check(landing.span, found)
            })
        };
        let source = self.reader.source();
        source.read_right(range.start, &mut bytes, &check)?;
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
