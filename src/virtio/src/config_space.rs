//! The device's configuration space (virtio 1.3, section 5.11.4).

use crate::device::Error;

/// `tag[36]`, then `num_request_queues` as a little-endian 32-bit number.
const LENGTH: usize = 40;
const TAG_LENGTH: usize = 36;

/// What the driver finds in the configuration space.
#[derive(Debug, Clone)]
pub(crate) struct ConfigSpace {
    bytes: [u8; LENGTH],
}

impl ConfigSpace {
    /// The space of a device with this name and this many request queues.
    ///
    /// # Errors
    /// [`Error::Tag`] unless the tag has 1 to 36 bytes, none of them NUL: the field is padded
    /// with NULs, and the driver ends the tag at the first.
    pub(crate) fn new(tag: &str, request_queues: u16) -> Result<Self, Error> {
        if tag.is_empty() || tag.len() > TAG_LENGTH || tag.bytes().any(|byte| byte == 0) {
            return Err(Error::Tag(tag.to_owned()));
        }
        let queues = u32::from(request_queues).to_le_bytes();
        let content = tag
            .bytes()
            .chain(std::iter::repeat(0))
            .take(TAG_LENGTH)
            .chain(queues);
        let mut bytes = [0; LENGTH];
        for (to, from) in bytes.iter_mut().zip(content) {
            *to = from;
        }
        Ok(Self { bytes })
    }

    /// Exactly `size` bytes from `offset`. What lies beyond the space reads as zeros, as a front
    /// end expects that asks for the whole of a newer, longer layout.
    pub(crate) fn read(&self, offset: u32, size: u32) -> Vec<u8> {
        let as_length = |number| usize::try_from(number).unwrap_or(usize::MAX);
        self.bytes
            .iter()
            .copied()
            .chain(std::iter::repeat(0))
            .skip(as_length(offset).min(LENGTH))
            .take(as_length(size))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_holds_the_padded_tag_and_the_number_of_request_queues() {
        let space = ConfigSpace::new("root", 16).unwrap();
        let whole = space.read(0, 40);
        assert_eq!(&whole[..4], b"root");
        assert!(whole[4..36].iter().all(|&byte| byte == 0));
        assert_eq!(&whole[36..], &[16, 0, 0, 0]);
    }

    #[test]
    fn a_read_has_exactly_the_asked_length_wherever_it_lies() {
        let space = ConfigSpace::new("root", 16).unwrap();
        for (offset, size) in [(0, 1), (36, 4), (38, 8), (40, 4), (0, 256), (u32::MAX, 3)] {
            assert_eq!(
                space.read(offset, size).len(),
                size as usize,
                "{offset}+{size}"
            );
        }
        assert_eq!(space.read(36, 8), [16, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(space.read(u32::MAX, 3), [0, 0, 0]);
    }

    #[test]
    fn a_tag_has_one_to_36_bytes_and_no_nul() {
        for (tag, fits) in [
            ("", false),
            ("a", true),
            (&*"x".repeat(36), true),
            ("a\0b", false),
        ] {
            assert_eq!(ConfigSpace::new(tag, 1).is_ok(), fits, "{tag:?}");
        }
        assert!(ConfigSpace::new(&"x".repeat(37), 1).is_err());
    }
}
