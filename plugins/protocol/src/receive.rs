//! Receives messages, and the descriptors that come with them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use crate::poller::Poller;
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

/// What came, of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Some bytes.
    Bytes,
    /// Nothing yet, or there is no room for it.
    Nothing,
    /// The other side has closed the connection.
    End,
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
                    false => {
                        let flags = RecvFlags::empty();
                        receive(&self.socket, target, &mut self.descriptors, flags)?
                    }
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

    /// What was received and not taken yet.
    pub fn ahead(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Receives behind what is [ahead](Self::ahead), as far as there is room for it, without waiting.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub fn receive_now(&mut self) -> Result<Arrival, ReceiveError> {
        if self.start != 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Ok(Arrival::Nothing);
        }
        let flags = RecvFlags::DONTWAIT;
        Ok(
            match receive(&self.socket, room, &mut self.descriptors, flags) {
                Ok(0) => Arrival::End,
                Ok(received) => {
                    self.end = self.end.saturating_add(received);
                    Arrival::Bytes
                }
                Err(ReceiveError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    Arrival::Nothing
                }
                Err(error) => return Err(error),
            },
        )
    }

    /// As [`header`](Self::header), but looks for it as long as `poller` finds it worthwhile before it sleeps.
    ///
    /// # Errors
    /// Those of [`header`](Self::header).
    pub fn header_soon<const N: usize>(
        &mut self,
        poller: &mut Poller,
    ) -> Result<Option<[u8; N]>, ReceiveError> {
        if self.start == self.end {
            let looked = poller.poll(|| match self.receive_now() {
                Ok(Arrival::Nothing) => None,
                other => Some(other),
            });
            if let Arrival::End = looked.unwrap_or(Ok(Arrival::Nothing))? {
                return Ok(None);
            }
        }
        self.header()
    }

    /// The descriptor that came with the message at hand.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Receives into the empty buffer. False at the end.
    fn fill(&mut self) -> Result<bool, ReceiveError> {
        (self.start, self.end) = (0, 0);
        let flags = RecvFlags::empty();
        self.end = receive(&self.socket, &mut self.buffer, &mut self.descriptors, flags)?;
        Ok(self.end != 0)
    }
}

/// One call of recvmsg(2). It ends behind the bytes that descriptors came with (unix(7)), so that few are pending.
fn receive(
    socket: impl AsFd,
    target: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
    flags: RecvFlags,
) -> Result<usize, ReceiveError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(target)];
        match recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC | flags,
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
    use std::time::Duration;

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
    fn what_is_there_is_received_without_waiting_as_far_as_there_is_room() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut receiver = Receiver::new(ours);
        assert_eq!(receiver.receive_now().unwrap(), Arrival::Nothing);
        let long = vec![7; AHEAD];
        let sender = std::thread::spawn(move || {
            send_all(&theirs, &[b"head", &long], None).unwrap();
        });
        while receiver.ahead().len() < AHEAD {
            assert_ne!(receiver.receive_now().unwrap(), Arrival::End);
        }
        assert_eq!(receiver.receive_now().unwrap(), Arrival::Nothing);
        assert_eq!(receiver.header().unwrap(), Some(*b"head"));
        while receiver.ahead().len() < AHEAD {
            assert_ne!(receiver.receive_now().unwrap(), Arrival::End);
        }
        sender.join().unwrap();
        let mut body = vec![0; AHEAD];
        receiver.exactly(&mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == 7));
        assert_eq!(receiver.receive_now().unwrap(), Arrival::End);
    }

    #[test]
    fn a_message_that_is_looked_for_comes_whole_and_so_does_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut receiver = Receiver::new(ours);
        let mut poller = Poller::new(Duration::ZERO, Duration::ZERO);
        send_all(&theirs, &[b"head", b"half"], None).unwrap();
        for message in [b"head", b"half"] {
            assert_eq!(receiver.header_soon(&mut poller).unwrap(), Some(*message));
        }
        drop(theirs);
        let end: Option<[u8; 4]> = receiver.header_soon(&mut poller).unwrap();
        assert_eq!(end, None);
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
