//! The records of a tree, as they stand in memory and in its file: little-endian, without alignment.
//!
//! ```text
//! header | nodes | children | extents | xattrs | pool | SHA-256 of all before
//! ```

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first bytes of a stored tree.
pub(super) const MAGIC: [u8; 8] = *b"vfsdtree";

/// The version of these records. Others are not read: a tree is made again from its layers.
pub(super) const VERSION: u32 = 1;

/// Bytes of the checksum at the end.
pub(super) const CHECKSUM: usize = 32;

/// What a tree's file begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    /// Layers that the tree was made of.
    pub(super) layers: U32,
    pub(super) nodes: U32,
    pub(super) children: U32,
    pub(super) extents: U32,
    pub(super) xattrs: U32,
    /// Bytes.
    pub(super) pool: U32,
}

/// A node. What `a` to `d` are depends on its type.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct NodeRecord {
    /// `st_mode`.
    pub(super) mode: U16,
    pub(super) links: U32,
    pub(super) uid: U32,
    pub(super) gid: U32,
    pub(super) modified_seconds: I64,
    pub(super) modified_nanoseconds: U32,
    /// The first of its extended attributes, which are sorted by name, and how many there are.
    pub(super) xattrs: U32,
    pub(super) xattr_count: U32,
    /// Size in bytes; of a symbolic link that of its target, of all but those and regular files 0.
    pub(super) size: U64,
    /// Directory: its first child. Regular file: its layer. Symbolic link: its target's place in the pool.
    /// Device: major number.
    pub(super) a: U32,
    /// Directory: how many children. Regular file: its entry in the layer. Device: minor number.
    pub(super) b: U32,
    /// Directory: its parent. Regular file: its first extent.
    pub(super) c: U32,
    /// Regular file: how many extents.
    pub(super) d: U32,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ChildRecord {
    /// The name's place in the pool: a byte with its length, then the name.
    pub(super) name: U32,
    pub(super) node: U32,
}

/// A piece of a file's content: [`DataExtent`](crate::DataExtent).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentRecord {
    pub(super) file_offset: U64,
    pub(super) tar_offset: U64,
    pub(super) length: U64,
}

/// An extended attribute.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrRecord {
    /// The name's place in the pool: a byte with its length, then the name.
    pub(super) name: U32,
    /// The value's place in the pool.
    pub(super) value: U32,
    pub(super) length: U32,
}
