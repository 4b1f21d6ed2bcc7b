//! One request's way back to the daemon.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vfsd_backend::{Errno, ReadSink, Result, SliceSource, Wait, WriteSource};
use vfsd_fuse::wire::{OutHeader, Unique};
use vfsd_fuse::{Opcode, REPLY_HEADER, ReplyKind};
use vfsd_plugin_protocol::{EXTENT, ExtentOut};
use vfsd_server::{Body, Delivery, Exchange, HEADER_LENGTH};
use zerocopy::{FromBytes, IntoBytes};

use crate::area::Range;
use crate::connection::Connection;
use crate::sink::{Sink, Taken};

/// What a request's header says, as far as its reply needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Length of the whole request.
    pub(crate) length: usize,
    pub(crate) opcode: Option<Opcode>,
    pub(crate) unique: Unique,
}

impl Request {
    pub(crate) fn of(header: &[u8; HEADER_LENGTH]) -> Self {
        match vfsd_fuse::wire::InHeader::read_from_bytes(header) {
            Ok(header) => Self {
                length: usize::try_from(header.len).unwrap_or(usize::MAX),
                opcode: Opcode::from_number(header.opcode),
                unique: header.unique,
            },
            Err(_) => Self {
                length: 0,
                opcode: None,
                unique: Unique::NONE,
            },
        }
    }

    fn wants_reply(self) -> bool {
        self.opcode
            .is_none_or(|opcode| opcode.reply() != ReplyKind::Nothing)
    }
}

/// One request's way back.
#[derive(Debug)]
pub(crate) struct PluginExchange {
    connection: Arc<Connection>,
    request: Request,
    payload: Payload,
    sink: Sink,
    ended: bool,
}

impl PluginExchange {
    /// The way back of a request whose reply may have `room` bytes behind its header.
    pub(crate) fn new(
        connection: Arc<Connection>,
        request: Request,
        data: Data,
        room: usize,
    ) -> Self {
        // Only what READ reads may be in a descriptor.
        let by_descriptor = request.opcode == Some(Opcode::Read);
        Self {
            sink: Sink::new(Arc::clone(&connection), room, by_descriptor),
            connection,
            request,
            payload: Payload { data, taken: 0 },
            ended: false,
        }
    }

    /// Which kind of request it is, if that is known.
    pub(crate) fn opcode(&self) -> Option<Opcode> {
        self.request.opcode
    }

    fn send(&self, parts: &[&[u8]]) -> Delivery {
        match self.connection.send(parts, None) {
            Ok(()) => Delivery::Sent,
            Err(_) => Delivery::Lost,
        }
    }
}

impl Exchange for PluginExchange {
    fn capacity(&self) -> usize {
        self.sink.capacity().saturating_add(REPLY_HEADER)
    }

    fn payload(&mut self) -> &mut dyn WriteSource {
        &mut self.payload
    }

    fn sink(&mut self) -> &mut dyn ReadSink {
        &mut self.sink
    }

    fn reply(mut self, header: [u8; REPLY_HEADER], body: Body<'_>) -> Delivery {
        self.ended = true;
        let length = match body {
            Body::Bytes(bytes) => return self.send(&[&header, bytes]),
            Body::Sunk(length) => length,
        };
        match self.sink.taken(length) {
            Taken::Bytes(bytes) => self.send(&[&header, bytes]),
            Taken::Extent { number, offset } => {
                let extent = ExtentOut {
                    descriptor: **number,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                    offset,
                };
                let header = OutHeader {
                    error: EXTENT,
                    ..OutHeader::success(self.request.unique, size_of::<ExtentOut>())
                };
                self.send(&[&header.to_bytes(), extent.as_bytes()])
            }
        }
    }

    fn discard(mut self) {
        self.ended = true;
    }
}

impl Drop for PluginExchange {
    fn drop(&mut self) {
        if self.request.opcode == Some(Opcode::Setlkw) {
            self.connection.lock_wait_ends(self.request.unique);
        }
        if !self.ended && self.request.wants_reply() {
            let header = OutHeader::error(self.request.unique, Errno::IO);
            let _ = self.send(&[&header.to_bytes()]);
        }
    }
}

/// Where the data of a write are.
#[derive(Debug)]
pub(crate) enum Data {
    /// They came with the request.
    Sent(Vec<u8>),
    /// In memory that the daemon shares.
    Shared(Range),
}

impl Data {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Sent(bytes) => bytes,
            Self::Shared(range) => range.bytes(),
        }
    }
}

/// The data of a write.
#[derive(Debug)]
struct Payload {
    data: Data,
    taken: usize,
}

impl Payload {
    fn rest(&self) -> &[u8] {
        self.data.bytes().get(self.taken..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) -> usize {
        self.taken = self.taken.saturating_add(count);
        count
    }
}

impl WriteSource for Payload {
    fn remaining(&self) -> usize {
        self.rest().len()
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let taken = SliceSource::new(self.rest()).take(buffer)?;
        Ok(self.advance(taken))
    }

    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let taken = SliceSource::new(self.rest()).take_into(file, offset, wait)?;
        Ok(self.advance(taken))
    }
}
