//! A virtual machine without a virtual machine: the front end of a virtio-fs device, in process.
//!
//! The layers, from the socket to the file system; each may be used without those above it, which
//! is how a test sends what no guest would:
//!
//! - [`memory`]: guest memory in memfds, one or several regions, and an allocator over it
//! - [`ring`]: a split virtqueue seen from the driver, every byte of it writable by the test
//! - [`connection`]: vhost-user messages, well formed or not
//! - [`device`]: a negotiated device: memory announced, rings running
//! - [`channel`]: FUSE requests as bytes, one ring each
//! - [`wire`]: the FUSE structures, written down here once more
//! - [`bodies`]: the longer requests as bytes
//! - [`guest`]: FUSE operations as methods
//! - [`load`]: many requests in flight over many queues, for stress
//! - [`pump`]: requests laid out once, for measurement
//!
//! Nothing here uses the project's own codec or the `vhost` crate's messages, nor a crate for
//! rings: a mistake there would be made on both sides of the socket and stay unseen. All waits
//! end after [`LIMIT`].

pub mod bodies;
pub mod channel;
pub mod connection;
pub mod device;
pub mod guest;
pub mod load;
pub mod memory;
pub mod pump;
pub mod ring;
pub mod wire;

use std::io;
use std::time::Duration;

/// How long anything here waits for the device before it gives up with [`Error::TimedOut`].
pub const LIMIT: Duration = Duration::from_secs(30);

/// Why a call of the front end failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device answered the FUSE request with this errno.
    #[error("the device answered {}", io::Error::from_raw_os_error(*.0))]
    Errno(i32),
    /// Nothing happened within [`LIMIT`].
    #[error("waited {LIMIT:?} in vain for {0}")]
    TimedOut(&'static str),
    /// A used element was there, but the device never signalled the call eventfd.
    #[error("the device returned a chain without the interrupt the driver had asked for")]
    LostInterrupt,
    /// The device broke a rule of virtio, vhost-user or FUSE.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
    /// The device refused a vhost-user message (its REPLY_ACK was not zero).
    #[error("the device refused vhost-user request {request} with {status}")]
    Refused {
        /// The number of the request.
        request: u32,
        /// What the acknowledgement held.
        status: u64,
    },
    /// The device closed the connection.
    #[error("the device closed the vhost-user connection")]
    Closed,
    /// The test asked for more than the ring or guest memory holds.
    #[error("no room left in {0}")]
    Exhausted(&'static str),
    /// An address outside guest memory was used from this side.
    #[error("guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// Guest memory could not be made or changed.
    #[error("guest memory layout: {0}")]
    Layout(String),
    /// A system call of the front end itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Error::Io(errno.into())
    }
}

impl Error {
    /// The errno of the device's answer, if the device answered with one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Errno(errno) => Some(*errno),
            _ => None,
        }
    }
}

/// What the calls of the front end return.
pub type Result<T> = std::result::Result<T, Error>;
