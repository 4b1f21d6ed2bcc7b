//! Calls that the host cannot answer from the names and inodes it has in memory.
//!
//! Most of them need no disk all the same: there is no such name, the inode stands in a block that is in memory, or the
//! whole file system does. To move such a call to another thread takes longer than the call itself. Where a disk is
//! waited for, many of them are better made at once, elsewhere. Which of the two it is shows when one is made.

use std::time::{Duration, Instant};

use vfsd_backend::BackOff;

/// Longer than such a call takes without a disk, shorter than the answer of the fastest disk.
const SHORT: Duration = Duration::from_micros(50);

/// How long such calls took lately.
#[derive(Debug, Default)]
pub(crate) struct ColdCalls {
    /// Has calls made elsewhere after a long one.
    back_off: BackOff,
}

impl ColdCalls {
    /// Makes a call right here, if it is likely to be short; otherwise gives it back. To be used in a blocking section.
    pub(crate) fn make<T, C: FnOnce() -> T>(&self, call: C) -> Result<T, C> {
        if !self.is_short_likely() {
            return Err(call);
        }
        let begin = Instant::now();
        let answer = call();
        self.took(begin.elapsed());
        Ok(answer)
    }

    fn is_short_likely(&self) -> bool {
        !self.back_off.refuses()
    }

    fn took(&self, time: Duration) {
        match time < SHORT {
            true => self.back_off.in_time(),
            false => self.back_off.late(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many calls are made elsewhere before the next one is made here.
    fn elsewhere(calls: &ColdCalls) -> usize {
        std::iter::repeat_with(|| calls.is_short_likely())
            .take_while(|here| !here)
            .count()
    }

    #[test]
    fn a_disk_is_waited_for_elsewhere_and_tried_again_less_and_less_often() {
        let calls = ColdCalls::default();
        assert_eq!(elsewhere(&calls), 0);
        let mut counts = Vec::new();
        for _ in 0..9 {
            calls.took(SHORT);
            counts.push(elsewhere(&calls));
        }
        assert_eq!(counts, [4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }

    #[test]
    fn short_calls_are_made_here_and_a_long_one_between_them_is_forgotten() {
        let calls = ColdCalls::default();
        for _ in 0..3 {
            calls.took(Duration::ZERO);
            assert_eq!(elsewhere(&calls), 0);
            calls.took(2 * SHORT);
            assert_eq!(elsewhere(&calls), 4);
        }
    }

    #[test]
    fn a_call_that_is_not_made_is_given_back() {
        let calls = ColdCalls::default();
        calls.took(SHORT);
        let call = calls.make(|| 7).unwrap_err();
        assert_eq!(call(), 7);
    }
}
