//! Inode numbers as programs see them, and as files are known by.

use crate::layers::Layer;

/// Inode numbers below this are shown with the layer's number above them.
const BITS: u32 = 48;

/// The number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    /// What programs see.
    pub(crate) shown: u64,
    /// What no file of another layer has, wherever the layers lie.
    pub(crate) key: u64,
}

impl Number {
    /// As it is kept with a copy: both in decimal, or one when they are the same.
    pub(crate) fn stored(self) -> String {
        match self.shown == self.key {
            true => self.key.to_string(),
            false => format!("{} {}", self.key, self.shown),
        }
    }
}

/// Makes inode numbers of several file systems different.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// They are different already.
    pub(crate) one_file_system: bool,
}

impl Numbers {
    /// The number of the inode of a layer.
    pub(crate) fn of(self, layer: Layer, inode: u64) -> Number {
        let key = key(layer, inode);
        let shown = if self.one_file_system { inode } else { key };
        Number { shown, key }
    }

    /// The number that was kept with a copy, perhaps when the layers lay elsewhere.
    pub(crate) fn restored(self, stored: &[u8]) -> Option<Number> {
        let mut words = std::str::from_utf8(stored).ok()?.split(' ');
        let key = words.next()?.parse().ok()?;
        let shown = match words.next() {
            Some(shown) if self.one_file_system => shown.parse().ok()?,
            _ => key,
        };
        Some(Number { shown, key })
    }
}

fn key(layer: Layer, inode: u64) -> u64 {
    let tag = u64::from(layer.number_from_below()) << BITS;
    match inode >> BITS {
        0 => tag | inode,
        // No file system of today comes here. Such numbers are spread over all that are left,
        // where two of the same number are unlikely.
        _ => spread(inode ^ tag) | (1 << 63),
    }
}

/// The finalizer of SplitMix64: a permutation.
fn spread(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APART: Numbers = Numbers {
        one_file_system: false,
    };
    const TOGETHER: Numbers = Numbers {
        one_file_system: true,
    };

    #[test]
    fn numbers_of_different_layers_are_different() {
        let large = 5 << BITS;
        let mut seen = std::collections::HashSet::new();
        for layer in [Layer::UPPER, Layer::lower(0, 2), Layer::lower(1, 2)] {
            for inode in [1, 2, u64::from(u32::MAX), large, large + 1] {
                assert!(seen.insert(APART.of(layer, inode).shown));
            }
        }
        let upper = APART.of(Layer::UPPER, 7);
        assert_eq!(upper.shown, 7, "the upper's stay short");
    }

    #[test]
    fn numbers_of_one_file_system_stay() {
        let lower = TOGETHER.of(Layer::lower(0, 1), 7);
        assert_eq!(lower.shown, 7);
        assert_eq!(lower.key, APART.of(Layer::lower(0, 1), 7).key);
    }

    #[test]
    fn a_kept_number_is_the_same_file_wherever_the_layers_lie() {
        for inode in [7, 5 << BITS] {
            let lower = TOGETHER.of(Layer::lower(0, 1), inode);
            let stored = lower.stored();
            assert_eq!(TOGETHER.restored(stored.as_bytes()), Some(lower));
            let apart = APART.of(Layer::lower(0, 1), inode);
            assert_eq!(APART.restored(stored.as_bytes()), Some(apart));
            let earlier = apart.stored();
            assert_eq!(TOGETHER.restored(earlier.as_bytes()), Some(apart));
        }
        for damaged in ["", "x", "7 x", "99999999999999999999"] {
            assert_eq!(TOGETHER.restored(damaged.as_bytes()), None, "{damaged}");
        }
    }
}
