//! Which thread serves a queue.

use crate::back_off::BackOff;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The state of a queue that one thread serves at a time: whether that thread is in a blocking
/// section, in which another can claim the queue.
#[derive(Debug, Default)]
pub struct HandOff {
    /// Counts how often a section was entered, and ended by its thread or by a claim: odd within one.
    turns: AtomicU64,
    /// Refuses sections after a hand-off.
    back_off: BackOff,
}

/// One blocking section of the thread that serves a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockingSection(u64);

impl HandOff {
    /// The thread that serves the queue turns to something that may last; none if it should not.
    #[inline]
    pub(crate) fn enter(&self) -> Option<BlockingSection> {
        if self.back_off.refuses() {
            return None;
        }
        // Nobody else changes the count outside of a section.
        let section = self.turns.load(Ordering::Relaxed).wrapping_add(1);
        // SeqCst: the monitor goes to sleep, then looks here; this is stored, then its sleep is seen.
        self.turns.swap(section, Ordering::SeqCst);
        Some(BlockingSection(section))
    }

    /// Ends a section. False if somebody else did so before.
    #[inline]
    fn end(&self, section: BlockingSection) -> bool {
        let next = section.0.wrapping_add(1);
        self.turns
            .compare_exchange(section.0, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The thread itself ends its section. False if the queue was claimed by another meanwhile.
    #[inline]
    pub(crate) fn exit(&self, section: BlockingSection) -> bool {
        let in_time = self.end(section);
        if in_time {
            self.back_off.in_time();
        }
        in_time
    }

    /// The section that the thread is in.
    pub fn section(&self) -> Option<BlockingSection> {
        let turns = self.turns.load(Ordering::SeqCst);
        (turns & 1 == 1).then_some(BlockingSection(turns))
    }

    /// Claims the queue of a thread that is in that section. False if it has exited it, or another
    /// has claimed the queue.
    pub fn claim(&self, section: BlockingSection) -> bool {
        let claimed = self.end(section);
        if claimed {
            self.back_off.late();
        }
        claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::back_off::FIRST;

    fn in_shuttle(test: fn()) {
        shuttle::check_dfs(test, None);
    }

    #[test]
    fn a_section_that_ends_in_time_cannot_be_claimed() {
        in_shuttle(|| {
            let queue = HandOff::default();
            assert_eq!(queue.section(), None);
            let first = queue.enter().unwrap();
            assert_eq!(queue.section(), Some(first));
            assert!(queue.exit(first));
            assert!(!queue.claim(first), "it is over");
            let second = queue.enter().unwrap();
            assert_ne!(first, second);
            assert!(!queue.claim(first) && queue.exit(second));
        });
    }

    #[test]
    fn a_section_is_claimed_once_and_those_that_follow_are_refused_for_a_while() {
        in_shuttle(|| {
            let queue = HandOff::default();
            let claimed = |refused| {
                assert!((0..refused).all(|_| queue.enter().is_none()));
                let section = queue.enter().unwrap();
                assert!(queue.claim(section) && !queue.claim(section));
                assert!(!queue.exit(section));
            };
            claimed(0);
            claimed(FIRST);
            assert!((0..2 * FIRST).all(|_| queue.enter().is_none()));
            let section = queue.enter().unwrap();
            assert!(queue.exit(section), "all is well again");
            claimed(0);
            claimed(FIRST);
        });
    }
}
