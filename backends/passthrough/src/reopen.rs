//! How an inode is opened again that has no descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use vfsd_backend::{Errno, Name, Wait};

use crate::inode::Inode;
use crate::stat::Stat;
use crate::syscalls::FileHandle;

/// How an inode is opened again that has no descriptor.
#[derive(Debug)]
pub(crate) enum Reopen {
    /// Not known: it has always had its descriptor.
    Unknown,
    /// By its handle, which names it as long as it exists.
    ByHandle(FileHandle),
    /// By the name that it was listed under. It has never been opened: the guest has seen nothing of it but
    /// attributes.
    ByName(Box<ListedName>),
    /// Not any more: the inode with its handle does not exist.
    Gone,
}

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct ListedName {
    /// It has been opened, so that itself it is not reopened by name: names do not lead on to names.
    directory: Arc<Inode>,
    name: StoredName,
}

/// The bytes of a name, next to one another in memory if they are as short as most are.
#[derive(Debug)]
enum StoredName {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

const SHORT: usize = 30;

impl StoredName {
    fn new(name: Name<'_>) -> Self {
        let name = name.as_bytes();
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(name);
                Self::Short { length, bytes }
            }
            _ => Self::Long(name.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl ListedName {
    pub(crate) fn new(directory: Arc<Inode>, name: Name<'_>) -> Self {
        directory.count_listed();
        Self {
            directory,
            name: StoredName::new(name),
        }
    }

    pub(crate) fn is(&self, directory: &Inode, name: Name<'_>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.directory), directory)
            && self.name.as_bytes() == name.as_bytes()
    }

    fn name(&self) -> Result<Name<'_>, Errno> {
        Name::new(self.name.as_bytes())
    }

    /// What is there now, opened as an `O_PATH` descriptor. ESTALE when nothing is.
    pub(crate) fn open(&self) -> Result<(OwnedFd, Stat), Errno> {
        let directory = self.directory.descriptor()?;
        let fd = self.directory.share().open_child(
            directory.as_fd(),
            self.name()?,
            OFlags::PATH,
            Mode::empty(),
            Wait::Allowed,
        );
        let fd = fd.map_err(vanished)?;
        let stat = Stat::of(fd.as_fd())?;
        Ok((fd, stat))
    }

    /// What is there now. ESTALE when nothing is.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        let directory = self.directory.descriptor()?;
        Stat::at(directory.as_fd(), self.name()?).map_err(vanished)
    }
}

impl Drop for ListedName {
    fn drop(&mut self) {
        self.directory.uncount_listed();
    }
}

/// The guest does not ask for a name here, but for what it knew under that name.
fn vanished(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Errno::STALE,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stored_whole() {
        for length in [1, 29, 30, 31, 255] {
            let bytes = vec![b'n'; length];
            let stored = StoredName::new(Name::new(&bytes).unwrap());
            assert_eq!(stored.as_bytes(), bytes);
        }
    }

    #[test]
    fn what_each_node_needs_is_small() {
        assert_eq!(size_of::<Reopen>(), 16);
        assert_eq!(size_of::<ListedName>(), 40);
    }
}
