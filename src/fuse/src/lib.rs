//! The FUSE wire format: one opcode table, decode, encode. No I/O, no state, no unsafe.
//!
//! The protocol is 7.45, of Linux 7.2 (`include/uapi/linux/fuse.h`); guests down to 7.31 are spoken
//! to. [`decode`] turns the bytes of a request into an [`Operation`] whose names, targets and
//! extensions are checked; whoever holds one need not look at a length again. Replies are built
//! from the backend's vocabulary by [`wire::EntryOut::new`] and its siblings.
//!
//! Every opcode is one row of the table in `operation.rs`.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unwrap_used,
        clippy::panic
    )
)]

mod arguments;
mod decode;
mod dirent;
mod extensions;
mod init;
mod operation;
mod reply;
pub mod wire;

pub use arguments::{ForgetList, IoctlArgument, SetxattrArgument, UnusedName};
pub use decode::{DecodeError, Request, RequestHeader, decode, inline_length};
pub use dirent::DirentBuffer;
pub use extensions::Extensions;
pub use init::{InitFlags, InitIn};
pub use operation::{Effect, Opcode, Operation, ReplyKind};

/// The protocol's major version.
pub const MAJOR: u32 = 7;
/// The newest minor version that is spoken here.
pub const MINOR: u32 = 45;
/// The oldest minor version that is spoken here; Linux 5.4 had it with the first virtio-fs driver.
pub const MINOR_MIN: u32 = 31;
/// The node id of the root.
pub const ROOT_ID: wire::NodeId = wire::NodeId(1);
/// Header of a reply, in bytes.
pub const REPLY_HEADER: usize = 16;
/// The largest READ and WRITE, in bytes: 256 pages of 4 KiB.
pub const MAX_TRANSFER: u32 = 1 << 20;
/// The largest value of an extended attribute, and the longest list of names (`XATTR_SIZE_MAX`).
pub const XATTR_SIZE_MAX: usize = 65_536;

/// What a guest and the server have agreed on, as far as it changes the layout of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The flags of INIT that both sides set.
    pub flags: InitFlags,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            flags: InitFlags::empty(),
        }
    }
}
