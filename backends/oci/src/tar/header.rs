//! A header block.

use std::ops::Range;

use vfsd_backend::{Device, Timestamp};

use super::number;

/// Bytes of a block: headers and contents start at a multiple of it.
pub(super) const BLOCK: usize = 512;

/// A header block whose checksum is right.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    format: Format,
}

/// Which fields follow the first 257 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    /// The header in `block`; none if the checksum is wrong.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Option<Self> {
        let mut header = Self {
            block,
            format: Format::V7,
        };
        let expected = number::field(header.field(148..156))?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (place, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&place) {
                b' '
            } else {
                *byte
            };
            unsigned = unsigned.wrapping_add(i64::from(byte));
            signed = signed.wrapping_add(i64::from(i8::from_ne_bytes([byte])));
        }
        // Some old archivers summed up signed characters.
        if expected != unsigned && expected != signed {
            return None;
        }
        let (magic, version) = (header.field(257..263), header.field(263..265));
        header.format = match magic {
            b"ustar\0" if header.field(508..512) == b"tar\0" => Format::Star,
            b"ustar\0" => Format::Ustar,
            b"ustar " if version == b" \0" => Format::Gnu,
            _ => Format::V7,
        };
        Some(header)
    }

    fn field(&self, range: Range<usize>) -> &'a [u8] {
        self.block.get(range).unwrap_or_default()
    }

    /// The type flag.
    pub(super) fn kind(&self) -> u8 {
        self.field(156..157).first().copied().unwrap_or(0)
    }

    /// The path, with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(self.field(0..100));
        let prefix = match self.format {
            Format::Ustar => text(self.field(345..500)),
            Format::Star => text(self.field(345..476)),
            Format::V7 | Format::Gnu => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// The target of a link.
    pub(super) fn link(&self) -> &'a [u8] {
        text(self.field(157..257))
    }

    pub(super) fn permissions(&self) -> Option<u32> {
        let mode = number::field(self.field(100..108))?;
        u32::try_from(mode & 0o7777).ok()
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number::field(self.field(108..116))
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number::field(self.field(116..124))
    }

    /// Bytes of the content.
    pub(super) fn size(&self) -> Option<u64> {
        u64::try_from(number::field(self.field(124..136))?).ok()
    }

    pub(super) fn modified(&self) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: number::field(self.field(136..148))?,
            nanoseconds: 0,
        })
    }

    pub(super) fn device(&self) -> Option<Device> {
        if self.format == Format::V7 {
            return Some(Device::default());
        }
        Some(Device {
            major: u32::try_from(number::field(self.field(329..337))?).ok()?,
            minor: u32::try_from(number::field(self.field(337..345))?).ok()?,
        })
    }

    /// The four places of a GNU sparse map that a header has, whether more follow in a block of
    /// their own, and the file's real size. None if the header is not GNU's.
    pub(super) fn sparse(&self) -> Option<(&'a [u8], bool, u64)> {
        if self.format != Format::Gnu {
            return None;
        }
        let more = self.field(482..483) != [0];
        let size = u64::try_from(number::field(self.field(483..495))?).ok()?;
        Some((self.field(386..482), more, size))
    }
}

/// What stands before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}
