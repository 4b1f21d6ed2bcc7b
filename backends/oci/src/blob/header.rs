//! The header of a gzip member (RFC 1952, section 2.3), read as its bytes arrive.

use crc32fast::Hasher;

use super::BlobError;

/// Bits of FLG.
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Reads a header byte by byte; none of it is kept.
#[derive(Debug, Clone)]
pub(crate) struct HeaderParser {
    field: Field,
    flags: u8,
    crc: Hasher,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    /// The ten bytes that each header has; this many were seen.
    Fixed(u8),
    ExtraLength {
        low: Option<u8>,
    },
    Extra {
        left: u16,
    },
    Name,
    Comment,
    Crc {
        low: Option<u8>,
    },
    Done,
}

impl HeaderParser {
    pub(crate) fn new() -> Self {
        Self {
            field: Field::Fixed(0),
            flags: 0,
            crc: Hasher::new(),
        }
    }

    /// Takes what belongs to the header and says how much that was, and whether it is complete.
    pub(crate) fn push(&mut self, input: &[u8]) -> Result<(usize, bool), BlobError> {
        let mut taken: usize = 0;
        for byte in input {
            if matches!(self.field, Field::Done) {
                break;
            }
            self.byte(*byte)?;
            taken = taken.saturating_add(1);
        }
        Ok((taken, matches!(self.field, Field::Done)))
    }

    fn byte(&mut self, byte: u8) -> Result<(), BlobError> {
        let next = match self.field {
            Field::Fixed(at) => {
                match at {
                    0 if byte != 0x1f => return Err(BlobError::Malformed("no gzip member")),
                    1 if byte != 0x8b => return Err(BlobError::Malformed("no gzip member")),
                    2 if byte != 8 => {
                        return Err(BlobError::Malformed("gzip: unknown compression method"));
                    }
                    3 if byte & RESERVED != 0 => {
                        return Err(BlobError::Malformed("gzip: reserved flags are set"));
                    }
                    3 => self.flags = byte,
                    _ => {}
                }
                if at == 9 {
                    self.after_fixed()
                } else {
                    Field::Fixed(at.saturating_add(1))
                }
            }
            Field::ExtraLength { low: None } => Field::ExtraLength { low: Some(byte) },
            Field::ExtraLength { low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => self.after_extra(),
                left => Field::Extra { left },
            },
            Field::Extra { left: 0 | 1 } => self.after_extra(),
            Field::Extra { left } => Field::Extra {
                left: left.saturating_sub(1),
            },
            Field::Name if byte == 0 => self.after_name(),
            Field::Comment if byte == 0 => self.after_comment(),
            // The CRC does not cover itself.
            Field::Crc { low: None } => {
                self.field = Field::Crc { low: Some(byte) };
                return Ok(());
            }
            Field::Crc { low: Some(low) } => {
                let [a, b, ..] = self.crc.clone().finalize().to_le_bytes();
                if [a, b] != [low, byte] {
                    return Err(BlobError::Malformed("gzip: wrong header checksum"));
                }
                self.field = Field::Done;
                return Ok(());
            }
            same @ (Field::Name | Field::Comment | Field::Done) => same,
        };
        self.crc.update(&[byte]);
        self.field = next;
        Ok(())
    }

    fn after_fixed(&self) -> Field {
        if self.flags & FEXTRA != 0 {
            Field::ExtraLength { low: None }
        } else {
            self.after_extra()
        }
    }

    fn after_extra(&self) -> Field {
        if self.flags & FNAME != 0 {
            Field::Name
        } else {
            self.after_name()
        }
    }

    fn after_name(&self) -> Field {
        if self.flags & FCOMMENT != 0 {
            Field::Comment
        } else {
            self.after_comment()
        }
    }

    fn after_comment(&self) -> Field {
        if self.flags & FHCRC != 0 {
            Field::Crc { low: None }
        } else {
            Field::Done
        }
    }
}
