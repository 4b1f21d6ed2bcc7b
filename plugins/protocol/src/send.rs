//! Sends messages, and descriptors with them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Sends as much of a message as the socket takes, and says how many bytes that were. A descriptor goes with the first
/// byte.
///
/// # Errors
/// What sendmsg(2) answers; EAGAIN where it does not wait and nothing was taken.
pub fn send_some(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
    wait: bool,
) -> rustix::io::Result<usize> {
    let flags = match wait {
        true => SendFlags::NOSIGNAL,
        false => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: &[BorrowedFd<'_>] = &[descriptor.unwrap_or(socket.as_fd())];
    if descriptor.is_some() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::INVAL);
    }
    loop {
        match sendmsg(socket.as_fd(), parts, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Sends a message whole, and waits until the socket has taken it.
///
/// # Errors
/// EPIPE when the other side is gone, and what else sendmsg(2) answers.
pub fn send_all(
    socket: impl AsFd,
    parts: &[&[u8]],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    let mut descriptor = descriptor;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let sent = send_some(socket.as_fd(), rest, descriptor.take(), true)?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, sent);
    }
    Ok(())
}
