//! vhost-user messages from the front end's side, well formed or not.
//!
//! The numbers and layouts are those of QEMU's `docs/interop/vhost-user.rst`.

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::memory::{Region, USER_OFFSET};
use super::ring::Layout;
use super::{Error, LIMIT, Result};

/// Request numbers.
pub mod request {
    #![allow(missing_docs)] // the names are those of the specification
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    pub const CHECK_DEVICE_STATE: u32 = 43;
}

/// Feature bits of the device that matter here, as masks.
pub mod feature {
    /// The ring may point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Indices say when to kick and to interrupt.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Protocol features may be negotiated.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// Virtio 1.0.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Protocol feature bits that matter here, as masks.
pub mod protocol {
    /// GET_QUEUE_NUM.
    pub const MQ: u64 = 1 << 0;
    /// Any message may be acknowledged.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// GET_CONFIG.
    pub const CONFIG: u64 = 1 << 9;
    /// RESET_DEVICE.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// ADD_MEM_REG and REM_MEM_REG.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
}

/// Version 1, the only one there is.
pub const FLAG_VERSION: u32 = 1;
/// The message is a reply.
pub const FLAG_REPLY: u32 = 4;
/// The sender wants an acknowledgement.
pub const FLAG_NEED_REPLY: u32 = 8;

/// In the body of SET_VRING_KICK and SET_VRING_CALL: no descriptor comes along.
pub const VRING_NO_FD: u64 = 1 << 8;

/// A connected socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Whether REPLY_ACK is negotiated, and messages without a reply ask for one.
    pub acknowledged: bool,
}

impl Connection {
    /// Connects to the device's socket, which may not be there yet: tries until [`LIMIT`].
    ///
    /// # Errors
    /// What connect(2) said last.
    pub fn open(path: &Path) -> Result<Self> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self::over(stream),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Speaks over a socket that is connected already.
    ///
    /// # Errors
    /// What setsockopt(2) gives.
    pub fn over(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self {
            stream,
            acknowledged: false,
        })
    }

    /// Sends any bytes with any descriptors, in one message of the socket.
    ///
    /// # Errors
    /// What sendmsg(2) gives; EPIPE is [`Error::Closed`].
    pub fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::Exhausted("a control message"));
        }
        let sent = sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(Error::TimedOut("room in the socket")),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(Error::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a message with a header made for it.
    ///
    /// # Errors
    /// As [`Connection::send_raw`].
    pub fn send(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let size = u32::try_from(body.len()).map_err(|_| Error::Exhausted("a message"))?;
        let mut bytes = header(request, FLAG_VERSION | flags, size).to_vec();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes, fds)
    }

    /// Receives the reply to `request`.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TimedOut`], or [`Error::Protocol`] if it answers another.
    pub fn receive(&mut self, request: u32) -> Result<Vec<u8>> {
        let mut head = [0; 12];
        self.read_exact(&mut head)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (answered, flags, size) = (word(0), word(4), word(8));
        if answered != request || flags & FLAG_REPLY == 0 || size > 4096 {
            return Err(Error::Protocol(format!(
                "reply to request {request} has number {answered}, flags {flags:#x}, size {size}"
            )));
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_exact(&mut body)?;
        Ok(body)
    }

    /// Waits until the device has closed the connection, dropping what it still sends.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it stays open.
    pub fn wait_closed(&mut self) -> Result<()> {
        let mut rest = [0; 256];
        loop {
            match self.read_exact(&mut rest[..1]) {
                Ok(()) => {}
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket, to watch or to shut down.
    pub fn socket(&self) -> &UnixStream {
        &self.stream
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    Error::TimedOut("a vhost-user reply")
                }
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Error::Closed
                }
                _ => error.into(),
            })
    }

    /// Sends a message that has no reply of its own and waits for its acknowledgement, if
    /// acknowledgements are negotiated.
    ///
    /// # Errors
    /// [`Error::Refused`] if the device acknowledges with anything but 0.
    pub fn set(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        if !self.acknowledged {
            return self.send(request, 0, body, fds);
        }
        self.send(request, FLAG_NEED_REPLY, body, fds)?;
        match u64_of(&self.receive(request)?)? {
            0 => Ok(()),
            status => Err(Error::Refused { request, status }),
        }
    }

    /// Sends a message and returns the body of its reply.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn get(&mut self, request: u32, body: &[u8]) -> Result<Vec<u8>> {
        self.send(request, 0, body, &[])?;
        self.receive(request)
    }

    /// Sends a message without body whose reply is one u64.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn get_u64(&mut self, request: u32) -> Result<u64> {
        u64_of(&self.get(request, &[])?)
    }

    /// Announces all regions at once.
    ///
    /// # Errors
    /// As [`Connection::set`].
    pub fn set_mem_table(&mut self, regions: &[Region]) -> Result<()> {
        let mut body = Vec::new();
        body.extend_from_slice(&u32::try_from(regions.len()).unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        for region in regions {
            body.extend_from_slice(&region_bytes(region));
        }
        let fds: Vec<BorrowedFd<'_>> = regions.iter().map(|region| region.file.as_fd()).collect();
        self.set(request::SET_MEM_TABLE, &body, &fds)
    }

    /// Announces one more region.
    ///
    /// # Errors
    /// As [`Connection::set`].
    pub fn add_mem_region(&mut self, region: &Region) -> Result<()> {
        let mut body = vec![0; 8];
        body.extend_from_slice(&region_bytes(region));
        self.set(request::ADD_MEM_REG, &body, &[region.file.as_fd()])
    }

    /// Takes one region back.
    ///
    /// # Errors
    /// As [`Connection::set`].
    pub fn remove_mem_region(&mut self, region: &Region) -> Result<()> {
        let mut body = vec![0; 8];
        body.extend_from_slice(&region_bytes(region));
        self.set(request::REM_MEM_REG, &body, &[])
    }

    /// One of the messages whose body is a ring's index and a number.
    ///
    /// # Errors
    /// As [`Connection::set`].
    pub fn set_vring_state(&mut self, request: u32, index: u32, value: u32) -> Result<()> {
        self.set(request, &vring_state(index, value), &[])
    }

    /// Tells where a ring lies.
    ///
    /// # Errors
    /// As [`Connection::set`].
    pub fn set_vring_addr(&mut self, index: u32, layout: &Layout) -> Result<()> {
        self.set(request::SET_VRING_ADDR, &vring_addr(index, layout), &[])
    }

    /// One of the messages that bring a ring an eventfd.
    ///
    /// # Errors
    /// As [`Connection::set`].
    pub fn set_vring_fd(&mut self, request: u32, index: u8, fd: BorrowedFd<'_>) -> Result<()> {
        self.set(request, &u64::from(index).to_le_bytes(), &[fd])
    }

    /// Stops a ring and returns the available index at which it stopped.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn get_vring_base(&mut self, index: u32) -> Result<u32> {
        let reply = self.get(request::GET_VRING_BASE, &vring_state(index, 0))?;
        match reply.get(4..8).map(<[u8; 4]>::try_from) {
            Some(Ok(bytes)) => Ok(u32::from_le_bytes(bytes)),
            _ => Err(Error::Protocol(format!(
                "GET_VRING_BASE reply of {} bytes",
                reply.len()
            ))),
        }
    }

    /// Reads `size` bytes of the config space.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the device answers with another length.
    pub fn get_config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        for word in [offset, size, 0] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.resize(body.len() + usize::try_from(size).unwrap_or(0), 0);
        let reply = self.get(request::GET_CONFIG, &body)?;
        if reply.len() != body.len() {
            return Err(Error::Protocol(format!(
                "GET_CONFIG reply of {} bytes",
                reply.len()
            )));
        }
        Ok(reply[12..].to_vec())
    }
}

/// The header of a message, as it is sent.
pub fn header(request: u32, flags: u32, size: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&request.to_le_bytes());
    bytes[4..8].copy_from_slice(&flags.to_le_bytes());
    bytes[8..].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// A region as it stands in SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG.
pub fn region_bytes(region: &Region) -> [u8; 32] {
    region_fields(
        region.extent.start,
        region.extent.size,
        USER_OFFSET.wrapping_add(region.extent.start),
        region.file_offset,
    )
}

/// Any four numbers in the place of a region.
pub fn region_fields(guest: u64, size: u64, user: u64, offset: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, value) in bytes.chunks_exact_mut(8).zip([guest, size, user, offset]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The body of SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE and GET_VRING_BASE.
pub fn vring_state(index: u32, value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&index.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// The body of SET_VRING_ADDR.
pub fn vring_addr(index: u32, layout: &Layout) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..4].copy_from_slice(&index.to_le_bytes());
    let parts = [layout.descriptors, layout.used, layout.available];
    for (place, part) in bytes[8..32].chunks_exact_mut(8).zip(parts) {
        place.copy_from_slice(&USER_OFFSET.wrapping_add(part).to_le_bytes());
    }
    bytes
}

fn u64_of(body: &[u8]) -> Result<u64> {
    <[u8; 8]>::try_from(body)
        .map(u64::from_le_bytes)
        .map_err(|_| Error::Protocol(format!("reply of {} bytes instead of 8", body.len())))
}
