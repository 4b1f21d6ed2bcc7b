//! Waiting until nobody uses a thing any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Counts users, and lets one wait for there to be none. Coming and going cost an atomic
/// operation each as long as nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Users {
    count: AtomicUsize,
    waited_for: AtomicBool,
    turn: Mutex<()>,
    none: Condvar,
}

impl Users {
    /// One more.
    pub(crate) fn enter(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// One less: the counterpart of an [`enter`](Self::enter).
    pub(crate) fn leave(&self) {
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        // Both sides are SeqCst: either this sees the flag of a waiter, or the waiter the count.
        if before == 1 && self.waited_for.load(Ordering::SeqCst) {
            let _turn = self.turn.lock();
            self.none.notify_all();
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until there is none, at most for `limit`, and says whether that was so.
    pub(crate) fn wait_for_none(&self, limit: Duration) -> bool {
        let deadline = Instant::now().checked_add(limit);
        let mut turn = self.turn.lock();
        self.waited_for.store(true, Ordering::SeqCst);
        while self.count() > 0 {
            let remaining = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match remaining {
                Some(Duration::ZERO) => break,
                Some(remaining) => drop(self.none.wait_for(&mut turn, remaining)),
                None => self.none.wait(&mut turn),
            }
        }
        self.waited_for.store(false, Ordering::SeqCst);
        self.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_wait_ends_when_the_last_user_leaves() {
        let users = Arc::new(Users::default());
        users.enter();
        users.enter();
        assert!(!users.wait_for_none(Duration::ZERO));
        let others = Arc::clone(&users);
        let leaver = std::thread::spawn(move || {
            others.leave();
            others.leave();
        });
        assert!(users.wait_for_none(Duration::MAX));
        leaver.join().unwrap();
        assert_eq!(users.count(), 0);
    }

    #[test]
    fn a_wait_for_nobody_ends_at_once() {
        assert!(Users::default().wait_for_none(Duration::ZERO));
    }
}
