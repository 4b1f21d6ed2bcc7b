//! Kicks from the driver and interrupts to it: the eventfds of a ring; and our own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
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
    pub(crate) fn wait(&self, other: &impl AsFd) -> Wake {
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

/// What a thread of ours is woken with: an eventfd, or the waker of a future that the thread waits for.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Ends a wait: the one that lasts, or the next.
    pub(crate) fn ring(&self) {
        // An eventfd that is full is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it is rung.
    pub(crate) fn wait(&self) {
        // Whatever ends it, the caller looks at what it waits for again.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None);
        self.silence();
    }

    /// What was rung is known: the next wait does not end for it.
    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
