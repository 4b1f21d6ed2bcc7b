//! A count that can be waited for to become zero.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex};

/// Counts what is in flight, and lets one thread wait for there to be nothing. Begin and end cost
/// an atomic operation each as long as nobody waits.
#[derive(Debug, Default)]
pub struct InFlightCount {
    count: AtomicUsize,
    waited_for: AtomicBool,
    turn: Mutex<()>,
    none: Condvar,
}

impl InFlightCount {
    /// One more.
    #[inline]
    pub fn begin(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// One less: the counterpart of a [`begin`](Self::begin).
    #[inline]
    pub fn end(&self) {
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        // Both sides are SeqCst: either this sees the flag of a waiter, or the waiter the count.
        if before == 1 && self.waited_for.load(Ordering::SeqCst) {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.none.notify_all();
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until there is none, at most for `limit`, and says whether that was so.
    pub fn wait_for_none(&self, limit: Duration) -> bool {
        let deadline = Instant::now().checked_add(limit);
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.waited_for.store(true, Ordering::SeqCst);
        while self.count() > 0 {
            let remaining = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            turn = match remaining {
                Some(Duration::ZERO) => break,
                Some(remaining) => {
                    let waited = self.none.wait_timeout(turn, remaining);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.none.wait(turn);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        self.waited_for.store(false, Ordering::SeqCst);
        self.count() == 0
    }
}
