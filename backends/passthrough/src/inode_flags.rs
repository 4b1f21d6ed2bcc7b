//! The flags of chattr(1) and the project of an inode, by the ioctls of ext4, XFS, btrfs and others.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use vfsd_backend::{Errno, FileKind, FsXattr};

use crate::inode::Inode;
use crate::share::no_descriptor;
use crate::syscalls::{get_fs_xattr, set_fs_xattr};

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
        ioctl_setflags(self.open_for_ioctl()?, IFlags::from_bits_retain(flags))
    }

    pub(crate) fn fs_xattr(&self) -> Result<FsXattr> {
        get_fs_xattr(self.open_for_ioctl()?.as_fd())
    }

    pub(crate) fn set_fs_xattr(&self, value: FsXattr) -> Result<()> {
        set_fs_xattr(self.open_for_ioctl()?.as_fd(), value)
    }
}
