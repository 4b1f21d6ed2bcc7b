//! Segments: objects of up to 16 MiB that hold content and nothing else.
//!
//! A header of 64 bytes, frames, then for each frame which range of which file it was written for, then a
//! footer of 64 bytes. What lies where is told by log objects and checkpoints; the map at the end is for
//! whoever has lost these, and to check a segment by itself.

use std::sync::Arc;

use bytes::Bytes;

use super::cipher::{Cipher, ObjectCipher, Sealed};
use super::damage::Damage;
use super::frame::{Frame, FrameWriter};
use super::log::Uuid;
use super::place::ObjectId;
use crate::meta::codec::{Decoder, Encoder};

const HEADER_MAGIC: [u8; 16] = *b"vfsd segment\0\0\0\x01";
const FOOTER_MAGIC: [u8; 16] = *b"vfsd footer\0\0\0\0\x01";
const HEADER_BYTES: usize = 64;
const FOOTER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 36;
/// A segment is full at this size.
const FULL_BYTES: usize = 16 << 20;
/// What a segment nearly always needs.
const CAPACITY: usize = FULL_BYTES + (1 << 20);
/// No segment is longer: it was not full, and one more frame was put in.
pub(super) const MAX_SEGMENT_BYTES: u64 = (17 << 20) + 4096;

/// A frame of a segment and what it was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The file's inode number.
    pub ino: u64,
    /// Where the content was in the file, in bytes.
    pub offset: u64,
    /// Where it is in the segment.
    pub frame: Frame,
}

/// Collects content for a segment.
#[derive(Debug)]
pub struct SegmentWriter {
    id: ObjectId,
    frames: FrameWriter,
    /// For the map.
    cipher: ObjectCipher,
    entries: Vec<Entry>,
}

/// A segment that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Segment {
    pub(super) id: ObjectId,
    pub(super) entries: Arc<[Entry]>,
    pub(super) bytes: Bytes,
}

impl Segment {
    /// Which one it is.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: each has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its memory, for [another one](super::Remote::segment_in), unless somebody has the segment still.
    pub(crate) fn into_memory(self) -> Option<Vec<u8>> {
        // What is left of it is copied to the start, wherever it is.
        let first = self.bytes.slice(..self.bytes.len().min(1));
        drop(self.bytes);
        first.is_unique().then(|| {
            let mut memory = Vec::from(first);
            memory.clear();
            memory
        })
    }
}

impl SegmentWriter {
    /// Puts it into `memory`, which is empty.
    pub(super) fn new(
        uuid: Uuid,
        (epoch, seq): (u64, u64),
        cipher: &Cipher,
        mut memory: Vec<u8>,
    ) -> std::io::Result<Self> {
        let id = ObjectId::Segment { epoch, seq };
        let sealed = Sealed::Content(id);
        let mut frames = FrameWriter::new(id, 0, cipher.of(sealed)?);
        let mut header = Encoder::default();
        header.0.extend_from_slice(&HEADER_MAGIC);
        header.0.extend_from_slice(&uuid);
        header.u64(epoch);
        header.u64(seq);
        header.0.resize(HEADER_BYTES, 0);
        // Memory is used only as it is filled.
        memory.reserve(CAPACITY);
        frames.bytes = memory;
        frames.bytes.extend_from_slice(&header.0);
        Ok(Self {
            id,
            frames,
            cipher: cipher.of(sealed)?,
            entries: Vec::new(),
        })
    }

    /// Appends a run of 1 to [`MAX_FRAME_BYTES`](super::MAX_FRAME_BYTES) bytes that lies at `offset` in file `ino`; the frame
    /// is where a piece finds it.
    ///
    /// # Errors
    /// The run is empty or too long, or there is no memory.
    pub fn append(&mut self, ino: u64, offset: u64, raw: &[u8]) -> std::io::Result<Frame> {
        let frame = self.frames.append(raw)?;
        self.entries.push(Entry { ino, offset, frame });
        Ok(frame)
    }

    /// Whether nothing more should be appended to one that is to have so many bytes, or as many as one may have.
    pub fn is_full(&self, wanted: usize) -> bool {
        let map = self.entries.len().saturating_mul(ENTRY_BYTES);
        self.bytes().saturating_add(map) >= wanted.min(FULL_BYTES)
    }

    /// Whether there is nothing in it to store.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.frames.bytes.len()
    }

    /// The whole segment. Nothing is left in the writer.
    ///
    /// # Errors
    /// It cannot be encrypted: there are no random bytes. Then nothing is lost.
    pub fn finish(&mut self) -> std::io::Result<Segment> {
        let ObjectId::Segment { epoch, seq } = self.id else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        let map = self.frames.bytes.len();
        let mut to = Encoder::default();
        for entry in &self.entries {
            to.u64(entry.ino);
            to.u64(entry.offset);
            to.u64(entry.frame.offset);
            to.u32(entry.frame.stored);
            to.u32(entry.frame.length);
            to.u32(entry.frame.crc);
        }
        let stored = self.cipher.seal(&about_map(map), to.0.into())?;
        let map_crc = crc32fast::hash(&stored);
        let entries = std::mem::take(&mut self.entries);
        let mut bytes = std::mem::take(&mut self.frames.bytes);
        bytes.extend_from_slice(&stored);
        let whole = bytes.len().saturating_add(FOOTER_BYTES);
        let mut footer = Encoder::default();
        footer.0.extend_from_slice(&FOOTER_MAGIC);
        footer.u64(epoch);
        footer.u64(seq);
        footer.u64(u64::try_from(whole).unwrap_or(u64::MAX));
        footer.u64(u64::try_from(map).unwrap_or(u64::MAX));
        footer.u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        footer.u32(map_crc);
        footer.u32(0);
        let crc = crc32fast::hash(&footer.0);
        footer.u32(crc);
        bytes.extend_from_slice(&footer.0);
        Ok(Segment {
            id: self.id,
            entries: entries.into(),
            bytes: bytes.into(),
        })
    }
}

/// What the seal of a map is bound to that begins there.
fn about_map(at: usize) -> [u8; 9] {
    let mut about = [b'm'; 9];
    let at = u64::try_from(at).unwrap_or(u64::MAX).to_le_bytes();
    about
        .iter_mut()
        .skip(1)
        .zip(at)
        .for_each(|(to, from)| *to = from);
    about
}

/// The frames of a segment, all of whose bytes are checked but the frames' own.
pub(super) fn read_map(
    id: ObjectId,
    uuid: Uuid,
    bytes: &Bytes,
    cipher: &Cipher,
) -> Result<Vec<Entry>, Damage> {
    const SHORT: Damage = Damage("it is cut short");
    const NONE: Damage = Damage("it is not this volume's segment of that name");
    let ObjectId::Segment { epoch, seq } = id else {
        return Err(NONE);
    };
    let mut header = Decoder(bytes);
    let mut expected = Encoder::default();
    expected.u64(epoch);
    expected.u64(seq);
    let found: [u8; 48] = header.array()?;
    if found != *[&HEADER_MAGIC[..], &uuid, &expected.0].concat() {
        return Err(NONE);
    }
    let footer_at = bytes.len().checked_sub(FOOTER_BYTES).ok_or(SHORT)?;
    let footer = bytes.get(footer_at..).ok_or(SHORT)?;
    let (sealed, crc) = footer.split_last_chunk::<4>().ok_or(SHORT)?;
    let mut from = Decoder(sealed);
    if from.array::<16>()? != FOOTER_MAGIC || crc32fast::hash(sealed).to_le_bytes() != *crc {
        return Err(Damage("its footer is damaged, or it is cut short"));
    }
    let named = (from.u64()?, from.u64()?) == (epoch, seq);
    if !named || usize::try_from(from.u64()?) != Ok(bytes.len()) {
        return Err(NONE);
    }
    let map_at = usize::try_from(from.u64()?).map_err(|_| SHORT)?;
    let count = usize::try_from(from.u32()?).map_err(|_| SHORT)?;
    if map_at > footer_at {
        return Err(SHORT);
    }
    let map = bytes.slice(map_at..footer_at);
    if crc32fast::hash(&map) != from.u32()? {
        return Err(Damage("its map is damaged"));
    }
    let cipher = cipher.of(Sealed::Content(id));
    let cipher = cipher.map_err(|_| Damage("its key cannot be made"))?;
    let map = cipher.open(&about_map(map_at), &map)?;
    if count.checked_mul(ENTRY_BYTES) != Some(map.len()) {
        return Err(Damage("its map is damaged"));
    }
    let map_at = u64::try_from(map_at).map_err(|_| SHORT)?;
    let mut from = Decoder(&map);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = Entry {
            ino: from.u64()?,
            offset: from.u64()?,
            frame: Frame {
                object: id,
                offset: from.u64()?,
                stored: from.u32()?,
                length: from.u32()?,
                crc: from.u32()?,
            },
        };
        if !entry.frame.is_sound() || entry.frame.end() > map_at {
            return Err(Damage("its map is damaged"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = *b"0123456789abcdef";

    fn writer(epoch: u64, seq: u64) -> SegmentWriter {
        SegmentWriter::new(UUID, (epoch, seq), &Cipher::default(), Vec::new()).unwrap()
    }

    fn segment() -> (Segment, Vec<Frame>) {
        let mut writer = writer(5, 0x1ff);
        assert!(writer.is_empty());
        let frames = vec![
            writer.append(7, 4096, b"some content").unwrap(),
            writer.append(8, 0, &[0; 300]).unwrap(),
        ];
        (writer.finish().unwrap(), frames)
    }

    fn read(segment: &Segment, bytes: &[u8]) -> Result<Vec<Entry>, Damage> {
        read_map(
            segment.id(),
            UUID,
            &Bytes::copy_from_slice(bytes),
            &Cipher::default(),
        )
    }

    #[test]
    fn a_segment_knows_what_its_frames_were_written_for() {
        let (segment, frames) = segment();
        let entries = read(&segment, &segment.bytes).unwrap();
        let found: Vec<_> = entries.iter().map(|entry| entry.frame).collect();
        assert_eq!(found, frames);
        assert_eq!((entries[0].ino, entries[0].offset), (7, 4096));
        let first = frames[0];
        let plain = Cipher::default().of(Sealed::Content(segment.id())).unwrap();
        let start = usize::try_from(first.offset).unwrap();
        let end = usize::try_from(first.end()).unwrap();
        let content = first
            .unpack(&segment.bytes.slice(start..end), &plain)
            .unwrap();
        assert_eq!(content, "some content");
    }

    #[test]
    fn a_segment_without_frames_can_be_read() {
        let empty = writer(1, 1).finish().unwrap();
        assert_eq!(read(&empty, &empty.bytes), Ok(Vec::new()));
    }

    #[test]
    fn a_segment_that_is_cut_anywhere_is_refused() {
        let (segment, _) = segment();
        for length in 0..segment.len() {
            assert!(
                read(&segment, &segment.bytes[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn no_changed_byte_outside_of_frames_and_padding_passes() {
        let (segment, frames) = segment();
        let frames_end = usize::try_from(frames[1].end()).unwrap();
        for at in (0..48).chain(frames_end..segment.len()) {
            let mut damaged = segment.bytes.to_vec();
            damaged[at] ^= 4;
            assert!(read(&segment, &damaged).is_err(), "{at}");
        }
    }

    #[test]
    fn another_volumes_segment_is_refused() {
        let (segment, _) = segment();
        let read = read_map(segment.id(), [0; 16], &segment.bytes, &Cipher::default());
        assert!(read.is_err());
        let other = ObjectId::Segment { epoch: 5, seq: 0 };
        assert!(read_map(other, UUID, &segment.bytes, &Cipher::default()).is_err());
    }

    #[test]
    fn a_segment_is_full_at_16_mib() {
        let mut writer = writer(1, 1);
        let mut state = 1_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let noise: Vec<u8> = (0..1 << 17).flat_map(|_| next().to_le_bytes()).collect();
        let mut frames = 0;
        while !writer.is_full(usize::MAX) {
            assert_eq!(writer.is_full(4 << 20), frames >= 4);
            writer.append(1, frames << 20, &noise).unwrap();
            frames += 1;
        }
        assert_eq!(frames, 16);
        let segment = writer.finish().unwrap();
        assert!(segment.len() < (17 << 20));
        assert_eq!(read(&segment, &segment.bytes).unwrap().len(), 16);
    }

    #[test]
    fn the_memory_of_a_segment_that_nobody_has_is_that_of_the_next() {
        let (segment, _) = segment();
        let memory = segment.bytes.as_ptr();
        let other = segment.clone();
        assert!(segment.into_memory().is_none());
        let free = other.into_memory().unwrap();
        assert_eq!((free.as_ptr(), free.len()), (memory, 0));
        let cipher = Cipher::default();
        let mut next = SegmentWriter::new(UUID, (5, 6), &cipher, free).unwrap();
        next.append(7, 0, b"other content").unwrap();
        let next = next.finish().unwrap();
        assert_eq!(next.bytes.as_ptr(), memory);
        assert_eq!(read(&next, &next.bytes).unwrap().len(), 1);
    }
}
