//! What a layer's tar says of one file: the vocabulary between the index of a layer and the tree of
//! an image.

use vfsd_backend::{Device, Timestamp};

/// One entry of a layer, in the order of the tar.
///
/// The path is as the tar spells it, for instance `./usr/bin/` or `../../etc/passwd`: whoever
/// builds a tree resolves and confines it. Whiteouts are entries like others here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// The path, without a NUL, not empty.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits: 0 to 0o7777.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Extended attributes, by full name (`user.mime`, `security.capability`); no name twice.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file.
    Regular {
        /// Size in bytes; at most `i64::MAX`.
        size: u64,
        /// Where the content stands in the tar, ascending, without overlap, within `size`. What no
        /// extent covers is a hole.
        data: Vec<DataExtent>,
    },
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink {
        /// Its target, as the tar spells it.
        target: Vec<u8>,
    },
    /// Another name for an entry of this layer or of one below.
    HardLink {
        /// The path of the other name, as the tar spells it.
        target: Vec<u8>,
    },
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice(Device),
    /// Block device.
    BlockDevice(Device),
}

/// A piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataExtent {
    /// Its place in the file.
    pub file_offset: u64,
    /// Its place in the uncompressed tar.
    pub tar_offset: u64,
    /// Bytes; at least 1.
    pub length: u64,
}
