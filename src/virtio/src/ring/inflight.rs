//! Which heads of a ring are with the device.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bit per descriptor. A driver that hands over a head that the device still has would get it
/// back twice (CVE-2026-45782 is of that kind).
#[derive(Debug)]
pub(crate) struct InFlight {
    words: Vec<AtomicU64>,
}

impl InFlight {
    /// None of `size` heads.
    pub(crate) fn new(size: u16) -> Self {
        let words = usize::from(size).div_ceil(64);
        Self {
            words: std::iter::repeat_with(AtomicU64::default)
                .take(words)
                .collect(),
        }
    }

    fn locate(&self, head: u16) -> Option<(&AtomicU64, u64)> {
        let word = self.words.get(usize::from(head >> 6))?;
        Some((word, 1_u64.wrapping_shl(u32::from(head & 63))))
    }

    /// Notes that the device took a head. False if it has it already, or it is out of range.
    pub(crate) fn take(&self, head: u16) -> bool {
        self.locate(head)
            .is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Notes that the device gave a head back.
    pub(crate) fn give_back(&self, head: u16) {
        if let Some((word, bit)) = self.locate(head) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_can_be_taken_again_only_after_it_was_given_back() {
        let heads = InFlight::new(256);
        for head in [0, 1, 63, 64, 255] {
            assert!(heads.take(head), "{head}");
            assert!(!heads.take(head), "{head}");
            heads.give_back(head);
            assert!(heads.take(head), "{head}");
        }
    }

    #[test]
    fn a_head_far_beyond_the_ring_is_refused() {
        let heads = InFlight::new(64);
        assert!(!heads.take(64));
        heads.give_back(u16::MAX);
    }
}
