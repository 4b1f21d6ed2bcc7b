//! Inode numbers as programs see them.

use crate::layers::Layer;

/// Inode numbers below this are shown with the layer's number above them.
const BITS: u32 = 48;

/// Makes inode numbers of several file systems different.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// They are different already.
    pub(crate) one_file_system: bool,
}

impl Numbers {
    /// The number that programs see of the inode of a layer.
    pub(crate) fn shown(self, layer: Layer, inode: u64) -> u64 {
        if self.one_file_system {
            return inode;
        }
        let tag = u64::from(layer.number_from_below()) << BITS;
        match inode >> BITS {
            0 => tag | inode,
            // No file system of today comes here. Such numbers are spread over all that are left,
            // where two of the same number are unlikely.
            _ => spread(inode ^ tag) | (1 << 63),
        }
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

    #[test]
    fn numbers_of_different_layers_are_different() {
        let numbers = Numbers {
            one_file_system: false,
        };
        let large = 5 << BITS;
        let mut seen = std::collections::HashSet::new();
        for layer in [Layer::UPPER, Layer::lower(0, 2), Layer::lower(1, 2)] {
            for inode in [1, 2, u64::from(u32::MAX), large, large + 1] {
                assert!(seen.insert(numbers.shown(layer, inode)));
            }
        }
        assert_eq!(numbers.shown(Layer::UPPER, 7), 7, "the upper's stay short");
    }

    #[test]
    fn numbers_of_one_file_system_stay() {
        let numbers = Numbers {
            one_file_system: true,
        };
        assert_eq!(numbers.shown(Layer::lower(0, 1), 7), 7);
    }
}
