//! The flags of chattr(1) and the project of an inode, by the ioctls of ext4, XFS, btrfs and others.
//!
//! The project is shown and cannot be changed: it says whose quota the file counts to on the host, where
//! its owner, whom a guest may make of it what it likes, could choose another.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use vfsd_backend::{Errno, FileKind, FsXattr};

use crate::inode::Inode;
use crate::share::no_descriptor;
use crate::syscalls::{get_fs_xattr, set_fs_xattr};

/// `FS_PROJINHERIT_FL` and `FS_XFLAG_PROJINHERIT` (linux/fs.h): new files get the directory's project.
const PROJINHERIT: u32 = 0x2000_0000;
const XFLAG_PROJINHERIT: u32 = 0x0000_0200;

type Result<T> = std::result::Result<T, Errno>;

impl Inode {
    /// A descriptor that takes an ioctl. Only files without an ioctl of their own are ever opened:
    /// ENOTTY for a special file.
    fn open_for_ioctl(&self) -> Result<OwnedFd> {
        if !matches!(self.kind(), FileKind::Regular | FileKind::Directory) {
            return Err(Errno::NOTTY);
        }
        let descriptor = self.descriptor()?;
        self.share()
            .proc_fd
            .reopen(descriptor.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(no_descriptor)
    }

    pub(crate) fn inode_flags(&self) -> Result<u32> {
        Ok(ioctl_getflags(self.open_for_ioctl()?)?.bits())
    }

    pub(crate) fn set_inode_flags(&self, flags: u32) -> Result<()> {
        let file = self.open_for_ioctl()?;
        let flags = IFlags::from_bits_retain(flags);
        let inherits = |flags: IFlags| flags.intersection(IFlags::from_bits_retain(PROJINHERIT));
        if inherits(flags) != inherits(ioctl_getflags(&file)?) {
            return Err(Errno::PERM);
        }
        ioctl_setflags(file, flags)
    }

    pub(crate) fn fs_xattr(&self) -> Result<FsXattr> {
        get_fs_xattr(self.open_for_ioctl()?.as_fd())
    }

    pub(crate) fn set_fs_xattr(&self, value: FsXattr) -> Result<()> {
        let file = self.open_for_ioctl()?;
        let now = get_fs_xattr(file.as_fd())?;
        let project = |value: FsXattr| (value.project, value.xflags & XFLAG_PROJINHERIT);
        if project(value) != project(now) {
            return Err(Errno::PERM);
        }
        set_fs_xattr(file.as_fd(), value)
    }
}
