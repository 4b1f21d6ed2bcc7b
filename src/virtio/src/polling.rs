//! Looking at the available ring for a while before sleeping.
//!
//! A driver that waits for each reply before it sends the next request sends it a few tens of
//! microseconds later. To sleep in between costs it a kick (an exit from the virtual machine), and
//! us the wake-up, both of which take about as long. So the thread looks at the ring for a while,
//! but only when that has paid off lately, as KVM does before it stops a virtual CPU
//! (`halt_poll_ns`, Documentation/virt/kvm/halt-polling.rst). A queue on which little happens is
//! not polled at all.

use std::time::{Duration, Instant};

/// How long the first looking lasts, after it would have paid off.
const FIRST: Duration = Duration::from_micros(10);

/// Looks between two glances at the clock.
const LOOKS: u32 = 32;

/// After so long other threads of the host are let in, between looks.
const GENEROUS_AFTER: Duration = Duration::from_micros(4);

/// Decides how long to look.
#[derive(Debug)]
pub(crate) struct Poller {
    /// The longest it may look.
    limit: Duration,
    /// How long it looks now; zero is not at all.
    window: Duration,
}

impl Poller {
    /// One that looks for `limit` at most, and at first not at all.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            window: Duration::ZERO,
        }
    }

    /// Looks until `ready`, and says whether that came in time.
    pub(crate) fn poll(&self, mut ready: impl FnMut() -> bool) -> bool {
        if self.window.is_zero() {
            return false;
        }
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let elapsed = start.elapsed();
            if elapsed >= self.window {
                return false;
            }
            if elapsed >= GENEROUS_AFTER {
                std::thread::yield_now();
            }
        }
    }

    /// Learns from a sleep of that length, after looking was in vain: had it been short enough to
    /// be looked through, look longer next time; otherwise not at all.
    pub(crate) fn slept(&mut self, length: Duration) {
        self.window = if length > self.limit {
            Duration::ZERO
        } else {
            self.window.saturating_mul(2).max(FIRST).min(self.limit)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    #[test]
    fn looking_begins_after_short_sleeps_and_ends_with_a_long_one() {
        let mut poller = Poller::new(LIMIT);
        assert!(!poller.poll(|| panic!("not at first")));
        for window in [10, 20, 40, 50, 50] {
            poller.slept(Duration::from_micros(30));
            assert_eq!(poller.window, Duration::from_micros(window));
        }
        assert!(poller.poll(|| true));
        let mut looks = 0;
        assert!(!poller.poll(|| {
            looks += 1;
            false
        }));
        assert!(looks >= LOOKS);
        poller.slept(Duration::from_micros(51));
        assert!(!poller.poll(|| panic!("not after a long sleep")));
    }

    #[test]
    fn with_a_limit_of_zero_nothing_is_polled() {
        let mut poller = Poller::new(Duration::ZERO);
        poller.slept(Duration::ZERO);
        assert!(!poller.poll(|| panic!("never")));
    }
}
