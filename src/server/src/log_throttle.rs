//! Log lines about a guest that misbehaves, at a rate that it cannot choose.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// At most one line of a kind in this many milliseconds.
const INTERVAL_MS: u64 = 1_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One kind of event: how often it came up, and when its next line may be written.
#[derive(Debug, Default)]
pub struct LogThrottle {
    count: AtomicU64,
    suppressed: AtomicU64,
    /// When the next line may be written, in milliseconds since [`START`].
    next: AtomicU64,
}

impl LogThrottle {
    /// Counts one more, and says whether its line may be written now: if so, how many lines were
    /// suppressed before.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn admit_at(&self, now: u64) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        let admitted = now >= next
            && self
                .next
                .compare_exchange(
                    next,
                    now.saturating_add(INTERVAL_MS),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if admitted {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    /// How often it came up.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_says_how_many_were_suppressed() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.admit_at(5), Some(0));
        assert_eq!(throttle.admit_at(6), None);
        assert_eq!(throttle.admit_at(1_004), None);
        assert_eq!(throttle.admit_at(1_005), Some(2));
        assert_eq!(throttle.admit_at(1_006), None);
        assert_eq!(throttle.count(), 5);
    }
}
