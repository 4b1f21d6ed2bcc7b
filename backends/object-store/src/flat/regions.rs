//! Regions of a content that many reads jump to.
//!
//! A read that jumps has the block asked for that it needs. Once so many of them fell into one region that the whole
//! region would have come in the same time, the whole region is asked for: whatever is read, that costs at most twice the
//! time of what would have been best. How many these are, and whether fewer are enough, is what
//! [`Pace`](super::pace::Pace) tells.

use std::collections::HashMap;

use super::blocks::Blocks;

/// Blocks of a region, which begins at a multiple of it: 8 MiB.
pub(super) const REGION: u64 = 64;
/// Regions whose requests are counted; then counting begins anew.
const COUNTED: usize = 1024;

/// What was asked for one by one, of one content.
#[derive(Debug, Default)]
pub(super) struct Regions {
    single: HashMap<u64, u32>,
    /// Blocks that were asked for with their region.
    whole: u64,
}

impl Regions {
    /// Notes that a block is asked for by itself, and answers the region that shall come along with it, if one shall, after
    /// so many requests. All of them together are not more than `blocks`, which is how many there are.
    pub(super) fn single(&mut self, block: u64, blocks: u64, requests: u32) -> Option<Blocks> {
        let region = block.checked_div(REGION)?;
        if self.single.len() >= COUNTED {
            self.single.clear();
        }
        let asked = self.single.entry(region).or_default();
        *asked = asked.saturating_add(1);
        let first = region.saturating_mul(REGION);
        let end = first.saturating_add(REGION).min(blocks);
        let whole = self.whole.saturating_add(end.saturating_sub(first));
        // Of one read alone nobody knows that others come.
        let enough = match self.whole {
            0 => requests.max(2),
            _ => requests,
        };
        if *asked < enough || whole > blocks {
            return None;
        }
        self.single.remove(&region);
        self.whole = whole;
        Some(first..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_comes_after_so_many_requests_and_all_of_them_come_once() {
        let mut regions = Regions::default();
        let blocks = 2 * REGION + 10;
        let mut came = Vec::new();
        for round in 0..10 {
            for region in 0..3 {
                let asked = regions.single(region * REGION + round, blocks, 4);
                assert!(round >= 3 || asked.is_none());
                came.extend(asked);
            }
        }
        let last = 2 * REGION..blocks;
        assert_eq!(came, [0..REGION, REGION..2 * REGION, last]);
    }

    #[test]
    fn the_first_region_needs_two_requests_and_the_next_ones_what_they_cost() {
        let mut regions = Regions::default();
        assert_eq!(regions.single(0, 1000, 1), None);
        assert_eq!(regions.single(REGION, 1000, 1), None);
        assert_eq!(
            regions.single(REGION + 1, 1000, 1),
            Some(REGION..2 * REGION)
        );
        assert_eq!(regions.single(2, 1000, 1), Some(0..REGION));
        assert_eq!(
            regions.single(5 * REGION, 1000, 1),
            Some(5 * REGION..6 * REGION)
        );
    }

    #[test]
    fn reads_that_are_spread_thin_stay_single_and_cost_no_memory() {
        let mut regions = Regions::default();
        for block in (0..1 << 40).step_by(1 << 20) {
            assert_eq!(regions.single(block, 1 << 40, 2), None);
        }
        assert!(regions.single.len() <= COUNTED);
    }
}
