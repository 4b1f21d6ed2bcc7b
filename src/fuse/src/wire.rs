//! The structures of `include/uapi/linux/fuse.h`, with its names for their fields.
#![expect(
    missing_docs,
    reason = "the fields are documented where the protocol is: linux/fuse.h"
)]
#![expect(
    missing_debug_implementations,
    reason = "helper types that zerocopy derives"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

macro_rules! wire {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* }
    )*};
}

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident)*) => {$(
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes,
            Immutable,
        )]
        #[repr(transparent)]
        pub struct $name(pub u64);
    )*};
}

ids! {
    /// `nodeid`: a file that the client knows, by the server's number for it.
    NodeId
    /// `fh`: what the client has open, by the server's number for it.
    HandleId
    /// `unique`: a request, by the client's number for it.
    Unique
}

impl NodeId {
    /// That of no file: a name leads nowhere, or a request is about none.
    pub const NONE: Self = Self(0);
}

impl Unique {
    /// That of a message that answers no request.
    pub const NONE: Self = Self(0);
}

impl HandleId {
    /// What stands for none, where the client opens nothing.
    pub const NONE: Self = Self(0);
}

wire! {
    /// `fuse_in_header`
    InHeader {
        len: u32, opcode: u32, unique: Unique, nodeid: NodeId, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// `fuse_out_header`
    OutHeader { len: u32, error: i32, unique: Unique }
    /// `fuse_attr`
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// `fuse_entry_out`
    EntryOut {
        nodeid: NodeId, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    /// `fuse_attr_out`
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// `fuse_sx_time`
    SxTime { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    /// `fuse_statx`
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
        ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// `fuse_statx_in`
    StatxIn { getattr_flags: u32, reserved: u32, fh: HandleId, sx_flags: u32, sx_mask: u32 }
    /// `fuse_statx_out`
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx }
    /// `fuse_statfs_out`, a `fuse_kstatfs`
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// `fuse_file_lock`
    FileLock { start: u64, end: u64, r#type: u32, pid: u32 }
    /// `fuse_forget_in`
    ForgetIn { nlookup: u64 }
    /// `fuse_forget_one`
    ForgetOne { nodeid: NodeId, nlookup: u64 }
    /// `fuse_batch_forget_in`
    BatchForgetIn { count: u32, dummy: u32 }
    /// `fuse_getattr_in`
    GetattrIn { getattr_flags: u32, dummy: u32, fh: HandleId }
    /// `fuse_mknod_in`
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// `fuse_mkdir_in`
    MkdirIn { mode: u32, umask: u32 }
    /// `fuse_rename_in`
    RenameIn { newdir: NodeId }
    /// `fuse_rename2_in`
    Rename2In { newdir: NodeId, flags: u32, padding: u32 }
    /// `fuse_link_in`
    LinkIn { oldnodeid: NodeId }
    /// `fuse_setattr_in`
    SetattrIn {
        valid: u32, padding: u32, fh: HandleId, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32,
        unused5: u32,
    }
    /// `fuse_open_in`
    OpenIn { flags: u32, open_flags: u32 }
    /// `fuse_create_in`
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// `fuse_open_out`
    OpenOut { fh: HandleId, open_flags: u32, backing_id: i32 }
    /// `fuse_release_in`
    ReleaseIn { fh: HandleId, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `fuse_flush_in`
    FlushIn { fh: HandleId, unused: u32, padding: u32, lock_owner: u64 }
    /// `fuse_read_in`
    ReadIn { fh: HandleId, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_write_in`
    WriteIn { fh: HandleId, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_write_out`
    WriteOut { size: u32, padding: u32 }
    /// `fuse_fsync_in`
    FsyncIn { fh: HandleId, fsync_flags: u32, padding: u32 }
    /// `fuse_setxattr_in` with `SETXATTR_EXT`
    SetxattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    /// `fuse_setxattr_in` without `SETXATTR_EXT`
    SetxattrCompatIn { size: u32, flags: u32 }
    /// `fuse_getxattr_in`
    GetxattrIn { size: u32, padding: u32 }
    /// `fuse_getxattr_out`
    GetxattrOut { size: u32, padding: u32 }
    /// `fuse_lk_in`
    LkIn { fh: HandleId, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 }
    /// `fuse_access_in`
    AccessIn { mask: u32, padding: u32 }
    /// `fuse_init_out`
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    /// `fuse_interrupt_in`
    InterruptIn { unique: Unique }
    /// `fuse_ioctl_in`
    IoctlIn { fh: HandleId, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    /// `fuse_ioctl_out`
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// `fuse_fallocate_in`
    FallocateIn { fh: HandleId, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `fuse_dirent`, without its name
    Dirent { ino: u64, off: u64, namelen: u32, r#type: u32 }
    /// `fuse_lseek_in`
    LseekIn { fh: HandleId, offset: u64, whence: u32, padding: u32 }
    /// `fuse_lseek_out`
    LseekOut { offset: u64 }
    /// `fuse_copy_file_range_in`
    CopyFileRangeIn {
        fh_in: HandleId, off_in: u64, nodeid_out: NodeId, fh_out: HandleId, off_out: u64, len: u64, flags: u64,
    }
    /// `fuse_copy_file_range_out`
    CopyFileRangeOut { bytes_copied: u64 }
    /// `fuse_secctx`, before its name and value
    Secctx { size: u32, padding: u32 }
    /// `fuse_ext_header`; with a type up to 31 a `fuse_secctx_header` of that many labels
    ExtHeader { size: u32, r#type: u32 }
    /// `struct fsxattr` of linux/fs.h, the argument of `FS_IOC_FSGETXATTR`
    FsXattrArgument { xflags: u32, extsize: u32, nextents: u32, projid: u32, cowextsize: u32, pad: [u8; 8] }
}

/// `fuse_attr.flags`: the root of another file system.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;

/// `fuse_setattr_in.valid`
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
    /// All that the protocol knows.
    pub const ALL: u32 = (1 << 12) - 1;
}

/// `fuse_open_out.open_flags`
pub mod fopen {
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
    pub const NOFLUSH: u32 = 1 << 5;
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// `fuse_getattr_in.getattr_flags`: `fh` is valid.
pub const GETATTR_FH: u32 = 1 << 0;
/// `fuse_lk_in.lk_flags`: flock(2) instead of fcntl(2).
pub const LK_FLOCK: u32 = 1 << 0;
/// `fuse_write_in.write_flags`: from the guest's page cache.
pub const WRITE_CACHE: u32 = 1 << 0;
/// `fuse_write_in.write_flags`: clear set-id bits.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `fuse_open_in.open_flags`: clear set-id bits.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `fuse_fsync_in.fsync_flags`: data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// `fuse_setxattr_in.setxattr_flags`: the ACL takes set-group-id away.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `fuse_release_in.release_flags`: flush is part of the release.
pub const RELEASE_FLUSH: u32 = 1 << 0;
/// `fuse_ext_header.type` from which on it is not a number of security labels.
pub const EXT_GROUPS: u32 = 32;
/// `fuse_in_header.uid` and `gid` where the guest tells none.
pub const INVALID_ID: u32 = u32::MAX;
