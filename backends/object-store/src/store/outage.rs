//! An outage of a store, for whoever reads the log: a line when requests begin to be repeated in vain, and one when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::Error;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::{is_unreachable, passing};

/// What passes sooner is not told.
const BLIP: Duration = Duration::from_secs(1);
/// The next outage is told after this time at the earliest.
const QUIET: Duration = Duration::from_secs(60);

/// What was told of a store.
#[derive(Debug)]
pub(super) struct Outage {
    store: Arc<str>,
    /// When that it does not answer was told last.
    last: Mutex<Option<Instant>>,
    /// It was, and the store has not answered since.
    told: AtomicBool,
}

impl Outage {
    /// Nothing was told of the store.
    pub(super) fn of(store: &str) -> Self {
        Self {
            store: store.into(),
            last: Mutex::new(None),
            told: AtomicBool::new(false),
        }
    }

    /// A request has failed so often, the first time so long ago, and is repeated for as long as is `left`. Tells of it
    /// unless it may pass at once: who cannot be reached does not come back in a moment.
    pub(super) fn failed(&self, failures: u32, elapsed: Duration, left: Duration, error: &Error) {
        if failures < 2 && elapsed < BLIP && !is_unreachable(error) {
            return;
        }
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            return;
        }
        *last = Some(now);
        drop(last);
        self.told.store(true, Ordering::Relaxed);
        tracing::warn!(
            "{} fails: {}; requests are repeated, this one for {} s",
            self.store,
            passing(error),
            left.as_secs()
        );
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        // Nearly always it was not.
        if self.told.load(Ordering::Relaxed) && self.told.swap(false, Ordering::Relaxed) {
            tracing::info!("{} answers again", self.store);
        }
    }

    /// Whether an outage was told that is not over.
    #[cfg(test)]
    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}
