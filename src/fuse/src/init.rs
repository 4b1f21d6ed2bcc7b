//! INIT: what a guest offers and what it is told.

use vfsd_backend::Errno;
use zerocopy::FromBytes;

use crate::arguments::{Argument, Arguments};

bitflags::bitflags! {
    /// `FUSE_*` flags of INIT. Bits from 32 on travel in `flags2`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct InitFlags: u64 {
        /// Reads may be in flight together.
        const ASYNC_READ = 1 << 0;
        /// fcntl(2) locks are decided here.
        const POSIX_LOCKS = 1 << 1;
        /// `O_TRUNC` comes with OPEN.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// Writes above 4 KiB.
        const BIG_WRITES = 1 << 5;
        /// The umask is applied here.
        const DONT_MASK = 1 << 6;
        /// flock(2) locks are decided here.
        const FLOCK_LOCKS = 1 << 10;
        /// ioctl(2) on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// Cached pages are dropped when size or time changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS.
        const DO_READDIRPLUS = 1 << 13;
        /// READDIRPLUS when it pays.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be in flight together.
        const ASYNC_DIO = 1 << 15;
        /// Writes are held back and merged.
        const WRITEBACK_CACHE = 1 << 16;
        /// Files need not be opened: OPEN may be answered with ENOSYS.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// Lookups and listings of one directory may be in flight together.
        const PARALLEL_DIROPS = 1 << 18;
        /// POSIX ACLs.
        const POSIX_ACL = 1 << 20;
        /// `max_pages` is valid.
        const MAX_PAGES = 1 << 22;
        /// Link targets are cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// Directories need not be opened: OPENDIR may be answered with ENOSYS.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// `map_alignment` is valid.
        const MAP_ALIGNMENT = 1 << 26;
        /// Roots of other file systems are marked and mounted.
        const SUBMOUNTS = 1 << 27;
        /// Set-id bits are cleared here.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// The long layout of SETXATTR.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` is valid.
        const INIT_EXT = 1 << 30;
        /// Security labels come with new inodes.
        const SECURITY_CTX = 1 << 32;
        /// DAX per inode.
        const HAS_INODE_DAX = 1 << 33;
        /// A supplementary group comes with new inodes.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// Shared mappings of files opened with direct I/O.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Idmapped mounts; ids only with new inodes.
        const ALLOW_IDMAP = 1 << 40;
    }
}

/// What a guest says in INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitIn {
    /// Protocol version.
    pub major: u32,
    /// Protocol version.
    pub minor: u32,
    /// Readahead in bytes.
    pub max_readahead: u32,
    /// What the guest can do.
    pub flags: InitFlags,
}

impl<'a> Argument<'a> for InitIn {
    /// Guests before 7.36 send 16 bytes: what is missing is 0.
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        let [major, minor, max_readahead, low]: [u32; 4] = arguments.structure()?;
        let high = match u32::read_from_prefix(arguments.rest()) {
            Ok((high, _)) if u64::from(low) & InitFlags::INIT_EXT.bits() != 0 => high,
            _ => 0,
        };
        let flags = InitFlags::from_bits_retain((u64::from(high) << 32) | u64::from(low));
        Ok(Self {
            major,
            minor,
            max_readahead,
            flags,
        })
    }
}

impl InitFlags {
    /// The two words of `fuse_init_out`. The upper one only counts with `INIT_EXT`.
    pub fn words(self) -> (u32, u32) {
        let bytes = self.bits().to_le_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        (
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        )
    }
}
