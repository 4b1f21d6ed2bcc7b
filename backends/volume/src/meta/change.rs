//! Redo records: each is the new images of the rows that one operation changed.
//!
//! To apply a record twice, or to apply only the last image of a row of several records, gives the
//! same tables. That is what recovery and group commit rest on.

use std::sync::Arc;

use vfsd_backend::FileKind;

use super::codec::{BadRecord, Decoder, Encoder};
use super::row::{EntryRow, NodeRow};

/// The first byte of a record. A record of another version is not read.
const VERSION: u8 = 1;
/// A record has fewer changes: a rename has about twelve.
const MAX_CHANGES: u32 = 4096;

/// The new image of a row; `None` where the row is no longer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// An inode. With `None` its extended attributes go, too; its number is never used again.
    Node(u64, Option<NodeRow>),
    /// A name in a directory.
    Entry(u64, Arc<[u8]>, Option<EntryRow>),
    /// An extended attribute.
    Xattr(u64, Arc<[u8]>, Option<Arc<[u8]>>),
    /// An inode without a name that is still used.
    Orphan(u64, bool),
    /// An inode whose size and modification time are newer in its data file than in its row.
    Unsettled(u64, bool),
    /// A hole was made in the content of an inode: from where to where, in bytes. No table has it: it tells those who
    /// read the journal a hole from what is not in the data file because it is elsewhere.
    Hole(u64, u64, u64),
}

const NODE: u8 = 1;
const ENTRY: u8 = 2;
const XATTR: u8 = 3;
const ORPHAN: u8 = 4;
const UNSETTLED: u8 = 5;
const HOLE: u8 = 6;
/// Set beside a kind: the row is gone.
const GONE: u8 = 0x80;

impl Change {
    /// About how many bytes of a record it is.
    pub(crate) fn bytes(&self) -> u64 {
        let (fixed, names) = match self {
            Self::Node(_, None) => (9, 0),
            Self::Node(_, Some(row)) => (160, row.target.len()),
            Self::Entry(_, name, _) => (33, name.len()),
            Self::Xattr(_, name, value) => {
                let value = value.as_ref().map_or(0, |value| value.len());
                (17, name.len().saturating_add(value))
            }
            Self::Orphan(..) | Self::Unsettled(..) => (9, 0),
            Self::Hole(..) => (25, 0),
        };
        u64::try_from(names)
            .unwrap_or(u64::MAX)
            .saturating_add(fixed)
    }

    fn encode(&self, to: &mut Encoder) {
        let kind = |kind: u8, there: bool| if there { kind } else { kind | GONE };
        match self {
            Self::Node(ino, row) => {
                to.u8(kind(NODE, row.is_some()));
                to.u64(*ino);
                if let Some(row) = row {
                    row.encode(to);
                }
            }
            Self::Entry(parent, name, row) => {
                to.u8(kind(ENTRY, row.is_some()));
                to.u64(*parent);
                to.bytes(name);
                if let Some(row) = row {
                    to.u64(row.ino);
                    to.u32(row.kind.mode_bits());
                    to.u64(row.cookie);
                }
            }
            Self::Xattr(ino, name, value) => {
                to.u8(kind(XATTR, value.is_some()));
                to.u64(*ino);
                to.bytes(name);
                if let Some(value) = value {
                    to.bytes(value);
                }
            }
            Self::Orphan(ino, there) => {
                to.u8(kind(ORPHAN, *there));
                to.u64(*ino);
            }
            Self::Unsettled(ino, there) => {
                to.u8(kind(UNSETTLED, *there));
                to.u64(*ino);
            }
            Self::Hole(ino, start, end) => {
                to.u8(HOLE);
                to.u64(*ino);
                to.u64(*start);
                to.u64(*end);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, BadRecord> {
        let kind = from.u8()?;
        let there = kind & GONE == 0;
        let ino = from.u64()?;
        Ok(match kind & !GONE {
            NODE => Self::Node(ino, there.then(|| NodeRow::decode(from)).transpose()?),
            ENTRY => {
                let name = from.bytes()?.into();
                let row = there.then(|| decode_entry(from)).transpose()?;
                Self::Entry(ino, name, row)
            }
            XATTR => {
                let name = from.bytes()?.into();
                let value = there.then(|| from.bytes()).transpose()?;
                Self::Xattr(ino, name, value.map(Into::into))
            }
            ORPHAN => Self::Orphan(ino, there),
            UNSETTLED => Self::Unsettled(ino, there),
            HOLE if there => Self::Hole(ino, from.u64()?, from.u64()?),
            _ => return Err(BadRecord),
        })
    }
}

fn decode_entry(from: &mut Decoder<'_>) -> Result<EntryRow, BadRecord> {
    Ok(EntryRow {
        ino: from.u64()?,
        kind: FileKind::from_mode(from.u32()?).ok_or(BadRecord)?,
        cookie: from.u64()?,
    })
}

/// The bytes of a record.
pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut to = Encoder(Vec::with_capacity(512));
    to.u8(VERSION);
    to.u32(u32::try_from(changes.len()).unwrap_or(u32::MAX));
    for change in changes {
        change.encode(&mut to);
    }
    to.0
}

/// The changes of a record.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Change>, BadRecord> {
    let mut from = Decoder(bytes);
    if from.u8()? != VERSION {
        return Err(BadRecord);
    }
    let count = from.u32()?;
    if count > MAX_CHANGES {
        return Err(BadRecord);
    }
    let changes = (0..count)
        .map(|_| Change::decode(&mut from))
        .collect::<Result<_, _>>()?;
    from.end()?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_backend::{Device, Timestamp};

    fn every_kind_of_change() -> Vec<Change> {
        let time = |seconds| Timestamp::new(seconds, 999_999_999).unwrap();
        let node = NodeRow {
            uid: 1,
            gid: u32::MAX - 1,
            linkable: true,
            has_data: true,
            size: i64::MAX.unsigned_abs(),
            blocks: 7,
            device: Device { major: 8, minor: 9 },
            accessed: time(i64::MIN),
            modified: time(-1),
            changed: time(i64::MAX),
            flags: 0x30,
            project: 5,
            xattrs: 2,
            parent: 11,
            entries: 12,
            next_cookie: 13,
            target: b"where"[..].into(),
            ..NodeRow::new(FileKind::Symlink, 0o7777, time(1))
        };
        let entry = EntryRow {
            ino: 4,
            kind: FileKind::Fifo,
            cookie: u64::MAX,
        };
        vec![
            Change::Node(3, Some(node)),
            Change::Node(4, None),
            Change::Entry(1, b"\xff name"[..].into(), Some(entry)),
            Change::Entry(1, b"gone"[..].into(), None),
            Change::Xattr(2, b"user.a"[..].into(), Some(Arc::default())),
            Change::Xattr(2, b"user.b"[..].into(), None),
            Change::Orphan(9, true),
            Change::Orphan(9, false),
            Change::Unsettled(9, true),
            Change::Unsettled(u64::MAX, false),
            Change::Hole(9, 4096, u64::MAX),
        ]
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_changes() {
        let changes = every_kind_of_change();
        assert_eq!(decode(&encode(&changes)), Ok(changes));
        assert_eq!(decode(&encode(&[])), Ok(Vec::new()));
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_refused() {
        let bytes = encode(&every_kind_of_change());
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(BadRecord), "{length}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(decode(&longer), Err(BadRecord));
    }

    #[test]
    fn a_record_of_another_version_or_kind_is_refused() {
        let mut bytes = encode(&[Change::Orphan(1, true)]);
        bytes[5] = 77;
        assert_eq!(decode(&bytes), Err(BadRecord));
        let mut bytes = encode(&[Change::Orphan(1, true)]);
        bytes[0] = VERSION + 1;
        assert_eq!(decode(&bytes), Err(BadRecord));
        let mut bytes = encode(&[]);
        bytes[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), Err(BadRecord));
    }

    /// Bytes changed at random are refused or read as something; they never panic.
    #[test]
    fn damaged_records_do_no_harm() {
        let bytes = encode(&every_kind_of_change());
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = decode(&damaged);
            }
        }
    }
}
