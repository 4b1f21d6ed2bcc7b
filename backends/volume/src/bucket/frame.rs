//! Frames: runs of content, each compressed and checked by itself, so that a part of an object can be
//! read without the rest.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use zstd::bulk::Compressor;

use super::cipher::ObjectCipher;
use super::damage::Damage;
use super::place::ObjectId;
use crate::meta::codec::{BadRecord, Decoder, Encoder};

/// The longest run of content in one frame, in bytes.
pub const MAX_FRAME_BYTES: u32 = 1 << 20;
/// What a seal adds.
const SEALED: u32 = 28;
/// Fast; higher levels save a few per cent and cost several times as long.
const LEVEL: i32 = 1;

/// One compressed run of content inside an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// The object.
    pub object: ObjectId,
    /// Where it begins there, in bytes from the object's start.
    pub offset: u64,
    /// How many bytes it takes there: 1 to [`length`](Self::length), and 28 more where the volume is encrypted. As many
    /// as that: not compressed.
    pub stored: u32,
    /// How long its content is, in bytes: 1 to [`MAX_FRAME_BYTES`].
    pub length: u32,
    /// CRC-32 of the bytes that are stored.
    pub crc: u32,
}

impl Frame {
    /// Whether the figures are ones that a writer gives.
    pub fn is_sound(&self) -> bool {
        (1..=MAX_FRAME_BYTES).contains(&self.length)
            && (1..=self.length.saturating_add(SEALED)).contains(&self.stored)
            && self.offset.checked_add(self.stored.into()).is_some()
    }

    /// Where it ends in its object.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.stored.into())
    }

    /// What a seal is bound to.
    fn about(&self) -> [u8; 13] {
        let mut about = [b'f'; 13];
        let numbers = self.offset.to_le_bytes().into_iter();
        let numbers = numbers.chain(self.length.to_le_bytes());
        about
            .iter_mut()
            .skip(1)
            .zip(numbers)
            .for_each(|(to, from)| *to = from);
        about
    }

    /// The content, from the bytes that are stored.
    pub(super) fn unpack(&self, stored: &Bytes, cipher: &ObjectCipher) -> Result<Bytes, Damage> {
        if !self.is_sound() || u64::try_from(stored.len()) != Ok(self.stored.into()) {
            return Err(Damage(
                "a frame of content has another length than its place says",
            ));
        }
        if crc32fast::hash(stored) != self.crc {
            return Err(Damage("a frame of content has a wrong checksum"));
        }
        let opened = cipher.open(&self.about(), stored)?;
        match u32::try_from(opened.len()) {
            Ok(length) if length == self.length => Ok(opened),
            Ok(length) if length < self.length => inflate(&opened, self.length).map(Bytes::from),
            _ => Err(Damage("a frame of content is longer than what it holds")),
        }
    }

    pub(super) fn encode(&self, to: &mut Encoder) {
        self.object.encode(to);
        to.u64(self.offset);
        to.u32(self.stored);
        to.u32(self.length);
        to.u32(self.crc);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, BadRecord> {
        let frame = Self {
            object: ObjectId::decode(from)?,
            offset: from.u64()?,
            stored: from.u32()?,
            length: from.u32()?,
            crc: from.u32()?,
        };
        frame.is_sound().then_some(frame).ok_or(BadRecord)
    }
}

/// What zstd made of exactly `length` bytes.
pub(super) fn inflate(stored: &[u8], length: u32) -> Result<Vec<u8>, Damage> {
    const BAD: Damage = Damage("compressed bytes cannot be read");
    let length = usize::try_from(length).map_err(|_| BAD)?;
    let content = zstd::bulk::decompress(stored, length).map_err(|_| BAD)?;
    (content.len() == length).then_some(content).ok_or(BAD)
}

thread_local! {
    /// Making one costs as much as compressing what an `fsync` sends.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses, unless that would save less than a twentieth.
///
/// # Errors
/// There is no memory.
pub(super) fn deflate(raw: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let packed = COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(raw)
    })?;
    let worth = raw.len().saturating_sub(raw.len() / 20);
    Ok((packed.len() < worth).then_some(packed))
}

/// Puts frames one behind the other.
pub(super) struct FrameWriter {
    object: ObjectId,
    /// Where the first one begins in the object.
    base: u64,
    cipher: ObjectCipher,
    pub(super) bytes: Vec<u8>,
}

impl FrameWriter {
    pub(super) fn new(object: ObjectId, base: u64, cipher: ObjectCipher) -> Self {
        Self {
            object,
            base,
            cipher,
            bytes: Vec::new(),
        }
    }

    /// Appends a run of 1 to [`MAX_FRAME_BYTES`] bytes.
    pub(super) fn append(&mut self, raw: &[u8]) -> io::Result<Frame> {
        let length = u32::try_from(raw.len())
            .ok()
            .filter(|length| (1..=MAX_FRAME_BYTES).contains(length))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let packed = deflate(raw)?;
        let packed = packed.map_or(Cow::Borrowed(raw), Cow::Owned);
        let before = u64::try_from(self.bytes.len()).map_err(io::Error::other)?;
        let frame = Frame {
            object: self.object,
            offset: self.base.saturating_add(before),
            stored: 0,
            length,
            crc: 0,
        };
        let stored = self.cipher.seal(&frame.about(), packed)?;
        self.bytes.extend_from_slice(&stored);
        Ok(Frame {
            stored: u32::try_from(stored.len()).map_err(io::Error::other)?,
            crc: crc32fast::hash(&stored),
            ..frame
        })
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter")
            .field("object", &self.object)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::cipher::{Cipher, Sealed};

    fn plain() -> ObjectCipher {
        let object = Sealed::Content(ObjectId::Log(3));
        Cipher::default().of(object).unwrap()
    }

    fn writer(base: u64) -> FrameWriter {
        FrameWriter::new(ObjectId::Log(3), base, plain())
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()[7]
        };
        (0..length).map(next).collect()
    }

    fn stored(writer: &FrameWriter, frame: Frame) -> Bytes {
        let start = usize::try_from(frame.offset - writer.base).unwrap();
        let end = start + usize::try_from(frame.stored).unwrap();
        Bytes::copy_from_slice(&writer.bytes[start..end])
    }

    #[test]
    fn frames_give_back_what_was_put_in() {
        let mut writer = writer(100);
        for raw in [
            vec![0; 1 << 20],
            noise(70_000),
            vec![7],
            b"abc".repeat(2000),
        ] {
            let frame = writer.append(&raw).unwrap();
            assert!(frame.is_sound());
            assert_eq!(
                frame.unpack(&stored(&writer, frame), &plain()).unwrap(),
                raw
            );
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_stored_as_it_is() {
        let mut writer = writer(0);
        let frame = writer.append(&noise(8192)).unwrap();
        assert_eq!(frame.stored, frame.length);
        let frame = writer.append(&[0; 8192]).unwrap();
        assert!(frame.stored < 100);
    }

    #[test]
    fn a_run_that_is_empty_or_too_long_is_refused() {
        let mut writer = writer(0);
        assert!(writer.append(&[]).is_err());
        assert!(writer.append(&vec![0; (1 << 20) + 1]).is_err());
    }

    #[test]
    fn no_changed_byte_passes() {
        let mut writer = writer(0);
        for raw in [noise(500), b"abc".repeat(300)] {
            let frame = writer.append(&raw).unwrap();
            let whole = stored(&writer, frame);
            for at in 0..whole.len() {
                let mut damaged = whole.to_vec();
                damaged[at] ^= 0x10;
                assert!(frame.unpack(&damaged.into(), &plain()).is_err(), "{at}");
                assert!(frame.unpack(&whole.slice(..at), &plain()).is_err(), "{at}");
            }
        }
    }

    /// A checksum that fits does not make a lie about the length harmful.
    #[test]
    fn a_frame_that_lies_about_its_length_is_refused() {
        let packed: Bytes = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap().into();
        let frame = |length| Frame {
            object: ObjectId::Log(1),
            offset: 0,
            stored: u32::try_from(packed.len()).unwrap(),
            length,
            crc: crc32fast::hash(&packed),
        };
        assert!(frame(1 << 20).unpack(&packed, &plain()).is_ok());
        assert!(frame((1 << 20) - 1).unpack(&packed, &plain()).is_err());
        assert!(frame(4096).unpack(&packed, &plain()).is_err());
        assert!(frame(u32::MAX).unpack(&packed, &plain()).is_err());
    }
}
