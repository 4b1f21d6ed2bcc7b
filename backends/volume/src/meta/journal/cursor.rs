//! Reading a journal while it is written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{GROWTH, Lsn, MAX_RECORD_BYTES, files, frame, header_bytes, path_of};

/// So much is read at first, which is plenty for what follows an `fsync`; twice as much each time that it was not enough.
const FIRST_READ: usize = 16 << 10;

/// Reads records while others are appended.
#[derive(Debug)]
pub(crate) struct Cursor {
    folder: PathBuf,
    file: Option<File>,
    offset: u64,
    /// The record that comes next.
    next: Lsn,
}

impl Cursor {
    /// Before the first record after `after`.
    pub(crate) fn new(folder: &Path, after: Lsn) -> Self {
        Self {
            folder: folder.to_owned(),
            file: None,
            offset: 0,
            next: after.saturating_add(1),
        }
    }

    /// Reads on up to and with the record `last`, which was appended before.
    ///
    /// # Errors
    /// One of them is not there.
    pub(crate) fn read_to(&mut self, last: Lsn) -> io::Result<Vec<(Lsn, Vec<u8>)>> {
        let mut records = Vec::new();
        // Not kept: behind the last record there are zeros that others are written over.
        let mut buffer: Vec<u8> = Vec::new();
        let mut done: usize = 0;
        let mut step = FIRST_READ;
        while self.next <= last {
            let rest = buffer.get(done..).unwrap_or_default();
            if let Some((lsn, record, after)) = frame(rest)
                && lsn <= self.next
            {
                if lsn == self.next {
                    records.push((lsn, record.to_vec()));
                    self.next = lsn.saturating_add(1);
                }
                let length = rest.len().saturating_sub(after.len());
                done = done.saturating_add(length);
                self.offset = self.offset.saturating_add(length as u64);
                continue;
            }
            if self.begin_next_file()? {
                buffer.clear();
                done = 0;
                continue;
            }
            buffer.drain(..done.min(buffer.len()));
            done = 0;
            let file = self.file.as_ref().ok_or(Errno::NOENT)?;
            let old = buffer.len();
            buffer.resize(old.saturating_add(step), 0);
            step = step.saturating_mul(2).min(GROWTH);
            let at = self.offset.saturating_add(old as u64);
            let space = buffer.get_mut(old..).unwrap_or_default();
            let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *space, at))?;
            buffer.truncate(old.saturating_add(count));
            if count == 0 || old > GROWTH.saturating_add(MAX_RECORD_BYTES as usize) {
                let lost = format!("record {} of the journal is not there", self.next);
                return Err(io::Error::other(lost));
            }
        }
        Ok(records)
    }

    /// Goes to the file that the next record is in, unless that is the one that is read.
    fn begin_next_file(&mut self) -> io::Result<bool> {
        let path = match &self.file {
            // A file is named by its first record.
            Some(_) => path_of(&self.folder, self.next),
            None => {
                let files = files(&self.folder)?.into_iter().rev();
                let holds = files.into_iter().find(|(first, _)| *first <= self.next);
                holds.ok_or(Errno::NOENT)?.1
            }
        };
        match File::open(path) {
            Ok(file) => {
                let same = match &self.file {
                    Some(old) => same_file(old, &file)?,
                    None => false,
                };
                if !same {
                    self.file = Some(file);
                    self.offset = header_bytes();
                }
                Ok(!same)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn same_file(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
