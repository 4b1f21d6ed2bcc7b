//! The inode flags of chattr(1), in their two spellings (linux/fs.h).

use crate::{Errno, FileKind};

bitflags::bitflags! {
    /// `FS_*_FL`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct InodeFlags: u32 {
        /// Writes are synchronous.
        const SYNC = 0x8;
        /// Nothing of the inode may be changed.
        const IMMUTABLE = 0x10;
        /// What is there stays; content may be appended.
        const APPEND = 0x20;
        /// Left out by dump(8).
        const NODUMP = 0x40;
        /// Reads leave the access time alone.
        const NOATIME = 0x80;
        /// Changes of the directory are synchronous.
        const DIRSYNC = 0x1_0000;
        /// The top of a directory hierarchy, a hint for allocation.
        const TOPDIR = 0x2_0000;
        /// New entries get the project of the directory.
        const PROJINHERIT = 0x2000_0000;
    }
}

/// Which `FS_XFLAG_*` bit says the same.
const XFLAGS: [(InodeFlags, u32); 6] = [
    (InodeFlags::IMMUTABLE, 0x8),
    (InodeFlags::APPEND, 0x10),
    (InodeFlags::SYNC, 0x20),
    (InodeFlags::NOATIME, 0x40),
    (InodeFlags::NODUMP, 0x80),
    (InodeFlags::PROJINHERIT, 0x200),
];

impl InodeFlags {
    /// Checks flags that shall be set.
    ///
    /// # Errors
    /// EOPNOTSUPP for one that is not kept.
    pub fn settable(bits: u32, kind: FileKind) -> Result<Self, Errno> {
        let flags = Self::from_bits(bits).ok_or(Errno::OPNOTSUPP)?;
        if flags.for_kind(kind) == flags {
            Ok(flags)
        } else {
            Err(Errno::OPNOTSUPP)
        }
    }

    /// What a new inode gets from its directory, as ext4 hands it on.
    pub fn inherited(self, kind: FileKind) -> Self {
        let handed_on = Self::SYNC
            | Self::NODUMP
            | Self::NOATIME
            | Self::DIRSYNC
            | Self::TOPDIR
            | Self::PROJINHERIT;
        (self & handed_on).for_kind(kind)
    }

    /// What makes sense for a type of file.
    fn for_kind(self, kind: FileKind) -> Self {
        match kind {
            FileKind::Directory => self,
            FileKind::Regular => self & !(Self::DIRSYNC | Self::TOPDIR | Self::PROJINHERIT),
            _ => self & (Self::NODUMP | Self::NOATIME),
        }
    }

    /// As `FS_XFLAG_*` bits.
    pub fn to_xflags(self) -> u32 {
        XFLAGS
            .iter()
            .filter(|(flag, _)| self.contains(*flag))
            .fold(0, |bits, (_, xflag)| bits | xflag)
    }

    /// Replaces the flags that have an `FS_XFLAG_*` bit.
    ///
    /// # Errors
    /// EOPNOTSUPP for a bit that is not kept.
    pub fn with_xflags(self, xflags: u32, kind: FileKind) -> Result<Self, Errno> {
        let mut flags = self;
        let mut known = 0;
        for (flag, xflag) in XFLAGS {
            flags.set(flag, xflags & xflag != 0);
            known |= xflag;
        }
        if xflags & !known != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        Self::settable(flags.bits(), kind)
    }

    /// Whether nothing of the inode may be changed.
    pub fn is_immutable(self) -> bool {
        self.contains(Self::IMMUTABLE)
    }

    /// Whether what is there must stay: names, owner and content, but content may be appended.
    pub fn is_append_only(self) -> bool {
        self.contains(Self::APPEND)
    }

    /// Whether attributes and names of the inode may be changed.
    ///
    /// # Errors
    /// EPERM when they may not.
    pub fn check_changeable(self) -> Result<(), Errno> {
        if self.intersects(Self::IMMUTABLE | Self::APPEND) {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }
}
