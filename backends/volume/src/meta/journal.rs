//! The journal: redo records in files, in the order of the operations.
//!
//! An operation is acknowledged once its record is in the host's page cache, so that the end of the
//! daemon loses none; it is durable once [`Journal::sync`] has passed its number. SQLite's tables
//! follow behind, and files of the journal go when a checkpoint of SQLite has what is in them.
//!
//! A file is named by the number of its first record, and begins with [`MAGIC`]. Each record is framed by
//! its length (4 bytes), a CRC-32 of all that follows (4) and its number (8), little-endian. Numbers have
//! no gaps. Reading ends at the first frame that is not whole: nothing after it was acknowledged as
//! durable.

mod cursor;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::fdatasync;
use rustix::io::{Errno, pwritev};

pub(crate) use self::cursor::Cursor;

/// The first bytes of each file; the last one is the version of the format.
const MAGIC: [u8; 16] = *b"vfsd journal\0\0\0\x01";
/// A new file begins when one is this long.
const FILE_BYTES: u64 = 16 << 20;
/// A file grows by zeros, as many at a time: a record that is written over them is on the disk with its
/// bytes alone, without a change of the file's size or of its blocks.
const GROWTH: usize = 256 << 10;
/// On a full disk, what is left of the zeros is kept for records that give space back.
const RESERVE: u64 = 128 << 10;
const FRAME_BYTES: usize = 16;
/// No operation writes a longer record.
const MAX_RECORD_BYTES: u32 = 1 << 20;

static ZEROS: [u8; GROWTH] = [0; GROWTH];

/// Number of a redo record. The first is 1.
pub(crate) type Lsn = u64;

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Usual,
    /// It gives space back, or tells what has happened already: it is written also when the disk is full.
    Freeing,
}

#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    tail: Mutex<Tail>,
    /// The last record that is on the disk. Held while it is brought forward: who waits finds it done.
    synced: Mutex<Lsn>,
}

/// Where the next record goes.
#[derive(Debug)]
struct Tail {
    file: Arc<File>,
    /// The number of its first record.
    first: Lsn,
    offset: u64,
    /// Where the file ends.
    end: u64,
    next: Lsn,
    /// Earlier files that are not on the disk yet.
    unsynced: Vec<Arc<File>>,
    /// The folder names a file that is not on the disk yet.
    folder_unsynced: bool,
    /// Full files, oldest first.
    full: Vec<Full>,
    /// Bytes in all files.
    bytes: u64,
    /// The disk failed: what it holds is no longer known, so that nothing is durable from here on.
    failed: bool,
    #[cfg(test)]
    disk_is_full: bool,
}

impl Tail {
    /// Sees to it that there are zeros behind the next record.
    fn make_room(&mut self, bytes: u64, purpose: Purpose) -> io::Result<()> {
        let after = self.offset.saturating_add(bytes);
        if after.saturating_add(RESERVE) <= self.end {
            return Ok(());
        }
        let from = self.end.max(after);
        let grown = write_all(&self.file, &[&ZEROS], from);
        #[cfg(test)]
        let grown = if self.disk_is_full {
            Err(Errno::NOSPC.into())
        } else {
            grown
        };
        match grown {
            Ok(()) => {
                self.end = from.saturating_add(GROWTH as u64);
                Ok(())
            }
            Err(_) if purpose == Purpose::Freeing => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
struct Full {
    first: Lsn,
    last: Lsn,
    bytes: u64,
}

fn path_of(folder: &Path, first: Lsn) -> PathBuf {
    folder.join(format!("{first:020}"))
}

fn begin_file(folder: &Path, first: Lsn) -> io::Result<Arc<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path_of(folder, first))?;
    write_all(&file, &[&MAGIC], 0)?;
    Ok(Arc::new(file))
}

/// Writes all parts, or fails: a record that is half there is overwritten by the next one.
fn write_all(file: &File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    match rustix::io::retry_on_intr(|| pwritev(file, &slices, offset))? {
        written if written == whole => Ok(()),
        _ => Err(Errno::NOSPC.into()),
    }
}

fn header_bytes() -> u64 {
    MAGIC.len() as u64
}

impl Journal {
    /// Begins a new file after the record `last`, the last one of the files that are there, if any are.
    pub(crate) fn begin(folder: &Path, last: Lsn) -> io::Result<Self> {
        let next = last.saturating_add(1);
        let full = full_files(folder, next)?;
        let bytes = full
            .iter()
            .fold(header_bytes(), |sum, full| sum.saturating_add(full.bytes));
        let journal = Self {
            folder: folder.to_owned(),
            tail: Mutex::new(Tail {
                file: begin_file(folder, next)?,
                first: next,
                offset: header_bytes(),
                end: header_bytes(),
                next,
                unsynced: Vec::new(),
                folder_unsynced: true,
                full,
                bytes,
                failed: false,
                #[cfg(test)]
                disk_is_full: false,
            }),
            synced: Mutex::new(last),
        };
        Ok(journal)
    }

    /// Appends a record. `noted` is told its number before the next record can be appended.
    pub(crate) fn append(
        &self,
        record: &[u8],
        purpose: Purpose,
        noted: impl FnOnce(Lsn),
    ) -> io::Result<Lsn> {
        let length = u32::try_from(record.len())
            .ok()
            .filter(|&length| length <= MAX_RECORD_BYTES)
            .ok_or(Errno::FBIG)?;
        let mut tail = self.tail.lock();
        if tail.failed {
            return Err(Errno::IO.into());
        }
        if tail.offset >= FILE_BYTES {
            self.next_file(&mut tail)?;
        }
        let lsn = tail.next;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&lsn.to_le_bytes());
        crc.update(record);
        let mut frame = [0; FRAME_BYTES];
        let parts = length
            .to_le_bytes()
            .into_iter()
            .chain(crc.finalize().to_le_bytes())
            .chain(lsn.to_le_bytes());
        for (byte, value) in frame.iter_mut().zip(parts) {
            *byte = value;
        }
        let bytes = u64::from(length).saturating_add(FRAME_BYTES as u64);
        tail.make_room(bytes, purpose)?;
        write_all(&tail.file, &[&frame, record], tail.offset)?;
        tail.offset = tail.offset.saturating_add(bytes);
        tail.bytes = tail.bytes.saturating_add(bytes);
        tail.next = lsn.saturating_add(1);
        noted(lsn);
        Ok(lsn)
    }

    fn next_file(&self, tail: &mut Tail) -> io::Result<()> {
        let file = begin_file(&self.folder, tail.next)?;
        tail.full.push(Full {
            first: tail.first,
            last: tail.next.saturating_sub(1),
            bytes: tail.offset,
        });
        let full = std::mem::replace(&mut tail.file, file);
        tail.unsynced.push(full);
        tail.folder_unsynced = true;
        tail.first = tail.next;
        tail.offset = header_bytes();
        tail.end = header_bytes();
        tail.bytes = tail.bytes.saturating_add(header_bytes());
        Ok(())
    }

    /// Removes full files whose records are all in SQLite's tables, on the disk: those up to `lsn`.
    pub(crate) fn trim(&self, lsn: Lsn) -> io::Result<()> {
        let mut tail = self.tail.lock();
        let keep = tail.full.iter().position(|full| full.last > lsn);
        let count = keep.unwrap_or(tail.full.len());
        let gone: Vec<Full> = tail.full.drain(..count).collect();
        for full in &gone {
            tail.bytes = tail.bytes.saturating_sub(full.bytes);
        }
        drop(tail);
        gone.iter()
            .try_for_each(|full| std::fs::remove_file(path_of(&self.folder, full.first)))
    }

    /// Number of the last record.
    pub(crate) fn last(&self) -> Lsn {
        self.tail.lock().next.saturating_sub(1)
    }

    /// The last record that is known to be on the disk.
    #[cfg(test)]
    pub(crate) fn synced(&self) -> Lsn {
        *self.synced.lock()
    }

    /// Bytes in all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.tail.lock().bytes
    }

    /// Waits until all records up to `lsn` are on the disk. Calls at the same time share the wait.
    pub(crate) fn sync(&self, lsn: Lsn) -> io::Result<()> {
        let mut synced = self.synced.lock();
        if *synced >= lsn {
            return Ok(());
        }
        let (files, folder, last) = {
            let mut tail = self.tail.lock();
            if tail.failed {
                return Err(Errno::IO.into());
            }
            let mut files = std::mem::take(&mut tail.unsynced);
            files.push(tail.file.clone());
            let folder = std::mem::take(&mut tail.folder_unsynced);
            (files, folder, tail.next.saturating_sub(1))
        };
        let done = files
            .iter()
            .try_for_each(|file| fdatasync(file).map_err(io::Error::from))
            .and_then(|()| match folder {
                true => File::open(&self.folder)?.sync_all(),
                false => Ok(()),
            });
        match done {
            Ok(()) => *synced = last,
            Err(_) => self.tail.lock().failed = true,
        }
        done
    }
}

/// The files of a journal, each with the number of its first record, in order.
fn files(folder: &Path) -> io::Result<Vec<(Lsn, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(first) = name.to_str().and_then(|name| name.parse().ok()) {
            files.push((first, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// What is kept of the files whose records come before `next`.
fn full_files(folder: &Path, next: Lsn) -> io::Result<Vec<Full>> {
    let files = files(folder)?;
    let firsts = files.iter().map(|(first, _)| *first);
    let ends: Vec<Lsn> = firsts.skip(1).chain([next]).collect();
    let mut full = Vec::new();
    for ((first, path), end) in files.iter().zip(ends) {
        // What begins there is begun anew: no record of it is whole.
        if *first < next {
            full.push(Full {
                first: *first,
                last: end.min(next).saturating_sub(1),
                bytes: std::fs::metadata(path)?.len(),
            });
        }
    }
    Ok(full)
}

/// Reads the records after `after`, in order, until the first that is missing or not whole, and says which was
/// the last.
pub(crate) fn read(
    folder: &Path,
    after: Lsn,
    mut each: impl FnMut(Lsn, &[u8]) -> io::Result<()>,
) -> io::Result<Lsn> {
    let mut last = after;
    for (first, path) in files(folder)? {
        if first > last.saturating_add(1) {
            break;
        }
        let mut bytes = Vec::new();
        // A file is little longer than FILE_BYTES; what is longer was not written by a journal.
        let limit = FILE_BYTES
            .saturating_add(u64::from(MAX_RECORD_BYTES) * 2)
            .saturating_add(GROWTH as u64);
        File::open(&path)?.take(limit).read_to_end(&mut bytes)?;
        let mut rest = match bytes.strip_prefix(&MAGIC) {
            Some(rest) => rest,
            None => break,
        };
        let mut expected = first;
        while let Some((lsn, record, after)) = frame(rest) {
            if lsn != expected {
                break;
            }
            if lsn > last {
                each(lsn, record)?;
                last = lsn;
            }
            expected = lsn.saturating_add(1);
            rest = after;
        }
    }
    Ok(last)
}

/// The record at the start of `bytes`, if it is whole: its number, it, and what follows.
fn frame(bytes: &[u8]) -> Option<(Lsn, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, checked) = rest.split_first_chunk::<4>()?;
    let (lsn, rest) = checked.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length);
    if length > MAX_RECORD_BYTES {
        return None;
    }
    let (record, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(lsn);
    sum.update(record);
    (sum.finalize() == u32::from_le_bytes(*crc)).then(|| (Lsn::from_le_bytes(*lsn), record, after))
}

/// Removes all files of a journal.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    files(folder)?
        .iter()
        .try_for_each(|(_, path)| std::fs::remove_file(path))
}

#[cfg(test)]
mod tests;
