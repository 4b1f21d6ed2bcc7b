//! Which bytes of a file an owner has locked, as a mirror of what the host keeps.

use vfsd_backend::{LockKind, LockRange};

/// The locks of one owner on one file: ranges that do not overlap, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct LockRanges(Vec<(LockRange, LockKind)>);

impl LockRanges {
    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// These, after a range was locked, whatever it was before, or released.
    pub(crate) fn with(&self, range: LockRange, kind: Option<LockKind>) -> Self {
        let mut ranges = Vec::with_capacity(self.0.len().saturating_add(2));
        for &(held, held_kind) in &self.0 {
            if let Some(end) = range.start.checked_sub(1)
                && held.start <= end
            {
                let end = end.min(held.end);
                let start = held.start;
                ranges.push((LockRange { start, end }, held_kind));
            }
            if let Some(start) = range.end.checked_add(1)
                && start <= held.end
            {
                let start = start.max(held.start);
                let end = held.end;
                ranges.push((LockRange { start, end }, held_kind));
            }
        }
        ranges.extend(kind.map(|kind| (range, kind)));
        ranges.sort_unstable_by_key(|(range, _)| range.start);
        ranges.dedup_by(|next, last| {
            let adjoin = next.1 == last.1 && last.0.end.checked_add(1) == Some(next.0.start);
            if adjoin {
                last.0.end = next.0.end;
            }
            adjoin
        });
        Self(ranges)
    }

    /// Whether a lock of this kind on this range is among them, alone or as part of a longer one.
    pub(crate) fn cover(&self, range: LockRange, kind: LockKind) -> bool {
        self.0
            .iter()
            .any(|(held, own)| *own == kind && held.start <= range.start && range.end <= held.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockKind::{Read, Write};

    fn range(start: u64, end: u64) -> LockRange {
        LockRange { start, end }
    }

    #[test]
    fn a_release_in_the_middle_leaves_both_ends() {
        let mut ranges = LockRanges::default();
        ranges = ranges.with(range(0, 9), Some(Write));
        ranges = ranges.with(range(3, 5), None);
        assert_eq!(ranges.0, [(range(0, 2), Write), (range(6, 9), Write)]);
        ranges = ranges.with(range(0, u64::MAX), None);
        assert_eq!(ranges.len(), 0);
    }

    #[test]
    fn another_kind_takes_the_place_of_the_first() {
        let mut ranges = LockRanges::default();
        ranges = ranges.with(range(10, 19), Some(Read));
        ranges = ranges.with(range(15, 24), Some(Write));
        assert_eq!(ranges.0, [(range(10, 14), Read), (range(15, 24), Write)]);
        assert!(ranges.cover(range(16, 20), Write));
        assert!(!ranges.cover(range(16, 20), Read));
        assert!(!ranges.cover(range(14, 15), Read));
    }

    #[test]
    fn neighbours_of_one_kind_become_one() {
        let mut ranges = LockRanges::default();
        ranges = ranges.with(range(0, 4), Some(Read));
        ranges = ranges.with(range(10, 14), Some(Read));
        ranges = ranges.with(range(5, 9), Some(Read));
        assert_eq!(ranges.0, [(range(0, 14), Read)]);
    }
}
