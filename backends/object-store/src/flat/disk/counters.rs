//! What a disk's cache was good for.

use std::sync::atomic::{AtomicU64, Ordering};

/// It is not known how much is there.
const UNKNOWN: u64 = u64::MAX;

/// What came of looking into a cache on the disk since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Reads of blocks that were there.
    pub hits: u64,
    /// Blocks that were asked of the service, because they were not.
    pub misses: u64,
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were removed by this process to make room.
    pub evicted: u64,
    /// About how many bytes there are; not known before the first write of this process.
    pub bytes: Option<u64>,
    /// About how many there may be.
    pub limit: u64,
}

#[derive(Debug)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    written: AtomicU64,
    evicted: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            written: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            bytes: AtomicU64::new(UNKNOWN),
        }
    }

    pub(super) fn look(&self, limit: u64) -> DiskUse {
        let bytes = load(&self.bytes);
        DiskUse {
            hits: load(&self.hits),
            misses: load(&self.misses),
            written: load(&self.written),
            evicted: load(&self.evicted),
            bytes: (bytes != UNKNOWN).then_some(bytes),
            limit,
        }
    }

    pub(super) fn found(&self, blocks: u64) {
        add(&self.hits, blocks);
    }

    pub(super) fn missed(&self) {
        add(&self.misses, 1);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        add(&self.written, bytes);
        let more = |before| (before != UNKNOWN).then(|| u64::saturating_add(before, bytes));
        // Where it is not known, it is found out soon.
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The directory was looked through.
    pub(super) fn counted(&self, bytes: u64, evicted: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        add(&self.evicted, evicted);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
