//! Looking at the available ring for a while before sleeping.
//!
//! A driver that waits for each reply before it sends the next request sends it a few tens of
//! microseconds later. To sleep in between costs it a kick (an exit from the virtual machine), and
//! us the wake-up, both of which take about as long. So the thread looks at the ring for a while,
//! but only when that has paid off lately, as KVM does before it stops a virtual CPU
//! (`halt_poll_ns`, Documentation/virt/kvm/halt-polling.rst). A queue on which little happens is
//! not polled at all, and neither is one on a host whose processors are wanted by others: there a
//! thread that looks is put aside by the scheduler, and sees a request later than one that sleeps.

use std::time::{Duration, Instant};

/// How long the first looking lasts, after it would have paid off.
const FIRST: Duration = Duration::from_micros(10);

/// Looks between two glances at the clock.
const LOOKS: u32 = 32;

/// After so long other threads of the host are let in, between looks.
const GENEROUS_AFTER: Duration = Duration::from_micros(4);

/// A gap between two glances at the clock that means that others were let in.
const GAP: Duration = Duration::from_micros(20);

/// How long nothing is polled after that, at first; each time again within twice that time it is
/// doubled.
const SHORT_TRUCE: Duration = Duration::from_millis(10);

/// How long nothing is polled at most.
const LONG_TRUCE: Duration = Duration::from_secs(1);

/// Decides how long to look at a ring.
#[derive(Debug)]
pub(crate) struct RingPoller {
    /// The longest it may look.
    limit: Duration,
    /// How long it looks now; zero is not at all.
    window: Duration,
    /// How long it leaves the processors to others when they are wanted.
    truce: Duration,
    /// Until when it does.
    truce_ends: Option<Instant>,
}

impl RingPoller {
    /// One that looks for `limit` at most, and at first not at all.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            window: Duration::ZERO,
            truce: SHORT_TRUCE,
            truce_ends: None,
        }
    }

    /// Looks until `ready`, and says whether that came in time.
    pub(crate) fn poll(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if self.window.is_zero() {
            return false;
        }
        let start = Instant::now();
        let mut before = start;
        loop {
            let found = (0..LOOKS).any(|_| {
                let found = ready();
                if !found {
                    std::hint::spin_loop();
                }
                found
            });
            let now = Instant::now();
            if now.saturating_duration_since(before) > GAP {
                self.begin_truce(now);
                return found || ready();
            }
            before = now;
            let elapsed = now.saturating_duration_since(start);
            if found || elapsed >= self.window {
                return found;
            }
            if elapsed >= GENEROUS_AFTER {
                std::thread::yield_now();
            }
        }
    }

    /// Others want the processor: does not look for a while.
    fn begin_truce(&mut self, now: Instant) {
        let again = self
            .truce_ends
            .is_some_and(|last| now.saturating_duration_since(last) < self.truce);
        self.truce = match again {
            true => self.truce.saturating_mul(2).min(LONG_TRUCE),
            false => SHORT_TRUCE,
        };
        self.truce_ends = now.checked_add(self.truce);
        self.window = Duration::ZERO;
    }

    /// Learns from a sleep from `asleep` until `now`, after looking was in vain: had it been short
    /// enough to be looked through, look longer next time; otherwise not at all.
    pub(crate) fn slept(&mut self, asleep: Instant, now: Instant) {
        let length = now.saturating_duration_since(asleep);
        let truce = self.truce_ends.is_some_and(|end| now < end);
        self.window = if truce || length > self.limit {
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

    fn sleep(poller: &mut RingPoller, length: Duration) {
        let now = Instant::now();
        poller.slept(now - length, now);
    }

    #[test]
    fn looking_begins_after_short_sleeps_and_ends_with_a_long_one() {
        let mut poller = RingPoller::new(LIMIT);
        assert!(!poller.poll(|| panic!("not at first")));
        for window in [10, 20, 40, 50, 50] {
            sleep(&mut poller, Duration::from_micros(30));
            assert_eq!(poller.window, Duration::from_micros(window));
        }
        assert!(poller.poll(|| true));
        let mut looks = 0;
        assert!(!poller.poll(|| {
            looks += 1;
            false
        }));
        assert!(looks >= LOOKS);
        sleep(&mut poller, Duration::from_micros(51));
        assert!(!poller.poll(|| panic!("not after a long sleep")));
    }

    #[test]
    fn with_a_limit_of_zero_nothing_is_polled() {
        let mut poller = RingPoller::new(Duration::ZERO);
        sleep(&mut poller, Duration::ZERO);
        assert!(!poller.poll(|| panic!("never")));
    }

    #[test]
    fn nothing_is_polled_for_a_while_when_others_want_the_processor() {
        let mut poller = RingPoller::new(Duration::from_secs(10));
        sleep(&mut poller, Duration::ZERO);
        // The thread is put aside, and finds something when it is back.
        let found = poller.poll(|| {
            std::thread::sleep(2 * GAP);
            true
        });
        assert!(found);
        assert_eq!(poller.truce, SHORT_TRUCE);
        let now = Instant::now();
        sleep(&mut poller, Duration::ZERO);
        assert!(poller.window.is_zero(), "the truce lasts");
        poller.begin_truce(now + SHORT_TRUCE);
        assert_eq!(poller.truce, 2 * SHORT_TRUCE, "it was broken soon");
        let later = now + 10 * SHORT_TRUCE;
        poller.slept(later, later);
        assert_eq!(poller.window, FIRST, "after the truce it looks again");
        poller.begin_truce(later);
        assert_eq!(poller.truce, SHORT_TRUCE);
    }
}
