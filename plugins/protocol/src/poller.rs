//! Looking for a message for a while before sleeping.
//!
//! To sleep until the other process has answered costs two wake-ups, each of which takes longer than most answers. So
//! whoever waits looks for a while, but only when that has paid off lately: one that waits in vain does it less and
//! less often.

use std::time::{Duration, Instant};

/// After so long other threads of the host are let in, between looks.
const GENEROUS_AFTER: Duration = Duration::from_micros(3);

/// How often in a row a message may come late, as one from a process that has to wake up first.
const LATE_AT_MOST: u32 = 4;

/// At most 2 to this power waits go by without looking.
const MOST_MISSES: u32 = 8;

/// Decides whether to look.
#[derive(Debug)]
pub struct Poller {
    /// Within this it was worth it.
    soon: Duration,
    /// The longest it looks.
    limit: Duration,
    /// Waits that go by before it looks again.
    skipped: u32,
    misses: u32,
    late: u32,
}

impl Poller {
    /// One that looks for `limit` at most, and goes on as long as messages mostly come within `soon`.
    pub fn new(soon: Duration, limit: Duration) -> Self {
        Self {
            soon,
            limit,
            skipped: 0,
            misses: 0,
            late: 0,
        }
    }

    /// Looks until `ready` has something, unless it did so in vain lately.
    pub fn poll<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(less) = self.skipped.checked_sub(1) {
            self.skipped = less;
            return None;
        }
        let start = Instant::now();
        loop {
            let found = ready();
            let elapsed = start.elapsed();
            if found.is_some() || elapsed >= self.limit {
                self.learn(elapsed);
                return found;
            }
            match elapsed < GENEROUS_AFTER {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
    }

    fn learn(&mut self, elapsed: Duration) {
        self.late = match elapsed <= self.soon {
            true => 0,
            false => self.late.saturating_add(1),
        };
        if self.late == 0 {
            self.misses = 0;
        } else if elapsed > self.limit || self.late >= LATE_AT_MOST {
            self.misses = self.misses.saturating_add(1).min(MOST_MISSES);
            self.skipped = (1_u32 << self.misses).saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends of looks as a clock would tell them.
    const SOON: Duration = Duration::from_micros(30);
    const LATE: Duration = Duration::from_micros(60);
    const NEVER: Duration = Duration::from_micros(101);

    fn poller() -> Poller {
        Poller::new(SOON, Duration::from_micros(100))
    }

    #[test]
    fn what_is_in_vain_is_done_less_and_less_often() {
        let mut poller = poller();
        for skipped in [1, 3, 7, 15, 31, 63, 127, 255, 255] {
            poller.learn(NEVER);
            assert_eq!(poller.skipped, skipped);
        }
        for _ in 0..255 {
            assert_eq!(poller.poll(|| -> Option<()> { panic!("not now") }), None);
        }
        assert_eq!(poller.poll(|| Some(7)), Some(7));
        poller.learn(SOON);
        poller.learn(NEVER);
        assert_eq!(poller.skipped, 1, "that it paid off is remembered");
    }

    #[test]
    fn who_is_always_late_is_not_waited_for() {
        let mut poller = poller();
        for skipped in [0, 0, 0, 1] {
            poller.learn(LATE);
            assert_eq!(poller.skipped, skipped);
        }
        poller.learn(SOON);
        poller.skipped = 0;
        for late in 0..LATE_AT_MOST - 1 {
            poller.learn(LATE);
            assert_eq!(poller.skipped, 0, "{late}");
        }
    }
}
