//! Sets of byte ranges of a file.

use std::collections::BTreeMap;
use std::ops::Range;

/// What is kept in the bucket, fetched and found dirty is so in blocks of this size.
pub(crate) const BLOCK: u64 = 4096;

/// Where every file ends: at whole blocks.
pub(crate) const END: u64 = (1 << 63) - BLOCK;

/// Ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Start and end.
    ranges: BTreeMap<u64, u64>,
    total: u64,
}

/// The smallest range of whole blocks around a range.
pub(crate) fn around(range: &Range<u64>) -> Range<u64> {
    if range.start >= range.end {
        return range.start..range.start;
    }
    down(range.start)..up(range.end)
}

/// The start of the block that an offset is in.
pub(crate) fn down(offset: u64) -> u64 {
    offset & !(BLOCK - 1)
}

/// The end of the last block before an offset.
pub(crate) fn up(offset: u64) -> u64 {
    offset.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes in all ranges.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// All ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The parts of the set that are in `range`, in order.
    pub(crate) fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let range = range.clone();
        let first = self
            .ranges
            .range(..range.start)
            .next_back()
            .filter(|&(_, &end)| end > range.start);
        let start = range.start.min(range.end);
        first
            .into_iter()
            .chain(self.ranges.range(start..range.end))
            .map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|part| part.start < part.end)
    }

    /// Whether any byte of `range` is in the set.
    pub(crate) fn overlaps(&self, range: &Range<u64>) -> bool {
        self.within(range).next().is_some()
    }

    /// Whether the byte at `offset` is in the set.
    #[cfg(test)]
    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.overlaps(&(offset..offset.saturating_add(1)))
    }

    /// The parts of `range` that are not in the set, in order.
    pub(crate) fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for part in self.within(range) {
            if part.start > at {
                gaps.push(at..part.start);
            }
            at = part.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Adds a range, and says how many bytes of it are new.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        let (mut start, mut end) = (range.start, range.end);
        let mut known = 0_u64;
        // The one before may touch it; all that begin inside or at its end go into it.
        if let Some((&before, &until)) = self.ranges.range(..=start).next_back()
            && until >= start
        {
            if until >= end {
                return 0;
            }
            known = known.saturating_add(until.saturating_sub(before));
            self.ranges.remove(&before);
            start = before;
        }
        while let Some((&next, &until)) = self.ranges.range(start..=end).next() {
            known = known.saturating_add(until.saturating_sub(next));
            self.ranges.remove(&next);
            end = end.max(until);
        }
        self.ranges.insert(start, end);
        let added = end.saturating_sub(start).saturating_sub(known);
        self.total = self.total.saturating_add(added);
        added
    }

    /// Takes a range out, and says how many bytes of it were there.
    pub(crate) fn remove(&mut self, range: &Range<u64>) -> u64 {
        let parts: Vec<Range<u64>> = self.within(range).collect();
        let mut removed = 0_u64;
        for part in parts {
            removed = removed.saturating_add(length(&part));
            let Some((&start, &end)) = self.ranges.range(..=part.start).next_back() else {
                continue;
            };
            self.ranges.remove(&start);
            if start < part.start {
                self.ranges.insert(start, part.start);
            }
            if part.end < end {
                self.ranges.insert(part.end, end);
            }
        }
        self.total = self.total.saturating_sub(removed);
        removed
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(ranges: impl Iterator<Item = Range<u64>>) -> Vec<(u64, u64)> {
        ranges.map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges: RangeSet = [10..20, 30..40].into_iter().collect();
        assert_eq!(ranges.insert(20..30), 10);
        assert_eq!(pairs(ranges.iter()), [(10, 40)]);
        assert_eq!(ranges.insert(5..12), 5);
        assert_eq!(ranges.insert(6..40), 0);
        assert_eq!(ranges.insert(0..100), 65);
        assert_eq!(ranges.total(), 100);
    }

    #[test]
    fn what_is_taken_out_leaves_its_ends() {
        let mut ranges = RangeSet::default();
        ranges.insert(0..100);
        assert_eq!(ranges.remove(&(40..60)), 20);
        assert_eq!(pairs(ranges.iter()), [(0, 40), (60, 100)]);
        assert_eq!(ranges.remove(&(30..70)), 20);
        assert_eq!(pairs(ranges.gaps(&(20..80)).into_iter()), [(30, 70)]);
        assert_eq!(pairs(ranges.within(&(20..80))), [(20, 30), (70, 80)]);
        assert!(ranges.contains(29) && !ranges.contains(30));
        assert!(!ranges.overlaps(&(50..50)) && !ranges.overlaps(&(30..70)));
    }

    /// Against a set of single bytes.
    #[test]
    fn a_set_is_what_was_put_into_it() {
        let mut random = 7_u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut ranges = RangeSet::default();
        let mut bytes = std::collections::BTreeSet::new();
        for _ in 0..5000 {
            let start = next(64);
            let range = start..(start + next(20)).min(64);
            let add = next(2) == 0;
            let before = bytes.len();
            let counted = if add {
                bytes.extend(range.clone());
                ranges.insert(range)
            } else {
                bytes.retain(|at| !range.contains(at));
                ranges.remove(&range)
            };
            assert_eq!(counted, bytes.len().abs_diff(before) as u64);
            assert!((0..64).all(|at| ranges.contains(at) == bytes.contains(&at)));
            assert_eq!(ranges.total(), bytes.len() as u64);
            let parts = pairs(ranges.iter());
            assert!(parts.windows(2).all(|two| two[0].1 < two[1].0), "{parts:?}");
        }
    }

    #[test]
    fn blocks_around_a_range() {
        assert_eq!(around(&(5000..5001)), 4096..8192);
        assert_eq!(around(&(8192..8192)), 8192..8192);
        assert_eq!(up(u64::MAX), u64::MAX);
    }
}
