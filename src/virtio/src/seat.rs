//! Who serves a queue, and how another thread takes over from one that is held up.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::lookout::Lookout;

/// After a thread was relieved, so many pieces of work that may wait go to the runtime, because a
/// storage that was slow once often is again. Each time in a row it is twice as many: the thread
/// may also just have been put aside on a busy host.
const WARY_AT_FIRST: u32 = 4;

/// The most of them.
const WARY_AT_LAST: u32 = 256;

/// The one seat at a queue.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Counts how often the thread left, came back or was relieved: odd while it is away.
    turns: AtomicU64,
    /// Pieces of work for which the thread does not leave any more.
    wary: AtomicU32,
    /// How many it was the last time; none after work that was over in time.
    last_wary: AtomicU32,
}

/// The absence of a thread from its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absence(u64);

impl Seat {
    /// The thread that has the seat turns to something that may last; none if it should not.
    fn leave(&self) -> Option<Absence> {
        let wary = self.wary.load(Ordering::Relaxed);
        if wary > 0 {
            self.wary.store(wary.saturating_sub(1), Ordering::Relaxed);
            return None;
        }
        // Nobody else changes the count while the thread is there.
        let absence = self.turns.load(Ordering::Relaxed).wrapping_add(1);
        // SeqCst: the lookout goes to sleep, then looks here; this is stored, then its sleep is seen.
        self.turns.swap(absence, Ordering::SeqCst);
        Some(Absence(absence))
    }

    /// Ends an absence, for the thread itself or for the one that takes its seat. False if
    /// somebody else did so before.
    fn end(&self, absence: Absence) -> bool {
        let next = absence.0.wrapping_add(1);
        self.turns
            .compare_exchange(absence.0, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The thread itself ends its absence. False if it was relieved.
    fn come_back(&self, absence: Absence) -> bool {
        let in_time = self.end(absence);
        if in_time && self.last_wary.load(Ordering::Relaxed) > 0 {
            self.last_wary.store(0, Ordering::Relaxed);
        }
        in_time
    }

    /// The absence that lasts, if the thread is away.
    pub(crate) fn absence(&self) -> Option<Absence> {
        let turns = self.turns.load(Ordering::SeqCst);
        (turns & 1 == 1).then_some(Absence(turns))
    }

    /// Takes the seat from a thread that is away. False if it came back, or another has it.
    pub(crate) fn take_over(&self, absence: Absence) -> bool {
        let taken = self.end(absence);
        if taken {
            let last = self.last_wary.load(Ordering::Relaxed);
            let wary = last.saturating_mul(2).clamp(WARY_AT_FIRST, WARY_AT_LAST);
            self.last_wary.store(wary, Ordering::Relaxed);
            self.wary.store(wary, Ordering::Relaxed);
        }
        taken
    }
}

/// A thread on the seat of a queue.
#[derive(Debug)]
pub(crate) struct Sitter {
    seat: Arc<Seat>,
    lookout: Arc<Lookout>,
    absence: Cell<Option<Absence>>,
    relieved: Cell<bool>,
}

impl Sitter {
    /// The calling thread, which has the seat.
    pub(crate) fn new(seat: Arc<Seat>, lookout: Arc<Lookout>) -> Self {
        Self {
            seat,
            lookout,
            absence: Cell::new(None),
            relieved: Cell::new(false),
        }
    }

    /// Whether another thread has the seat now.
    pub(crate) fn is_relieved(&self) -> bool {
        self.relieved.get()
    }
}

impl vfsd_backend::Seat for Sitter {
    fn leave(&self) -> bool {
        // Without a seat nobody is held up.
        if self.is_relieved() {
            return true;
        }
        let absence = self.seat.leave();
        self.absence.set(absence);
        if absence.is_some() {
            self.lookout.watch();
        }
        absence.is_some()
    }

    fn come_back(&self) {
        if let Some(absence) = self.absence.take()
            && !self.seat.come_back(absence)
        {
            self.relieved.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use vfsd_backend::Seat as _;

    use super::*;

    fn sitter() -> Sitter {
        Sitter::new(Arc::default(), Lookout::new())
    }

    #[test]
    fn a_thread_that_comes_back_in_time_keeps_its_seat() {
        let sitter = sitter();
        assert_eq!(sitter.seat.absence(), None);
        assert!(sitter.leave());
        let absence = sitter.seat.absence().unwrap();
        sitter.come_back();
        assert!(!sitter.is_relieved());
        assert!(!sitter.seat.take_over(absence), "it is over");
        assert!(sitter.leave());
        assert_ne!(sitter.seat.absence(), Some(absence), "another absence");
        sitter.come_back();
    }

    #[test]
    fn a_seat_is_taken_over_once_and_not_left_lightly_after_that() {
        let sitter = sitter();
        assert!(sitter.leave());
        let absence = sitter.seat.absence().unwrap();
        assert!(sitter.seat.take_over(absence));
        assert!(!sitter.seat.take_over(absence));
        sitter.come_back();
        assert!(sitter.is_relieved());
        assert!(sitter.leave(), "nobody depends on it any more");
        sitter.come_back();

        let next = Sitter::new(Arc::clone(&sitter.seat), Lookout::new());
        assert_eq!(next.seat.absence(), None);
        assert!((0..WARY_AT_FIRST).all(|_| !next.leave()));
        assert!(next.leave());
        assert!(next.seat.take_over(next.seat.absence().unwrap()));
        next.come_back();

        let third = Sitter::new(Arc::clone(&sitter.seat), Lookout::new());
        assert!(
            (0..2 * WARY_AT_FIRST).all(|_| !third.leave()),
            "twice as long"
        );
        assert!(third.leave());
        third.come_back();
        assert!(!third.is_relieved());
        assert!(third.leave(), "all is well again");
        assert!(third.seat.take_over(third.seat.absence().unwrap()));
        third.come_back();
        let fourth = Sitter::new(Arc::clone(&sitter.seat), Lookout::new());
        assert!((0..WARY_AT_FIRST).all(|_| !fourth.leave()));
        assert!(fourth.leave());
        fourth.come_back();
    }
}
