//! How long a registry is waited for.

use std::time::Duration;

/// How long a registry is waited for, and how often it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For an answer, and for at least [`LEAST`](Self::LEAST) more bytes of it.
    pub idle: Duration,
    /// How often in a row something may fail. Bytes that arrive begin a new row.
    pub attempts: u32,
    /// The pause after the first failure. It doubles with each.
    pub pause: Duration,
    /// The longest pause, whatever the registry asks for.
    pub longest_pause: Duration,
}

impl Default for Limits {
    /// 10 s for a connection, 30 s without bytes, six attempts over half a minute; a registry that says when to ask
    /// again is given up to a minute each time.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            attempts: 6,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// Bytes that must arrive within [`idle`](Self::idle), so that an answer that drips ends some day.
    pub const LEAST: u64 = 16 << 10;

    /// The pause after so many failures in a row, with an eighth more or less by chance, so that many that failed
    /// together do not come back together.
    pub(super) fn pause_after(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = 1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let pause = self.pause.saturating_mul(doubled);
        let eighth = pause.checked_div(8).unwrap_or_default();
        let chance = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), failures);
        let part = u32::try_from(chance >> 56).unwrap_or(0);
        let spread = eighth
            .saturating_mul(2)
            .saturating_mul(part)
            .checked_div(256);
        let pause = pause
            .saturating_sub(eighth)
            .saturating_add(spread.unwrap_or_default());
        pause.max(asked.unwrap_or_default()).min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_and_what_is_asked_for_is_kept_within_the_limit() {
        let limits = Limits::default();
        for (failures, expected) in [(1, 500), (2, 1000), (4, 4000)] {
            let pause = limits.pause_after(failures, None).as_millis();
            assert!(
                (expected * 7 / 8..=expected * 9 / 8).contains(&pause),
                "{pause}"
            );
        }
        let asked = |seconds| limits.pause_after(1, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(7), Duration::from_secs(7));
        assert_eq!(asked(100_000), limits.longest_pause);
        assert_eq!(limits.pause_after(u32::MAX, None), limits.longest_pause);
    }
}
