//! Kicks from the driver and interrupts to it: the eventfds of a ring.

use std::fs::File;
use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Makes sure that neither a read nor a write of what a front end sent can block, and that no
/// program that is started inherits it. The first changes the front end's own view of it too;
/// those that share an eventfd poll it.
fn tame(file: &File) -> io::Result<()> {
    fcntl_setfd(file, FdFlags::CLOEXEC)?;
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags | OFlags::NONBLOCK)?;
    Ok(())
}

/// What the driver signals when it made chains available.
#[derive(Debug)]
pub(crate) struct Kick {
    file: File,
}

/// Why a wait for a kick ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The driver kicked.
    Kicked,
    /// Someone else wants something.
    Called,
    /// The descriptor is of no use: no kick will ever come.
    Dead,
}

impl Kick {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        tame(&file)?;
        Ok(Self { file })
    }

    /// Waits for a kick, or for `other` to become readable, which comes first when both happened.
    pub(crate) fn wait(&self, other: &impl std::os::fd::AsFd) -> Wake {
        loop {
            let mut fds = [
                PollFd::new(other, PollFlags::IN),
                PollFd::new(&self.file, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return Wake::Dead,
            }
            let [called, kicked] = fds.map(|fd| fd.revents());
            if !called.is_empty() {
                return Wake::Called;
            }
            if kicked.is_empty() {
                continue;
            }
            // Eight bytes clear an eventfd; some more let the pipe of a lesser front end catch up.
            match rustix::io::read(&self.file, &mut [0_u8; 64]) {
                Ok(1..) => return Wake::Kicked,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(0) | Err(_) => return Wake::Dead,
            }
        }
    }
}

/// What the driver is interrupted with, or a front end told of an error.
#[derive(Debug)]
pub(crate) struct Call {
    file: File,
}

impl Call {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        tame(&file)?;
        Ok(Self { file })
    }

    /// Signals. A counter that is full, or a pipe, holds a signal already; a front end that closed
    /// the other end wants none.
    pub(crate) fn signal(&self) {
        while rustix::io::write(&self.file, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }
}
