//! What a plugin says beside FUSE replies. Each is a message with the header of one (`fuse_out_header`), told
//! apart by its `error`, which in a reply is never positive.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `error` of a reply to READ whose data are in a descriptor. An [`ExtentOut`] follows.
pub const EXTENT: i32 = 1;

/// `error` of a message with the `unique` 0 that hands a descriptor over: the one that comes with its first byte.
/// A [`Note`] follows with the number that it gets, which is free.
pub const DESCRIPTOR_PUT: i32 = 2;

/// `error` of a message with the `unique` 0 that takes a descriptor back. A [`Note`] follows with its number, which is
/// free from then on.
pub const DESCRIPTOR_DROP: i32 = 3;

/// Where the data of a READ are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ExtentOut {
    /// The number of the descriptor.
    pub descriptor: u32,
    /// How many bytes: at most as many as were asked for, fewer at the end of the file only.
    pub length: u32,
    /// The first byte, in the descriptor. `offset + length` is at most `i64::MAX`.
    pub offset: u64,
}

/// Which descriptor is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Note {
    /// The number: below [`HostHello::descriptors`](crate::HostHello::descriptors).
    pub descriptor: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ExtentOut>() == 16);
const _: () = assert!(size_of::<Note>() == 8);
