//! Receives messages, and the descriptors that come with them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// Descriptors that may have come and wait for their message. Who sends more does not keep to the protocol.
pub const MAX_PENDING_DESCRIPTORS: usize = 16;

/// Descriptors that one call of recvmsg(2) takes.
const AT_ONCE: usize = 4;

/// Bytes that are received ahead.
const AHEAD: usize = 1 << 16;

/// Why nothing more is received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side has closed the connection in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    Cut,
    /// More descriptors came than messages announce.
    #[error("descriptors came that no message announces")]
    Descriptors,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// One side's way of reading a connection. Only one thread does.
#[derive(Debug)]
pub struct Receiver<S> {
    socket: S,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl<S: AsFd> Receiver<S> {
    /// Nothing received yet. The socket blocks.
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            buffer: vec![0; AHEAD].into(),
            start: 0,
            end: 0,
            descriptors: VecDeque::new(),
        }
    }

    /// Waits for the next message's first bytes. `None` when the other side has closed the connection after a message.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub fn header<const N: usize>(&mut self) -> Result<Option<[u8; N]>, ReceiveError> {
        let mut header = [0; N];
        if self.start == self.end && !self.fill()? {
            return Ok(None);
        }
        self.exactly(&mut header)?;
        Ok(Some(header))
    }

    /// Waits for as many bytes as `target` has.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub fn exactly(&mut self, mut target: &mut [u8]) -> Result<(), ReceiveError> {
        while !target.is_empty() {
            let have = self.buffer.get(self.start..self.end).unwrap_or_default();
            if have.is_empty() {
                // What is long goes where it belongs at once.
                let received = match target.len() < AHEAD {
                    true if self.fill()? => continue,
                    true => 0,
                    false => receive(&self.socket, target, &mut self.descriptors)?,
                };
                if received == 0 {
                    return Err(ReceiveError::Cut);
                }
                target = target.get_mut(received..).unwrap_or_default();
                continue;
            }
            let count = have.len().min(target.len());
            let (now, later) = target.split_at_mut(count);
            now.copy_from_slice(have.get(..count).unwrap_or_default());
            self.start = self.start.saturating_add(count);
            target = later;
        }
        Ok(())
    }

    /// The descriptor that came with the message at hand.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Receives into the empty buffer. False at the end.
    fn fill(&mut self) -> Result<bool, ReceiveError> {
        (self.start, self.end) = (0, 0);
        self.end = receive(&self.socket, &mut self.buffer, &mut self.descriptors)?;
        Ok(self.end != 0)
    }
}

/// One call of recvmsg(2). It ends behind the bytes that descriptors came with (unix(7)), so that few are pending.
fn receive(
    socket: impl AsFd,
    target: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> Result<usize, ReceiveError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(target)];
        match recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            // The other side left without reading all.
            Err(Errno::CONNRESET) => return Ok(0),
            other => break other.map_err(io::Error::from)?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let cut = received.flags.contains(ReturnFlags::CTRUNC);
    if cut || descriptors.len() > MAX_PENDING_DESCRIPTORS {
        return Err(ReceiveError::Descriptors);
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::send_all;
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_come_whole_and_descriptors_in_their_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let long = vec![7; 3 * AHEAD];
        let sender = std::thread::spawn(move || {
            let null = std::fs::File::open("/dev/null").unwrap();
            send_all(&theirs, &[b"head", b"body"], None).unwrap();
            send_all(&theirs, &[b"with"], Some(null.as_fd())).unwrap();
            send_all(&theirs, &[b"long", &long], None).unwrap();
            send_all(&theirs, &[b"ha"], None).unwrap();
        });
        let mut receiver = Receiver::new(ours);
        assert_eq!(receiver.header().unwrap(), Some(*b"head"));
        let mut body = [0; 4];
        receiver.exactly(&mut body).unwrap();
        assert_eq!(&body, b"body");
        assert_eq!(receiver.header().unwrap(), Some(*b"with"));
        assert!(receiver.descriptor().is_some());
        assert_eq!(receiver.header().unwrap(), Some(*b"long"));
        let mut body = vec![0; 3 * AHEAD];
        receiver.exactly(&mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == 7));
        assert!(receiver.descriptor().is_none());
        assert!(matches!(receiver.header::<4>(), Err(ReceiveError::Cut)));
        sender.join().unwrap();
    }

    #[test]
    fn a_connection_that_is_closed_between_messages_has_ended() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(matches!(Receiver::new(ours).header::<4>(), Ok(None)));
    }

    #[test]
    fn descriptors_that_nobody_announced_are_not_hoarded() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for _ in 0..=MAX_PENDING_DESCRIPTORS {
            send_all(&theirs, &[b"x"], Some(null.as_fd())).unwrap();
        }
        let mut receiver = Receiver::new(ours);
        let mut bytes = [0; MAX_PENDING_DESCRIPTORS + 1];
        let result = receiver.exactly(&mut bytes);
        assert!(matches!(result, Err(ReceiveError::Descriptors)));
    }
}
