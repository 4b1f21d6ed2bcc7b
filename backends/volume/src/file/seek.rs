//! Data and holes of a file that is not all here.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::seek;
use vfsd_backend::{Errno, Result, SeekFrom};

use super::OpenFile;

impl OpenFile {
    /// The next data or hole of a file of which some ranges are in a bucket alone: data, all of them.
    pub(super) fn seek_elsewhere(
        &self,
        file: &OwnedFd,
        from: SeekFrom,
        offset: u64,
        missing: &[Range<u64>],
    ) -> Result<u64> {
        let size = self.inode().state.read().row.size;
        if offset >= size {
            return Err(Errno::NXIO.into());
        }
        match from {
            SeekFrom::Data => {
                let elsewhere = missing.first().map(|part| part.start);
                match (seek(file, rustix::fs::SeekFrom::Data(offset)), elsewhere) {
                    (Ok(here), Some(there)) => Ok(here.min(there)),
                    (Err(Errno::NXIO), Some(there)) => Ok(there),
                    (here, _) => Ok(here?),
                }
            }
            SeekFrom::Hole => {
                let mut at = offset;
                while at < size {
                    if let Some(part) = missing.iter().find(|part| part.contains(&at)) {
                        at = part.end;
                        continue;
                    }
                    let hole = seek(file, rustix::fs::SeekFrom::Hole(at))?;
                    if hole == at {
                        break;
                    }
                    at = hole;
                }
                Ok(at.min(size))
            }
        }
    }
}
