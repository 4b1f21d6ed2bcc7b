//! Where content lies in a bucket, and places of the chain of log objects.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::frame::Frame;
use crate::meta::codec::{BadRecord, Decoder, Encoder};
use crate::meta::journal::Lsn;

/// An object that holds content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectId {
    /// The log object of this number, which carries small content itself.
    Log(u64),
    /// A data segment.
    Segment {
        /// The epoch of its writer.
        epoch: u64,
        /// Its number within that.
        seq: u64,
    },
}

impl ObjectId {
    pub(super) fn encode(self, to: &mut Encoder) {
        match self {
            Self::Log(seq) => {
                to.u8(0);
                to.u64(seq);
            }
            Self::Segment { epoch, seq } => {
                to.u8(1);
                to.u64(epoch);
                to.u64(seq);
            }
        }
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, BadRecord> {
        Ok(match from.u8()? {
            0 => Self::Log(from.u64()?),
            1 => Self::Segment {
                epoch: from.u64()?,
                seq: from.u64()?,
            },
            _ => return Err(BadRecord),
        })
    }
}

/// What the content of a range of a file is from a log object on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The file's inode number.
    pub ino: u64,
    /// Where the range begins in the file, in bytes.
    pub offset: u64,
    /// How long the range is, in bytes; at least 1, and it ends by 2^63 - 1.
    pub length: u64,
    /// The frame and where in its content the range begins; `None`: a hole, which reads as zeros.
    pub place: Option<(Frame, u32)>,
}

/// Bytes that a piece takes in a log object at least.
pub(super) const MIN_PIECE_BYTES: usize = 25;

impl Piece {
    /// All content of a frame, which was written at `offset` of a file.
    pub fn whole(ino: u64, offset: u64, frame: Frame) -> Self {
        Self {
            ino,
            offset,
            length: frame.length.into(),
            place: Some((frame, 0)),
        }
    }

    /// Whether the figures are ones that a writer gives.
    pub fn is_sound(&self) -> bool {
        let end = self.offset.checked_add(self.length);
        let in_file = end.is_some_and(|end| i64::try_from(end).is_ok());
        let in_frame = self.place.is_none_or(|(frame, within)| {
            let end = u64::from(within).checked_add(self.length);
            frame.is_sound() && end.is_some_and(|end| end <= frame.length.into())
        });
        self.length > 0 && in_file && in_frame
    }

    pub(super) fn encode(&self, to: &mut Encoder) {
        to.u64(self.ino);
        to.u64(self.offset);
        to.u64(self.length);
        match &self.place {
            None => to.u8(0),
            Some((frame, within)) => {
                to.u8(1);
                frame.encode(to);
                to.u32(*within);
            }
        }
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, BadRecord> {
        let piece = Self {
            ino: from.u64()?,
            offset: from.u64()?,
            length: from.u64()?,
            place: match from.u8()? {
                0 => None,
                1 => Some((Frame::decode(from)?, from.u32()?)),
                _ => return Err(BadRecord),
            },
        };
        piece.is_sound().then_some(piece).ok_or(BadRecord)
    }
}

/// SHA-256 of an object of the chain. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ChainHash> for String {
    fn from(hash: ChainHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for ChainHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        from_hexadecimal(&text).map(Self)
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes of two digits each.
pub(super) fn from_hexadecimal<const N: usize>(text: &str) -> Result<[u8; N], &'static str> {
    const BAD: &str = "not the right number of hexadecimal digits";
    let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !digits || Some(text.len()) != N.checked_mul(2) {
        return Err(BAD);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| BAD)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| BAD)?;
    }
    Ok(bytes)
}

/// A place of the chain: a log object that is in it, and what all up to it amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Point {
    /// The log object's number.
    pub seq: u64,
    /// The last redo record up to it.
    pub lsn: Lsn,
    /// Of the log object.
    pub hash: ChainHash,
    /// Of its writer.
    pub epoch: u64,
}

impl Point {
    /// Before the first log object, which has number 1.
    pub const START: Self = Self {
        seq: 0,
        lsn: 0,
        hash: ChainHash([0; 32]),
        epoch: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is() {
        let hash = ChainHash::of(b"x");
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<ChainHash>(&text).unwrap(), hash);
        for bad in [
            "",
            "00",
            &"0".repeat(63),
            &"g0".repeat(32),
            &"+1".repeat(32),
        ] {
            assert!(ChainHash::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(ChainHash::try_from("\u{e4}".repeat(32)).is_err());
    }

    #[test]
    fn a_piece_outside_of_its_frame_or_file_is_refused() {
        let frame = Frame {
            object: ObjectId::Segment { epoch: 1, seq: 2 },
            offset: 64,
            stored: 10,
            length: 4096,
            crc: 0,
        };
        let piece = |offset, length, place| Piece {
            ino: 1,
            offset,
            length,
            place,
        };
        let sound = [
            piece(0, 4096, Some((frame, 0))),
            piece(5, 1, Some((frame, 4095))),
            piece(0, (1 << 63) - 1, None),
        ];
        let unsound = [
            piece(0, 0, None),
            piece(0, 4097, Some((frame, 0))),
            piece(0, 1, Some((frame, 4096))),
            piece(0, 4096, Some((frame, u32::MAX))),
            piece(u64::MAX, 1, None),
            piece(1, (1 << 63) - 1, None),
            piece(
                0,
                1,
                Some((
                    Frame {
                        stored: 4096 + 29,
                        ..frame
                    },
                    0,
                )),
            ),
            piece(0, 1, Some((Frame { stored: 0, ..frame }, 0))),
        ];
        for (pieces, expected) in [(&sound[..], true), (&unsound[..], false)] {
            for piece in pieces {
                let mut bytes = Encoder::default();
                piece.encode(&mut bytes);
                assert!(bytes.0.len() >= MIN_PIECE_BYTES);
                let read = Piece::decode(&mut Decoder(&bytes.0));
                assert_eq!(read.is_ok(), expected, "{piece:?}");
                assert_eq!(piece.is_sound(), expected);
            }
        }
    }
}
