//! The device `/dev/fuse`.

// UNSAFETY: cloning a FUSE connection is an ioctl, and ioctl(2) has no safe interface.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, opcode};

/// Where the kernel hands out requests.
const PATH: &str = "/dev/fuse";

/// `FUSE_DEV_IOC_CLONE` of include/uapi/linux/fuse.h.
const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// One descriptor of a connection to the kernel. A request is answered on the descriptor that it
/// was read from.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

impl Device {
    /// A descriptor that belongs to no connection yet.
    ///
    /// # Errors
    /// What open(2) answers: ENOENT or ENODEV without the `fuse` module.
    pub(crate) fn open() -> rustix::io::Result<Self> {
        rustix::fs::open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Another descriptor of the same connection, with a queue of its own in the kernel for the
    /// requests that were read from it.
    ///
    /// # Errors
    /// When the device cannot be opened again, or the kernel does not clone connections.
    pub(crate) fn clone_connection(&self) -> rustix::io::Result<Self> {
        let other = Self::open()?;
        let connection = u32::try_from(self.0.as_raw_fd()).map_err(|_| Errno::BADF)?;
        // SAFETY: FUSE_DEV_IOC_CLONE reads one `u32`, a descriptor, and keeps no reference to it.
        unsafe { rustix::ioctl::ioctl(&other, Setter::<CLONE, u32>::new(connection))? };
        Ok(other)
    }

    /// Waits for a request and reads it, whole: the kernel refuses buffers that are too small.
    ///
    /// # Errors
    /// What the kernel says: ENODEV after an unmount, ECONNABORTED when the connection was cut off meanwhile, ENOENT when
    /// the request was taken back, EINTR, EAGAIN.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::io::read(self, buffer)
    }

    /// Sends a reply.
    ///
    /// # Errors
    /// ENOENT when the request is not this descriptor's, or was taken back; EINVAL when the reply
    /// is not what the kernel expects.
    pub(crate) fn send(&self, header: &[u8], body: &[u8]) -> rustix::io::Result<()> {
        // The kernel takes a reply whole or not at all.
        rustix::io::writev(self, &[IoSlice::new(header), IoSlice::new(body)]).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Device {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl Device {
    /// The same descriptor again.
    ///
    /// # Errors
    /// EMFILE.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}
