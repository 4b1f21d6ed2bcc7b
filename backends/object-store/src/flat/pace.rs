//! How long requests of a store take.
//!
//! A store on this host answers within a millisecond, one on another continent in a hundred: what is worth asking for along
//! with what is needed depends on that.

use std::time::Duration;

use super::regions::REGION;

/// Of a request for one block, until one was seen.
const SINGLE: Duration = Duration::from_millis(20);
/// Of each further block of a long request, until one was seen: 100 MB/s.
const BLOCK: Duration = Duration::from_micros(1300);
/// What does not take longer need not be spared: on a store of the same host, where a region takes 15 ms, random reads all over an
/// object take half as long again when each region waits for four of them, and 2.6 times as long with twelve.
const CHEAP: Duration = Duration::from_millis(20);
/// Reads that are enough for a region that takes longer than that.
const LEAST: u128 = 2;
const MOST: u128 = 16;

/// About what the last requests took where they had the line for themselves.
#[derive(Debug, Default)]
pub(super) struct Pace {
    single: Option<Duration>,
    block: Option<Duration>,
}

impl Pace {
    /// A request for one block took so long.
    pub(super) fn single(&mut self, took: Duration) {
        self.single = Some(follow(self.single, took));
    }

    /// So many blocks of a request took so long, after the first one.
    pub(super) fn blocks(&mut self, count: u32, took: Duration) {
        if let Some(each) = took.checked_div(count) {
            self.block = Some(follow(self.block, each));
        }
    }

    /// How many requests for single blocks of a region are enough for one for all of it: as many as take its time, but fewer where
    /// that is short.
    pub(super) fn singles(&self) -> u32 {
        let single = self.single.unwrap_or(SINGLE).as_nanos();
        let block = self.block.unwrap_or(BLOCK).as_nanos();
        let more = block.saturating_mul(u128::from(REGION.saturating_sub(1)));
        let region = single.saturating_add(more);
        let as_long = region.checked_div(single).unwrap_or(MOST).max(LEAST);
        let cheap = region.checked_div(CHEAP.as_nanos()).unwrap_or(MOST).max(1);
        u32::try_from(as_long.min(cheap).min(MOST)).unwrap_or(1)
    }
}

/// Goes halfway to what was quicker, and a little to what was slower, which may have waited for other requests.
fn follow(before: Option<Duration>, last: Duration) -> Duration {
    let Some(before) = before else {
        return last;
    };
    let part = |of: Duration, share| of.checked_div(share).unwrap_or_default();
    match before.checked_sub(last) {
        Some(quicker) => before.saturating_sub(part(quicker, 2)),
        None => before.saturating_add(part(last.saturating_sub(before), 16)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn singles(single: Duration, block: Duration) -> u32 {
        let mut pace = Pace::default();
        for _ in 0..200 {
            pace.single(single);
            pace.blocks(10, block * 10);
        }
        pace.singles()
    }

    #[test]
    fn a_region_is_worth_as_many_requests_as_take_its_time_and_few_where_it_is_quick() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        assert_eq!(Pace::default().singles(), 5);
        assert_eq!(singles(ms(20), us(1300)), 5, "a store in the region");
        assert_eq!(singles(us(900), us(200)), 1, "one on this host");
        assert_eq!(
            singles(ms(1), us(1300)),
            4,
            "one near by, on a line of 1 Gbit/s"
        );
        assert_eq!(singles(ms(150), us(1300)), 2, "one far away");
        assert_eq!(singles(ms(20), ms(13)), 16, "a slow line");
        assert_eq!(singles(Duration::ZERO, Duration::ZERO), 1);
        assert_eq!(singles(Duration::ZERO, Duration::MAX / 20), 16);
        assert_eq!(singles(Duration::MAX, Duration::ZERO), 2);
    }

    #[test]
    fn requests_that_wait_for_others_change_little_and_a_slower_store_changes_it() {
        let mut pace = Pace::default();
        let fast = Duration::from_millis(1);
        pace.single(fast);
        pace.blocks(10, fast * 10);
        let before = pace.singles();
        for _ in 0..4 {
            pace.blocks(10, fast * 15);
        }
        assert!(pace.singles().abs_diff(before) <= 1);
        for _ in 0..100 {
            pace.blocks(10, fast * 100);
        }
        assert_eq!(pace.singles(), 16);
        for _ in 0..10 {
            pace.blocks(10, fast);
        }
        assert_eq!(pace.singles(), 1);
    }
}
