//! Flags and modes of operations, without the numbers of any wire format.

bitflags::bitflags! {
    /// How a file is opened.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// For reading.
        const READ = 1 << 0;
        /// For writing.
        const WRITE = 1 << 1;
        /// Each write goes to the end of the file (`O_APPEND`).
        const APPEND = 1 << 2;
        /// The content is dropped (`O_TRUNC`).
        const TRUNCATE = 1 << 3;
        /// Past the page cache (`O_DIRECT`).
        const DIRECT = 1 << 4;
        /// Each write is durable, attributes included (`O_SYNC`).
        const SYNC = 1 << 5;
        /// Each write is durable (`O_DSYNC`).
        const DSYNC = 1 << 6;
        /// Reads leave the access time alone (`O_NOATIME`).
        const NOATIME = 1 << 7;
        /// Creation only: the name must not exist (`O_EXCL`).
        const EXCLUSIVE = 1 << 8;
    }

    /// How a name is moved (renameat2(2)).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RenameFlags: u32 {
        /// The new name must not exist.
        const NOREPLACE = 1 << 0;
        /// Both names exist and change places.
        const EXCHANGE = 1 << 1;
        /// An overlay whiteout is left at the old name.
        const WHITEOUT = 1 << 2;
    }

    /// What is asked of access(2). Empty: existence.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct AccessMask: u32 {
        /// Execute, or search.
        const EXECUTE = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }

    /// What fallocate(2) shall do; empty: allocate.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct FallocateMode: u32 {
        /// The file's size stays.
        const KEEP_SIZE = 0x01;
        /// Make a hole. Always with `KEEP_SIZE`.
        const PUNCH_HOLE = 0x02;
        /// Take the range out.
        const COLLAPSE_RANGE = 0x08;
        /// Make the range zero.
        const ZERO_RANGE = 0x10;
        /// Insert a hole.
        const INSERT_RANGE = 0x20;
        /// Unshare shared extents.
        const UNSHARE_RANGE = 0x40;
        /// Make the range zero and written.
        const WRITE_ZEROES = 0x80;
    }

    /// How an extended attribute is set (setxattr(2)), and what follows from it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct XattrFlags: u32 {
        /// It must not exist.
        const CREATE = 1;
        /// It must exist.
        const REPLACE = 2;
        /// Setting an access ACL clears set-group-id, because the caller is not in the file's
        /// group and not privileged (`FUSE_SETXATTR_ACL_KILL_SGID`).
        const KILL_SGID = 1 << 16;
    }
}

impl OpenFlags {
    /// Whether the file can be changed through this open.
    pub fn modifies(self) -> bool {
        self.intersects(Self::WRITE | Self::TRUNCATE)
    }
}

/// What lseek(2) looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekFrom {
    /// The next data at or after the offset (`SEEK_DATA`).
    Data,
    /// The next hole at or after the offset (`SEEK_HOLE`).
    Hole,
}
