//! What was asked of registries for an image, and what came of reading it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::StripedCounter;

/// What registries are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Manifests and indexes.
    Manifest,
    /// Layers, configurations, and indexes of layers.
    Blob,
    /// What was pushed beside an image.
    Referrers,
    /// Tokens for one of the others.
    Token,
}

impl RequestKind {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Manifest, Self::Blob, Self::Referrers, Self::Token];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::Token => "token",
        }
    }
}

/// What was asked for of one kind. Mirrors count as registries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests as they were sent: those that were repeated, redirected or refused, too.
    pub sent: u64,
    /// Bytes of successful answers.
    pub bytes: u64,
    /// What was tried again after a failure.
    pub retries: u64,
    /// What was given up.
    pub failures: u64,
}

/// What [`Counters`] stood at, but for requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans that a guest read and that were in the cache.
    pub cached: u64,
    /// Spans that were fetched or decoded for a guest that read them.
    pub fetched: u64,
    /// Spans that a guest read while they were being fetched or decoded for somebody else.
    pub waited: u64,
    /// Spans that were put into the cache, whether a guest had asked for them or not.
    pub filled: u64,
    /// Spans that could not be.
    pub failed: u64,
    /// How often bytes, wherever they were from, were not what their digest says, or could not be decoded.
    pub wrong: u64,
    /// Bytes that were taken away from the cache to make room.
    pub evicted: u64,
}

/// Counts all that concerns one image. Whoever counts waits for nobody.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [RequestCounters; RequestKind::ALL.len()],
    cached: StripedCounter,
    fetched: AtomicU64,
    waited: AtomicU64,
    filled: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct RequestCounters {
    sent: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
}

/// How a span came to be there that a guest read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Cached,
    Fetched,
    Waited,
}

impl Counters {
    /// What registries were asked for of one kind.
    pub fn requests(&self, kind: RequestKind) -> Requests {
        let of_kind = self.of(kind);
        Requests {
            sent: load(&of_kind.sent),
            bytes: load(&of_kind.bytes),
            retries: load(&of_kind.retries),
            failures: load(&of_kind.failures),
        }
    }

    /// The present figures.
    pub fn counts(&self) -> Counts {
        Counts {
            cached: self.cached.sum(),
            fetched: load(&self.fetched),
            waited: load(&self.waited),
            filled: load(&self.filled),
            failed: load(&self.failed),
            wrong: load(&self.wrong),
            evicted: load(&self.evicted),
        }
    }

    /// Bytes were taken away from the image's cache.
    pub fn evicted(&self, bytes: u64) {
        add(&self.evicted, bytes);
    }

    /// Counts requests of one kind.
    pub(crate) fn meter(self: &Arc<Self>, kind: RequestKind) -> Meter {
        Meter {
            counters: Arc::clone(self),
            kind,
        }
    }

    pub(crate) fn retried(&self, kind: RequestKind) {
        add(&self.of(kind).retries, 1);
    }

    pub(crate) fn given_up(&self, kind: RequestKind) {
        add(&self.of(kind).failures, 1);
    }

    /// A guest read so many spans.
    pub(crate) fn read(&self, spans: u64, found: Found) {
        match found {
            Found::Cached => self.cached.add(spans),
            Found::Fetched => add(&self.fetched, spans),
            Found::Waited => add(&self.waited, spans),
        }
    }

    pub(crate) fn filled(&self) {
        add(&self.filled, 1);
    }

    pub(crate) fn failed(&self, spans: usize) {
        add(&self.failed, u64::try_from(spans).unwrap_or(u64::MAX));
    }

    pub(crate) fn wrong(&self) {
        add(&self.wrong, 1);
    }

    fn of(&self, kind: RequestKind) -> &RequestCounters {
        let [manifest, blob, referrers, token] = &self.requests;
        match kind {
            RequestKind::Manifest => manifest,
            RequestKind::Blob => blob,
            RequestKind::Referrers => referrers,
            RequestKind::Token => token,
        }
    }
}

/// Counts requests of one kind, and what comes of them.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    counters: Arc<Counters>,
    kind: RequestKind,
}

impl Meter {
    pub(crate) fn sent(&self) {
        add(&self.counters.of(self.kind).sent, 1);
    }

    pub(crate) fn received(&self, bytes: u64) {
        add(&self.counters.of(self.kind).bytes, bytes);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_is_counted_for_itself() {
        let counters = Arc::new(Counters::default());
        for (number, kind) in (1..).zip(RequestKind::ALL) {
            let meter = counters.meter(kind);
            (0..number).for_each(|_| meter.sent());
            meter.received(number * 10);
            counters.given_up(kind);
        }
        for (number, kind) in (1..).zip(RequestKind::ALL) {
            let expected = Requests {
                sent: number,
                bytes: number * 10,
                retries: 0,
                failures: 1,
            };
            assert_eq!(counters.requests(kind), expected, "{}", kind.name());
        }
    }
}
