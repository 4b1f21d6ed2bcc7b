//! Whether a guest waits for content.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Who waits for content, and since when nobody does.
#[derive(Debug)]
pub(crate) struct Demand {
    waiting: AtomicUsize,
    /// Milliseconds after `begin` at which somebody waited last.
    last: AtomicU64,
    begin: Instant,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            begin: Instant::now(),
        }
    }
}

impl Demand {
    /// Somebody waits as long as what is returned lives.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    /// Whether nobody has waited for so long.
    pub(crate) fn is_quiet_for(&self, quiet: Duration) -> bool {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let last = Duration::from_millis(self.last.load(Ordering::SeqCst));
        self.begin.elapsed().saturating_sub(last) >= quiet
    }
}

/// Somebody waits for content.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Demand);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.fetch_max(now, Ordering::SeqCst);
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
