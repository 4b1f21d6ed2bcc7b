//! Which spans are there, for those who ask often.

use std::sync::atomic::{AtomicU64, Ordering};

use super::file::ABSENT;

/// A bit for each span. Other threads see a span's contents when they see its bit.
#[derive(Debug)]
pub(super) struct Residency {
    words: Box<[AtomicU64]>,
}

impl Residency {
    pub(super) fn new(states: &[u8]) -> Self {
        let words = states.chunks(64).map(|states| {
            let bits = states
                .iter()
                .rev()
                .fold(0_u64, |bits, state| bits << 1 | u64::from(*state != ABSENT));
            AtomicU64::new(bits)
        });
        Self {
            words: words.collect(),
        }
    }

    pub(super) fn has(&self, span: usize) -> bool {
        let word = self.words.get(span >> 6);
        word.is_some_and(|word| word.load(Ordering::Acquire) & bit(span) != 0)
    }

    pub(super) fn set(&self, span: usize) {
        if let Some(word) = self.words.get(span >> 6) {
            word.fetch_or(bit(span), Ordering::Release);
        }
    }

    pub(super) fn clear(&self, span: usize) {
        if let Some(word) = self.words.get(span >> 6) {
            word.fetch_and(!bit(span), Ordering::Release);
        }
    }

    pub(super) fn count(&self) -> usize {
        let words = self.words.iter();
        let count: u32 = words
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum();
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

fn bit(span: usize) -> u64 {
    1 << (span & 63)
}
