//! What is where in the directory of a volume.
//!
//! ```text
//! volume.json    format and identity, written last: without it there is no volume
//! lock           locked by who has the volume open
//! meta.sqlite    the tables (and SQLite's -wal and -shm beside it)
//! journal/       redo records that the tables may not have yet
//! data/xx/       data files
//! ```

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Process, VolumeError};
use crate::quota::Quota;

/// The newest format that is known.
pub(crate) const FORMAT: u32 = 1;
/// No header is longer.
const MAX_HEADER_BYTES: u64 = 64 * 1024;

/// The content of `volume.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: u32,
    pub(crate) uuid: String,
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub(crate) quota: Quota,
}

/// The directory of a volume.
#[derive(Debug, Clone)]
pub(crate) struct Layout(PathBuf);

/// The lock of a directory in which a volume is open, or is about to be.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Keeps other processes from opening a volume in `directory`, which is there, as long as this value is.
    ///
    /// # Errors
    /// [`VolumeError::Locked`] when another process has one open, or the directory cannot be used.
    pub fn of(directory: &Path) -> Result<Self, VolumeError> {
        Layout::new(directory).lock()
    }
}

impl Layout {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("meta.sqlite")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn header_path(&self) -> PathBuf {
        self.0.join("volume.json")
    }

    /// Makes the directory, or takes an empty one.
    pub(crate) fn make(&self) -> Result<(), VolumeError> {
        let failed = VolumeError::failed(&self.0, "cannot make the directory");
        // The files of a guest's users are in it.
        if let Err(error) = DirBuilder::new().mode(0o700).create(&self.0)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(failed(error));
        }
        let mut entries = std::fs::read_dir(&self.0).map_err(failed)?;
        // What mkfs makes at the top of a new ext4 is no content.
        let other = entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "lost+found"));
        match other {
            true => Err(VolumeError::NotEmpty(self.0.clone())),
            false => Ok(()),
        }
    }

    /// Says that there is a volume.
    pub(crate) fn make_header(&self, quota: Quota) -> Result<(), VolumeError> {
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)
            .map_err(VolumeError::failed(&self.0, "cannot name it"))?;
        self.write_header(&Header {
            format: FORMAT,
            uuid: format!("{:032x}", u128::from_le_bytes(random)),
            quota,
        })
    }

    /// Says what kind of volume there is.
    pub(crate) fn write_header(&self, header: &Header) -> Result<(), VolumeError> {
        let write = || {
            let unfinished = self.0.join("volume.json.new");
            let mut file = File::create(&unfinished)?;
            file.write_all(&serde_json::to_vec_pretty(&header)?)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(unfinished, self.header_path())?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(VolumeError::failed(&self.0, "cannot write volume.json"))
    }

    /// Reads what kind of volume there is.
    pub(crate) fn read_header(&self) -> Result<Header, VolumeError> {
        let failed = VolumeError::failed(&self.0, "cannot read volume.json");
        let file = match File::open(self.header_path()) {
            Ok(file) => file,
            Err(error) if is_nothing(&error) => {
                return Err(VolumeError::Missing(self.0.clone()));
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_HEADER_BYTES).read_to_end(&mut bytes);
        let header = read.and_then(|_| Ok(serde_json::from_slice::<Header>(&bytes)?));
        let header = header.map_err(failed)?;
        if header.format > FORMAT {
            return Err(VolumeError::Newer {
                path: self.0.clone(),
                found: header.format,
                known: FORMAT,
            });
        }
        Ok(header)
    }

    /// Why the lock is not to be had at all.
    fn not_locked(&self, error: io::Error) -> VolumeError {
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => VolumeError::ReadOnly(self.0.clone()),
            _ => VolumeError::failed(&self.0, "cannot open the lock")(error),
        }
    }

    /// Keeps other processes from opening the volume.
    pub(crate) fn lock(&self) -> Result<Lock, VolumeError> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.0.join("lock"))
            .map_err(|error| self.not_locked(error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file.into() }),
            Err(Errno::WOULDBLOCK) => Err(VolumeError::Locked {
                path: self.0.clone(),
                user: holder(&file),
            }),
            Err(errno) => Err(VolumeError::failed(&self.0, "cannot lock it")(errno.into())),
        }
    }
}

/// Who has locked a file, as `/proc/locks` tells whoever reads it: `1: FLOCK ADVISORY WRITE 1234 fd:01:5678 0 EOF`. The
/// number that a process knows of itself is another one in a sandbox.
fn holder(file: &File) -> Process {
    let Ok(inode) = file.metadata().map(|metadata| metadata.ino()) else {
        return Process(0);
    };
    let suffix = format!(":{inode}");
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut holders = locks.lines().filter_map(|line| {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [_, "FLOCK", _, _, pid, file, ..] if file.ends_with(&suffix) => pid.parse().ok(),
            _ => None,
        }
    });
    Process(holders.next().unwrap_or(0))
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_volume_on_a_read_only_file_system_is_told_what_to_do() {
        let layout = Layout::new(Path::new("/some/where"));
        let told = layout.not_locked(Errno::ROFS.into()).to_string();
        for part in ["/some/where", "--readonly", "to be written to"] {
            assert!(told.contains(part), "{told}");
        }
        let other = layout.not_locked(Errno::ACCESS.into()).to_string();
        assert!(other.contains("cannot open the lock"), "{other}");
    }
}
