//! Getting at a file through `/proc/self/fd`, with no other path.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, Mode, OFlags, Timestamps, accessat, chmodat, linkat, openat, utimensat,
};
use rustix::path::DecInt;
use vfsd_backend::{AccessMask, Errno, Name};

/// The directory `/proc/self/fd`: its entries are links to this process's open files, which lead to
/// the inode itself whatever has become of its name.
#[derive(Debug)]
pub(crate) struct ProcFd(OwnedFd);

impl ProcFd {
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The number under which `file` is found in the directory.
    pub(crate) fn number(file: BorrowedFd<'_>) -> DecInt {
        DecInt::from_fd(file)
    }

    /// Opens the file of an `O_PATH` descriptor, whose type the caller has checked to be a
    /// directory or a regular file: opening anything else could block or have effects.
    pub(crate) fn reopen(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = (flags | OFlags::CLOEXEC | OFlags::NOCTTY).difference(OFlags::NOFOLLOW);
        openat(&self.0, Self::number(file), flags, Mode::empty())
    }

    /// A descriptor that only stands for the inode of `file`.
    pub(crate) fn reopen_path(&self, file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat(&self.0, Self::number(file), flags, Mode::empty())
    }

    pub(crate) fn chmod(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
        chmodat(&self.0, Self::number(file), mode, AtFlags::empty())
    }

    /// Asks whether the file may be used by who the thread is now (faccessat2(2)).
    pub(crate) fn access(&self, file: BorrowedFd<'_>, mask: AccessMask) -> Result<(), Errno> {
        let mut access = Access::EXISTS;
        for (asked, flag) in [
            (AccessMask::READ, Access::READ_OK),
            (AccessMask::WRITE, Access::WRITE_OK),
            (AccessMask::EXECUTE, Access::EXEC_OK),
        ] {
            access.set(flag, mask.contains(asked));
        }
        accessat(&self.0, Self::number(file), access, AtFlags::EACCESS)
    }

    pub(crate) fn set_times(&self, file: BorrowedFd<'_>, times: &Timestamps) -> Result<(), Errno> {
        utimensat(&self.0, Self::number(file), times, AtFlags::empty())
    }

    /// Gives the inode of `file` a name.
    pub(crate) fn link(
        &self,
        file: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<(), Errno> {
        linkat(
            &self.0,
            Self::number(file),
            directory,
            name.as_bytes(),
            AtFlags::SYMLINK_FOLLOW,
        )
    }
}

impl AsFd for ProcFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
