//! Content that stays in the cache for as long as it is read.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use vfsd_backend::Wait;

use super::pins::{Lock, Pins, lock, lock_all};
use super::{ContentError, LayerContent};

/// How often it is noted that a span was read, in milliseconds.
const NOTED: u64 = 1000;

/// Who sees to it that a cache stays within its size.
pub(crate) trait Room: Send + Sync {
    /// So many bytes were added to the cache.
    fn filled(&self, bytes: u64);

    /// Takes something away, if enough was added.
    fn make(&self);
}

/// What a content has whose cache is bounded.
pub(super) struct Bounded {
    pins: Pins,
    room: Arc<dyn Room>,
    /// For each span when it was noted last that it was read, in milliseconds since 1970.
    noted: Box<[AtomicU64]>,
}

impl Bounded {
    pub(super) fn new(room: Arc<dyn Room>, spans: usize) -> Self {
        Self {
            pins: Pins::default(),
            room,
            noted: std::iter::repeat_with(AtomicU64::default)
                .take(spans)
                .collect(),
        }
    }
}

impl LayerContent {
    /// Keeps the spans that hold data of `range` of an entry's file from being taken away, as long as what is returned
    /// lives: whether they [are there](Self::is_resident) is certain then, and they can be filled. None where one is
    /// being taken away at the moment and a wait was refused.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn pin(
        &self,
        entry: usize,
        range: Range<u64>,
        wait: Wait,
    ) -> Result<Option<Pinned<'_>>, ContentError> {
        let pinned = self.pin_all(What::File(entry, range), wait)?;
        if let (Some(bounded), Some(pinned)) = (&self.bounded, &pinned) {
            let now = now();
            pinned.each(|spans| spans.for_each(|span| self.note(bounded, span, now)));
        }
        Ok(pinned)
    }

    /// The same for a span, which does not count as read by it.
    pub(super) fn pin_span(
        &self,
        span: usize,
        wait: Wait,
    ) -> Result<Option<Pinned<'_>>, ContentError> {
        let after = span.saturating_add(1);
        self.pin_all(What::Spans(span..after), wait)
    }

    fn pin_all(&self, what: What, wait: Wait) -> Result<Option<Pinned<'_>>, ContentError> {
        let mut pinned = Pinned {
            content: self,
            what: What::Nothing,
            ranges: 0,
        };
        if self.bounded.is_none() {
            return Ok(Some(pinned));
        }
        let mut result = Ok(true);
        let mut held: usize = 0;
        what.each(self, |spans| {
            if !matches!(result, Ok(true)) {
                return;
            }
            result = self.hold(&spans, wait);
            if matches!(result, Ok(true)) {
                held = held.saturating_add(1);
            }
        });
        pinned.what = what;
        pinned.ranges = held;
        // Those that were held already are let go where not all could be.
        Ok(result?.then_some(pinned))
    }

    fn hold(&self, spans: &Range<usize>, wait: Wait) -> io::Result<bool> {
        let Some(bounded) = &self.bounded else {
            return Ok(true);
        };
        while !bounded.pins.hold(&self.file.writable, spans)? {
            if wait == Wait::Refused {
                return Ok(false);
            }
            // Whoever takes them away is soon done. The lock is another description's, and holds nothing.
            let waiting = &self.file.readable;
            lock(waiting, spans, Lock::Shared, Wait::Allowed)?;
            lock(waiting, spans, Lock::None, Wait::Refused)?;
        }
        // What another thread or another daemon has made of them meanwhile.
        let known = self.file.states(spans, |span, is_there| match is_there {
            true => self.residency.set(span),
            false => self.residency.clear(span),
        });
        if known.is_err() {
            bounded.pins.release(&self.file.writable, spans);
        }
        known.map(|()| true)
    }

    /// Notes that a span was read.
    fn note(&self, bounded: &Bounded, span: usize, now: u64) {
        let Some(noted) = bounded.noted.get(span) else {
            return;
        };
        if now.saturating_sub(noted.load(Ordering::Relaxed)) >= NOTED {
            noted.store(now, Ordering::Relaxed);
            // It is only taken away earlier without.
            let _ = self.file.set_read(span, now);
        }
    }

    /// A span of so many bytes was filled just now.
    pub(super) fn note_filled(&self, span: usize) {
        if let Some(bounded) = &self.bounded {
            self.note(bounded, span, now());
            let decoded = self.decoded_range(span);
            bounded
                .room
                .filled(decoded.end.saturating_sub(decoded.start));
        }
    }

    /// Takes away what is too much.
    pub(super) fn make_room(&self) {
        if let Some(bounded) = &self.bounded {
            bounded.room.make();
        }
    }

    /// Keeps all spans for good.
    pub(super) fn pin_for_good(&self) -> io::Result<()> {
        lock_all(&self.file.writable)
    }
}

/// Spans that are kept from being taken away.
pub(crate) struct Pinned<'a> {
    content: &'a LayerContent,
    what: What,
    /// How many of its ranges are held.
    ranges: usize,
}

enum What {
    Nothing,
    File(usize, Range<u64>),
    Spans(Range<usize>),
}

impl What {
    fn each(&self, content: &LayerContent, mut what: impl FnMut(Range<usize>)) {
        match self {
            Self::Nothing => {}
            Self::File(entry, range) => content.spans_of(*entry, range.clone()).for_each(what),
            Self::Spans(spans) => what(spans.clone()),
        }
    }
}

impl Pinned<'_> {
    fn each(&self, what: impl FnMut(Range<usize>)) {
        self.what.each(self.content, what);
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let Some(bounded) = &self.content.bounded else {
            return;
        };
        let mut left = self.ranges;
        self.each(|spans| {
            if left > 0 {
                left = left.saturating_sub(1);
                bounded.pins.release(&self.content.file.writable, &spans);
            }
        });
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
