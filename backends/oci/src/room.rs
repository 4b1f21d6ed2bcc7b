//! Keeping a cache within its size while it is filled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::catalogue::{Catalogue, slack};
use crate::content::Room;
use crate::counters::Counters;

/// Looks at the size of a cache whenever so much was added that it may be too large.
pub(crate) struct CacheRoom {
    catalogue: Catalogue,
    limit: u64,
    /// Bytes added since it looked.
    filled: AtomicU64,
    /// Held by the one who looks: who has filled too much waits for that.
    looking: Mutex<()>,
    counters: Arc<Counters>,
}

impl CacheRoom {
    /// For the cache in a folder, of which others may fill a part.
    pub(crate) fn new(cache: &Path, limit: u64, counters: Arc<Counters>) -> Self {
        Self {
            catalogue: Catalogue::new(cache),
            limit,
            filled: AtomicU64::new(0),
            looking: Mutex::new(()),
            counters,
        }
    }

    /// What was added, if it is enough to look.
    fn enough(&self) -> Option<u64> {
        let filled = self.filled.load(Ordering::Relaxed);
        Some(filled).filter(|filled| *filled >= slack(self.limit))
    }
}

impl Room for CacheRoom {
    fn filled(&self, bytes: u64) {
        self.filled.fetch_add(bytes, Ordering::Relaxed);
    }

    fn make(&self) {
        if self.enough().is_none() {
            return;
        }
        let _looking = self.looking.lock();
        let Some(filled) = self.enough() else {
            return;
        };
        // Who keeps the cache for the daemon meets the same error, and says so.
        match self.catalogue.evict(self.limit) {
            Ok(evicted) => self.counters.evicted(evicted.bytes),
            Err(error) => tracing::debug!("the cache of images cannot be kept small: {error}"),
        }
        self.filled.fetch_sub(filled, Ordering::Relaxed);
    }
}
