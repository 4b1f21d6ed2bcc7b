//! The limit of what stays on this host: content that the bucket has, and nobody uses just now, makes room for other. What
//! nobody has open goes first; a guest that opens nothing has much open that it does not use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use vfsd_backend::{Result, StripedCounter};

use super::Live;
use crate::Volume;
use crate::content::Idle;
use crate::core::Core;
use crate::data::DataFolder;
use crate::layout::Layout;

/// Data files are looked at when they may have grown by this part of the limit.
const STEP: u64 = 16;
/// They are looked at again, where too much was here that could not go, after so many times as long as the last time took.
const PAUSE: u32 = 20;

/// How much may be here, and how much came since the data files were looked at.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: Option<u64>,
    grown: AtomicU64,
    hits: StripedCounter,
    misses: AtomicU64,
    fetched: AtomicU64,
    evicted: AtomicU64,
    /// When to look again although nothing came: too much was here, and could not go.
    again: Mutex<Option<Instant>>,
}

impl Cache {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            // What was here before counts, too.
            grown: AtomicU64::new(u64::MAX / 2),
            hits: StripedCounter::default(),
            misses: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            again: Mutex::new(None),
        }
    }

    /// How many bytes may be here; without a number, all.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// A read found all of its content here.
    pub(crate) fn hit(&self) {
        self.hits.add(1);
    }

    /// A read has to wait for content that the bucket alone has.
    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Content came from the bucket.
    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Content came. True: it is time to look.
    pub(super) fn grown(&self, bytes: u64) -> bool {
        let before = self.grown.fetch_add(bytes, Ordering::Relaxed);
        self.limit
            .is_some_and(|limit| before.saturating_add(bytes) > limit / STEP)
    }
}

/// What came of keeping content on this host since the volume was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Reads whose content was here.
    pub hits: u64,
    /// Reads that had to wait for the bucket.
    pub misses: u64,
    /// Bytes of content that came from the bucket, asked for or ahead of who reads.
    pub fetched: u64,
    /// Bytes of content that made room for others.
    pub evicted: u64,
}

/// Looks at what a volume keeps here, and does not keep it open.
#[derive(Debug, Clone)]
pub struct CacheWatch(Weak<Core>);

impl CacheWatch {
    /// What came of it until now. `None` for a volume in a directory, and for one that is closed.
    pub fn look(&self) -> Option<CacheUse> {
        let core = self.0.upgrade()?;
        let cache = &core.live.as_deref()?.cache;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(CacheUse {
            hits: cache.hits.sum(),
            misses: value(&cache.misses),
            fetched: value(&cache.fetched),
            evicted: value(&cache.evicted),
        })
    }
}

impl Volume {
    /// Something that tells what came of keeping content on this host.
    pub fn watch_cache(&self) -> CacheWatch {
        CacheWatch(Arc::downgrade(self.core()))
    }
}

/// Removes data files, those that were not used for the longest time first, if there is more than there may be.
pub(super) fn trim_if_due(core: &Arc<Core>, live: &Live, layout: &Layout) {
    let Some(limit) = live.cache.limit else {
        return;
    };
    let started = Instant::now();
    let again = live.cache.again.lock().is_some_and(|at| at <= started);
    if !again && !live.cache.grown(0) {
        return;
    }
    live.cache.grown.store(0, Ordering::Relaxed);
    let is_within = trim(core, live, layout, limit).unwrap_or_else(|error| {
        tracing::warn!(%error, "volume: the cache cannot be made smaller");
        true
    });
    let pause = started.elapsed().saturating_mul(PAUSE);
    *live.cache.again.lock() = (!is_within).then(|| started.checked_add(pause)).flatten();
}

/// Whether no more is here than may be.
fn trim(core: &Arc<Core>, live: &Live, layout: &Layout, limit: u64) -> Result<bool> {
    let mut files = DataFolder::usage(&layout.data())?;
    let mut total = files
        .iter()
        .fold(0_u64, |sum, (_, _, bytes)| sum.saturating_add(*bytes));
    if total <= limit {
        return Ok(true);
    }
    // Not at once again.
    let goal = limit.saturating_sub(limit / STEP);
    files.sort_unstable();
    for idle in [Idle::Stays, Idle::Goes] {
        let mut staying = Vec::new();
        for (used, ino, bytes) in files {
            if total <= goal {
                break;
            }
            let gone = !live.dirty.is_dirty(ino)
                && match core.inode(ino) {
                    Ok(inode) => inode.evict(idle)?,
                    // On its way out.
                    Err(_) => false,
                };
            if gone {
                total = total.saturating_sub(bytes);
                live.cache.evicted.fetch_add(bytes, Ordering::Relaxed);
            } else {
                staying.push((used, ino, bytes));
            }
        }
        files = staying;
    }
    Ok(total <= limit)
}
