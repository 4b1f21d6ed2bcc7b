//! Data and holes of a file on this host.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{copy_file_range, seek};
use rustix::io::{pread, retry_on_intr};
use vfsd_backend::Errno;

use super::ranges::around;

/// The first run of data in a range, in blocks.
pub(super) fn first_data(file: &OwnedFd, range: &Range<u64>) -> Result<Option<Range<u64>>, Errno> {
    if range.start >= range.end {
        return Ok(None);
    }
    let start = match seek(file, rustix::fs::SeekFrom::Data(range.start)) {
        Ok(start) if start < range.end => start,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let end = seek(file, rustix::fs::SeekFrom::Hole(start))?;
    let data = around(&(start..end));
    Ok(Some(data.start.max(range.start)..data.end.min(range.end)))
}

/// All runs of data of a file, in blocks.
pub(crate) fn all_data(file: &OwnedFd, size: u64) -> Result<Vec<Range<u64>>, Errno> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(data) = first_data(file, &(at..size))? {
        at = data.end;
        all.push(data);
    }
    Ok(all)
}

/// Content of a range; zeros where the file has ended.
pub(super) fn read_exactly(file: &OwnedFd, range: &Range<u64>) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(|_| Errno::FBIG)?;
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let offset = range
            .start
            .saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match retry_on_intr(|| pread(file, &mut *rest, offset))? {
            // The file ends in the middle of its last block.
            0 => break,
            count => done = done.saturating_add(count),
        }
    }
    Ok(bytes)
}

/// Copies the data in a range to the same place of another file, and leaves holes.
pub(super) fn copy_data(from: &OwnedFd, to: &OwnedFd, range: &Range<u64>) -> Result<(), Errno> {
    let mut at = range.start;
    while let Some(data) = first_data(from, &(at..range.end))? {
        let (mut read_at, mut write_at) = (data.start, data.start);
        while read_at < data.end {
            let left = usize::try_from(data.end.saturating_sub(read_at)).unwrap_or(usize::MAX);
            match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        at = data.end;
    }
    Ok(())
}
