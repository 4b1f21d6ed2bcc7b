//! The records of a PAX extended header (POSIX.1-2017, pax, "pax Extended Header").

use vfsd_backend::Timestamp;

use super::number;
use super::sparse::Piece;

/// What the records before an entry say of it. A record with an empty value leaves the header's.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) modified: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU's records of a sparse file.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// The map of forms 0.0 and 0.1.
    pub(super) map: Vec<Piece>,
    /// Of form 0.0, until its length comes.
    offset: Option<u64>,
}

/// Where the map of a sparse file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaxSparseForm {
    /// In the records: 0.0 and 0.1.
    InRecords,
    /// Before the content: 1.0.
    InContent,
}

impl Pax {
    /// Reads the records; at most `max_pieces` of a sparse map.
    pub(super) fn parse(mut records: &[u8], max_pieces: usize) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or("a PAX record has a wrong length")?;
            records = rest;
            // Who writes LIBARCHIVE.xattr writes SCHILY.xattr, too; other unpackers know only this.
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                pax.set_xattr(name, value.to_vec());
            } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                pax.sparse.set(name, value, max_pieces)?;
            } else if !value.is_empty() {
                pax.set(key, value)?;
            }
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = Some(name(value)?),
            b"linkpath" => self.link = Some(name(value)?),
            b"size" => {
                let size = number::decimal(value).filter(|size| i64::try_from(*size).is_ok());
                self.size = Some(size.ok_or("a PAX size is no number")?);
            }
            b"uid" => self.uid = Some(owner(value)?),
            b"gid" => self.gid = Some(owner(value)?),
            b"mtime" => {
                self.modified = Some(number::time(value).ok_or("a PAX time is no time")?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The last of a name counts. No attribute is without a name.
    fn set_xattr(&mut self, name: &[u8], value: Vec<u8>) {
        if name.is_empty() {
            return;
        }
        match self.xattrs.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value,
            None => self.xattrs.push((name.to_vec(), value)),
        }
    }
}

impl PaxSparse {
    /// Whether the entry is sparse, and in which form.
    pub(super) fn form(&self) -> Result<Option<PaxSparseForm>, &'static str> {
        match (self.major, self.minor) {
            (None, None) if self.map.is_empty() => Ok(None),
            (None | Some(0), None | Some(0 | 1)) => Ok(Some(PaxSparseForm::InRecords)),
            (Some(1), Some(0)) => Ok(Some(PaxSparseForm::InContent)),
            _ => Err("a sparse file of an unknown form"),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], max: usize) -> Result<(), &'static str> {
        let number = || number::decimal(value).ok_or("a sparse map has what is no number");
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => self.name = Some(name(value)?),
            b"realsize" | b"size" => self.real_size = Some(number()?),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or("a sparse map has no offset")?;
                self.push(offset, number()?, max)?;
            }
            b"map" => {
                self.map.clear();
                let mut numbers = value.split(|byte| *byte == b',').map(number::decimal);
                while let Some(offset) = numbers.next() {
                    let (Some(offset), Some(Some(length))) = (offset, numbers.next()) else {
                        return Err("a sparse map has what is no pair of numbers");
                    };
                    self.push(offset, length, max)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, length: u64, max: usize) -> Result<(), &'static str> {
        if self.map.len() >= max {
            return Err("a sparse map has too many pieces");
        }
        self.map.push(Piece { offset, length });
        Ok(())
    }
}

/// The first record's key and value, and what follows it: `<length> <key>=<value>\n`, where the
/// length counts itself.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = number::decimal(records.get(..space)?)?;
    let (record, rest) = records.split_at_checked(usize::try_from(length).ok()?)?;
    let record = record.get(space.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = record.split_at_checked(equals)?;
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, value.get(1..)?, rest))
}

fn name(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.contains(&0) {
        return Err("a PAX name has a NUL");
    }
    Ok(value.to_vec())
}

fn owner(value: &[u8]) -> Result<i64, &'static str> {
    number::decimal(value)
        .and_then(|id| i64::try_from(id).ok())
        .ok_or("a PAX owner is no number")
}
