//! Log objects: the chain that says what a volume is.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | [`MAGIC`], its last byte the version |
//! | 16, 16 | the volume's uuid, the writer's nonce |
//! | 8, 8 | epoch, number |
//! | 8, 8 | first and last redo record |
//! | 32 | SHA-256 of the log object before |
//! | 4, 4, 4 | bytes of inline frames, of the body as it is stored, of the body when it is unpacked |
//! | 4 | 1: content is moved, and nothing else happens; 0 otherwise |
//! | ... | inline frames |
//! | ... | body: records, then pieces; zstd, unless that saves little; sealed with the header where the volume is encrypted |
//! | 4 | CRC-32 of all before |
//!
//! Integers are little-endian. Inline frames come before the body, so that their places are known before that is.

mod complete;
mod inline;

use std::borrow::Cow;

use bytes::Bytes;

pub use self::inline::Inline;
use super::cipher::{Cipher, Sealed};
use super::damage::Damage;
use super::frame::{deflate, inflate};
use super::place::{ChainHash, MIN_PIECE_BYTES, ObjectId, Piece, Point};
use crate::meta::codec::{Decoder, Encoder};
use crate::meta::journal::Lsn;

/// The first bytes of each log object.
const MAGIC: [u8; 16] = *b"vfsd log\0\0\0\0\0\0\0\x01";
const HEADER_BYTES: usize = 128;
const TRAILER_BYTES: usize = 4;
/// Bytes that a record takes in the body at least.
const MIN_RECORD_BYTES: usize = 12;
/// All inline frames of a log object together.
pub const MAX_INLINE_BYTES: usize = 128 << 10;
/// Records and pieces of a log object together. Reading one takes about twice as much memory.
pub const MAX_BODY_BYTES: usize = 64 << 20;
/// No log object is longer.
pub(super) const MAX_LOG_BYTES: u64 = (64 << 20) + (256 << 10);

/// A volume's name, given when it is made.
pub type Uuid = [u8; 16];

/// What happened to a volume in a range of redo records, and where content lies after them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogObject {
    /// Its number: one more than that of the object before.
    pub seq: u64,
    /// Of its writer: never less than in the object before.
    pub epoch: u64,
    /// The record that comes next after those of the object before.
    pub first: Lsn,
    /// The last record; `first - 1` where there are none.
    pub last: Lsn,
    /// Redo records with the numbers `first..=last`.
    pub records: Vec<(Lsn, Vec<u8>)>,
    /// What content is after these records, in the order in which to apply them.
    pub pieces: Vec<Piece>,
    /// The inline frames as they are stored.
    pub inline: Vec<u8>,
    /// The pieces say of content that it lies elsewhere now, and nothing has changed: there are no records.
    pub moves: bool,
}

/// What ties a log object to its volume, its writer and its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) uuid: Uuid,
    /// Told in HEAD, too.
    pub(super) nonce: u128,
    pub(super) previous: ChainHash,
}

/// Why a log object cannot be made of what was given.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// More than a log object takes.
    #[error("{what} of one log object have {bytes} bytes, {limit} are possible")]
    TooLarge {
        /// Of what it is too much.
        what: &'static str,
        /// So many bytes.
        bytes: usize,
        /// At most as many.
        limit: usize,
    },
    /// Figures that no reader would take.
    #[error("{0}")]
    Unsound(Damage),
    /// No memory to compress with, or no random bytes to encrypt with.
    #[error("compression or encryption: {0}")]
    Packing(#[from] std::io::Error),
}

impl LogObject {
    /// The place of the chain that it is, when its bytes have this hash.
    pub(super) fn point(&self, hash: ChainHash) -> Point {
        Point {
            seq: self.seq,
            lsn: self.last,
            hash,
            epoch: self.epoch,
        }
    }

    pub(super) fn encode(&self, link: &Link, cipher: &Cipher) -> Result<Bytes, Unwritable> {
        self.check().map_err(Unwritable::Unsound)?;
        let body = self.body();
        fits("records and pieces", body.len(), MAX_BODY_BYTES)?;
        let packed = deflate(&body)?;
        let packed = packed.map_or(Cow::Borrowed(&*body), Cow::Owned);
        let cipher = cipher.of(Sealed::Content(ObjectId::Log(self.seq)))?;
        let stored_bytes = packed.len().saturating_add(cipher.overhead());
        let mut to = Encoder(Vec::with_capacity(
            self.inline
                .len()
                .saturating_add(stored_bytes)
                .saturating_add(256),
        ));
        to.0.extend_from_slice(&MAGIC);
        to.0.extend_from_slice(&link.uuid);
        to.0.extend_from_slice(&link.nonce.to_le_bytes());
        for value in [self.epoch, self.seq, self.first, self.last] {
            to.u64(value);
        }
        to.0.extend_from_slice(&link.previous.0);
        for length in [self.inline.len(), stored_bytes, body.len()] {
            to.u32(u32::try_from(length).unwrap_or(u32::MAX));
        }
        to.u32(self.moves.into());
        let stored = cipher.seal(&to.0, packed)?;
        to.0.extend_from_slice(&self.inline);
        to.0.extend_from_slice(&stored);
        let crc = crc32fast::hash(&to.0);
        to.u32(crc);
        Ok(to.0.into())
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Encoder::default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        body.u32(count(self.records.len()));
        for (lsn, record) in &self.records {
            body.u64(*lsn);
            body.bytes(record);
        }
        body.u32(count(self.pieces.len()));
        for piece in &self.pieces {
            piece.encode(&mut body);
        }
        body.0
    }

    pub(super) fn decode(bytes: &Bytes, cipher: &Cipher) -> Result<(Self, Link), Damage> {
        let (header, link, lengths) = read_header(bytes)?;
        let [inline, stored, raw] = lengths;
        let start = HEADER_BYTES;
        let middle = start.saturating_add(inline);
        let end = middle.saturating_add(stored);
        let most = raw.saturating_add(cipher.overhead());
        if inline > MAX_INLINE_BYTES || raw > MAX_BODY_BYTES || stored > most {
            return Err(Damage("it is longer than any vfsd writes it"));
        }
        if bytes.len() != end.saturating_add(TRAILER_BYTES) {
            return Err(Damage("it is cut short"));
        }
        let part = |range| bytes.get(range).ok_or(Damage("it is cut short"));
        let crc = crc32fast::hash(part(0..end)?).to_le_bytes();
        if part(end..bytes.len())? != crc {
            return Err(Damage("its checksum is wrong"));
        }
        let cipher = cipher.of(Sealed::Content(ObjectId::Log(header.seq)));
        let cipher = cipher.map_err(|_| Damage("its key cannot be made"))?;
        let body = cipher.open(part(0..start)?, &bytes.slice_ref(part(middle..end)?))?;
        let unpacked = match body.len() == raw {
            true => None,
            false => Some(inflate(&body, u32::try_from(raw).unwrap_or(u32::MAX))?),
        };
        let (records, pieces) = read_body(unpacked.as_deref().unwrap_or(&body))?;
        let object = Self {
            records,
            pieces,
            inline: part(start..middle)?.to_vec(),
            ..header
        };
        object.check()?;
        Ok((object, link))
    }
}

fn header_bytes() -> u64 {
    HEADER_BYTES as u64
}

fn fits(what: &'static str, bytes: usize, limit: usize) -> Result<(), Unwritable> {
    match bytes <= limit {
        true => Ok(()),
        false => Err(Unwritable::TooLarge { what, bytes, limit }),
    }
}

/// An object without its records and pieces, and the lengths of the parts.
fn read_header(bytes: &[u8]) -> Result<(LogObject, Link, [usize; 3]), Damage> {
    let mut from = Decoder(bytes);
    let magic = from.array::<16>()?;
    match (magic.split_last(), MAGIC.split_last()) {
        (Some((found, name)), Some((known, expected))) if name == expected => {
            if found > known {
                return Err(Damage("a newer vfsd wrote it: use that"));
            } else if found < known {
                return Err(Damage("it has a version that never was"));
            }
        }
        _ => return Err(Damage("it is no log object")),
    }
    let uuid = from.array()?;
    let nonce = u128::from_le_bytes(from.array()?);
    let object = LogObject {
        epoch: from.u64()?,
        seq: from.u64()?,
        first: from.u64()?,
        last: from.u64()?,
        ..LogObject::default()
    };
    let previous = ChainHash(from.array()?);
    let mut length = || usize::try_from(from.u32()?).map_err(|_| Damage("it is too long"));
    let lengths = [length()?, length()?, length()?];
    let object = LogObject {
        moves: match from.u32()? {
            0 => false,
            1 => true,
            _ => return Err(Damage("a newer vfsd wrote it: use that")),
        },
        ..object
    };
    let link = Link {
        uuid,
        nonce,
        previous,
    };
    Ok((object, link, lengths))
}

type Body = (Vec<(Lsn, Vec<u8>)>, Vec<Piece>);

fn read_body(bytes: &[u8]) -> Result<Body, Damage> {
    let mut from = Decoder(bytes);
    // What a count may lead to reserve memory for.
    let at_most = |count: u32, each: usize| {
        let room = bytes.len().checked_div(each).unwrap_or(0);
        usize::try_from(count).unwrap_or(usize::MAX).min(room)
    };
    let count = from.u32()?;
    let mut records = Vec::with_capacity(at_most(count, MIN_RECORD_BYTES));
    for _ in 0..count {
        records.push((from.u64()?, from.bytes()?.to_vec()));
    }
    let count = from.u32()?;
    let mut pieces = Vec::with_capacity(at_most(count, MIN_PIECE_BYTES));
    for _ in 0..count {
        pieces.push(Piece::decode(&mut from)?);
    }
    from.end()?;
    Ok((records, pieces))
}

#[cfg(test)]
mod tests;
