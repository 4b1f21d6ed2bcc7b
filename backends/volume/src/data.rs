//! Data files: the content of each regular file, sparse, in a file of the host.
//!
//! The host file's size is the size of the content. It is named by the inode number, in one of 256
//! folders, and made at the first write.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, Mode, OFlags, StatVfs, fstatvfs, ftruncate, mkdirat, openat, renameat, unlinkat,
};
use vfsd_backend::{Errno, Result};

/// The name of a file that gets another one, or none.
const ASIDE: &str = "aside";

/// The folder of all data files.
#[derive(Debug)]
pub(crate) struct DataFolder {
    folder: OwnedFd,
    nameless: Mutex<()>,
}

/// Files that are made one after the other are in one folder, and so near to each other on the disk.
fn shelf(ino: u64) -> String {
    format!("{:02x}", (ino >> 10) & 0xff)
}

fn name(ino: u64) -> String {
    format!("{}/{ino:016x}", shelf(ino))
}

/// The inode number in the name of a data file.
fn number(name: &str) -> Option<u64> {
    (name.len() == 16)
        .then(|| u64::from_str_radix(name, 16).ok())
        .flatten()
}

impl DataFolder {
    /// Makes the folders of an empty volume.
    pub(crate) fn create(path: &Path) -> Result<()> {
        std::fs::create_dir(path)?;
        let folder = File::open(path)?;
        for shelf in 0..=0xff_u8 {
            mkdirat(&folder, format!("{shelf:02x}"), Mode::from_raw_mode(0o700))?;
        }
        Ok(())
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let folder = File::open(path)?.into();
        Ok(Self {
            folder,
            nameless: Mutex::default(),
        })
    }

    /// Opens a data file for reading and writing, and makes it if it shall.
    pub(crate) fn open_file(&self, ino: u64, make: bool) -> Result<OwnedFd, Errno> {
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        flags.set(OFlags::CREATE, make);
        openat(&self.folder, name(ino), flags, Mode::from_raw_mode(0o600))
    }

    /// Makes the data file of content that is elsewhere, a hole of so many bytes. At no time it is there with another
    /// size.
    pub(crate) fn make_file(&self, ino: u64, size: u64) -> Result<OwnedFd, Errno> {
        let _one_at_a_time = self.nameless.lock();
        let file = self.make_aside()?;
        ftruncate(&file, size)?;
        renameat(&self.folder, ASIDE, &self.folder, name(ino))?;
        Ok(file)
    }

    /// A file for a short time, with no name.
    pub(crate) fn nameless(&self) -> Result<OwnedFd, Errno> {
        let _one_at_a_time = self.nameless.lock();
        let file = self.make_aside()?;
        unlinkat(&self.folder, ASIDE, AtFlags::empty())?;
        Ok(file)
    }

    fn make_aside(&self) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(0o600);
        match openat(&self.folder, ASIDE, flags, mode) {
            // Left by a kill.
            Err(Errno::EXIST) => {
                unlinkat(&self.folder, ASIDE, AtFlags::empty())?;
                openat(&self.folder, ASIDE, flags, mode)
            }
            other => other,
        }
    }

    /// Removes a data file, if there is one.
    pub(crate) fn remove(&self, ino: u64) -> Result<(), Errno> {
        match unlinkat(&self.folder, name(ino), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Makes durable that the data file of an inode exists.
    pub(crate) fn sync_name(&self, ino: u64) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shelf = openat(&self.folder, shelf(ino), flags, Mode::empty())?;
        rustix::fs::fsync(shelf)
    }

    /// Makes everything durable that was written to the file system of the folder.
    pub(crate) fn sync_all(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.folder)
    }

    /// The figures of the file system of the folder.
    pub(crate) fn statistics(&self) -> Result<StatVfs, Errno> {
        fstatvfs(self.folder.as_fd())
    }

    /// All data files: when they were used last, inode numbers, and bytes on the disk.
    pub(crate) fn usage(path: &Path) -> Result<Vec<(i64, u64, u64)>> {
        use std::os::unix::fs::MetadataExt;
        let mut all = Vec::new();
        for shelf in 0..=0xff_u8 {
            for file in std::fs::read_dir(path.join(format!("{shelf:02x}")))? {
                let file = file?;
                let Some(ino) = file.file_name().to_str().and_then(number) else {
                    continue;
                };
                match file.metadata() {
                    Ok(found) => {
                        let used = found.atime().max(found.mtime());
                        all.push((used, ino, found.blocks().saturating_mul(512)));
                    }
                    // Removed meanwhile.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(all)
    }

    /// All data files: inode numbers and sizes.
    pub(crate) fn all(path: &Path) -> Result<Vec<(u64, u64)>> {
        let mut all = Vec::new();
        for shelf in 0..=0xff_u8 {
            for file in std::fs::read_dir(path.join(format!("{shelf:02x}")))? {
                let file = file?;
                if let Some(ino) = file.file_name().to_str().and_then(number) {
                    all.push((ino, file.metadata()?.len()));
                }
            }
        }
        Ok(all)
    }
}
