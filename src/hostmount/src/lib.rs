//! A session served to this host, through `/dev/fuse`.
//!
//! [`HostMount::mount`] mounts a file system that nobody serves yet and gives a [`Connection`] to
//! the kernel. [`Connection::serve`] answers the kernel's requests until the file system is
//! unmounted. The two are separate because they may live in two processes: the one that serves
//! can give up every privilege, the one that mounted stays able to unmount, whatever becomes of
//! the other.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod attach;
mod buffers;
mod connection;
mod control;
mod dead;
mod device;
mod exchange;
mod fusermount;
mod mount;
mod mount_id;
mod readers;
mod room;

pub use connection::Connection;
pub use dead::remove_dead;
pub use fusermount::FusermountError;
pub use mount::{HostMount, MountError, MountOptions, Unmounted};

/// Bytes of data in one request, at most: what the server's `max_write` and `max_pages` allow.
pub(crate) const MAX_DATA: usize = 1 << 20;

/// Space for a header and arguments before the data, names included.
pub(crate) const MAX_ARGUMENTS: usize = 16 << 10;
