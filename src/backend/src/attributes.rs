//! What is known of a file besides its content.

use crate::Errno;

/// The type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileKind {
    /// The type bits of `st_mode` (`S_IFMT`).
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The type that `st_mode` names, if it names one.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }
}

/// A point in time, as inodes keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// 0 to 999,999,999, added to the seconds.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Checks a time that came from outside.
    ///
    /// # Errors
    /// EINVAL for a second or more of nanoseconds.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Result<Self, Errno> {
        if nanoseconds >= 1_000_000_000 {
            return Err(Errno::INVAL);
        }
        Ok(Self {
            seconds,
            nanoseconds,
        })
    }

    /// The time of the host's clock.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Self {
            seconds: now.tv_sec,
            nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Device {
    /// Major number; 12 bits travel to the guest.
    pub major: u32,
    /// Minor number; 20 bits travel to the guest.
    pub minor: u32,
}

/// The attributes of an inode, as statx(2) gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number, as programs see it. Unique in one file system.
    pub inode: u64,
    /// File type.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits: 0 to 0o7777.
    pub permissions: u32,
    /// Hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device that a device node stands for.
    pub device: Device,
    /// Size in bytes; at most `i64::MAX`.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub block_size: u32,
    /// Last read.
    pub accessed: Timestamp,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of content or attributes.
    pub changed: Timestamp,
    /// Creation, where the storage knows it.
    pub born: Option<Timestamp>,
    /// The inode is the root of another file system, which the guest shows as a mount of its own.
    pub mount_root: bool,
}

impl Attributes {
    /// What a backend that keeps little can begin with: one name, no content, user and group 0, the
    /// present time.
    pub fn new(inode: u64, kind: FileKind, permissions: u32) -> Self {
        let now = Timestamp::now();
        Self {
            inode,
            kind,
            permissions,
            links: 1,
            uid: 0,
            gid: 0,
            device: Device::default(),
            size: 0,
            blocks: 0,
            block_size: 4096,
            accessed: now,
            modified: now,
            changed: now,
            born: None,
            mount_root: false,
        }
    }

    /// `st_mode`: type and permissions.
    pub const fn mode(&self) -> u32 {
        self.kind.mode_bits() | (self.permissions & 0o7777)
    }
}

/// A time to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The time at which the change is made.
    Now,
    /// This time.
    At(Timestamp),
}

/// Changes to attributes; `None` leaves one alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// New permission, set-id and sticky bits.
    pub permissions: Option<u32>,
    /// New owner; never `u32::MAX`.
    pub uid: Option<u32>,
    /// New group; never `u32::MAX`.
    pub gid: Option<u32>,
    /// Truncate or extend to this many bytes; at most `i64::MAX`.
    pub size: Option<u64>,
    /// New time of the last read.
    pub accessed: Option<SetTime>,
    /// New time of the last change of the content.
    pub modified: Option<SetTime>,
    /// Clear set-user-id, set-group-id (where the group may execute) and `security.capability`,
    /// because the caller is not privileged. Set with a change of size or owner.
    pub kill_privileges: bool,
}

impl AttributeChanges {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The figures of statfs(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsStatistics {
    /// Blocks in all, of `fragment_size` bytes.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for ordinary users.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred I/O size in bytes.
    pub block_size: u32,
    /// Unit of the block counts in bytes.
    pub fragment_size: u32,
    /// The longest name in bytes.
    pub name_max: u32,
}

/// The inode flags of `FS_IOC_FSGETXATTR` (`struct fsxattr` of linux/fs.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsXattr {
    /// `FS_XFLAG_*` bits.
    pub xflags: u32,
    /// Extent size hint in bytes.
    pub extent_size: u32,
    /// Number of extents; not settable.
    pub extents: u32,
    /// Project id.
    pub project: u32,
    /// Copy-on-write extent size hint in bytes.
    pub cow_extent_size: u32,
}
