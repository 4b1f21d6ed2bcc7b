//! One request's way back to its guest.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vfsd_backend::{Errno, ReadSink, Result, Wait, WriteSource};
use vfsd_server::{Body, Delivery, Exchange, HEADER_LENGTH, Incoming, inline_length};

use crate::iovec::GuestBuffers;
use crate::ring::{Chain, ChainFault, Ring};

/// Bytes of the header that begins each reply.
const REPLY_HEADER: usize = 16;

/// A chain of descriptors that the device has, and gives back exactly once.
///
/// Dropped unanswered, as happens when the request's work panics, it answers EIO: a guest that
/// does not check the length of replies (Linux before 7.1) would take an empty one for success.
#[derive(Debug)]
pub struct ChainExchange {
    ring: Arc<Ring>,
    head: u16,
    unique: [u8; 8],
    /// What the copy of header and arguments takes of the ring's budget.
    reserved: usize,
    given_back: bool,
    source: PayloadSource,
    sink: ReplySink,
}

impl ChainExchange {
    /// Makes a request of a chain, or ends it at once if there is none in it. `inline` is an empty
    /// buffer.
    pub(crate) fn open(
        ring: Arc<Ring>,
        head: u16,
        chain: Chain,
        mut inline: Vec<u8>,
    ) -> Option<Incoming<Self>> {
        let Chain {
            readable,
            writable,
            fault,
        } = chain;
        let mut header = [0; HEADER_LENGTH];
        let complete = readable.copy_out(0, &mut header) == HEADER_LENGTH;
        let [
            l0,
            l1,
            l2,
            l3,
            _,
            _,
            _,
            _,
            u0,
            u1,
            u2,
            u3,
            u4,
            u5,
            u6,
            u7,
            ..,
        ] = header;
        let mut exchange = Self {
            ring,
            head,
            unique: [u0, u1, u2, u3, u4, u5, u6, u7],
            reserved: 0,
            given_back: false,
            source: PayloadSource {
                buffers: readable,
                position: 0,
                end: 0,
            },
            sink: ReplySink {
                buffers: writable,
                filled: 0,
            },
        };
        let readable = exchange.source.buffers.len();
        let lost = exchange.source.buffers.lost();
        if let Some(fault) = fault.or((!complete).then_some(ChainFault::ShortHeader)) {
            exchange
                .ring
                .counters
                .bad_chain(exchange.ring.name(), fault);
            if complete && !lost {
                exchange.refuse(fault.errno());
            } else {
                exchange.give_back(0);
            }
            return None;
        }

        let length = inline_length(&header, readable).clamp(HEADER_LENGTH, readable);
        if !exchange.ring.reserve(length) {
            exchange.ring.counters.refused(exchange.ring.name());
            exchange.refuse(libc::ENOMEM);
            return None;
        }
        exchange.reserved = length;
        inline.resize(length, 0);
        // What was looked at must not change any more, so the header is not read again.
        let (start, arguments) = inline.split_at_mut_checked(HEADER_LENGTH)?;
        start.copy_from_slice(&header);
        exchange.source.buffers.copy_out(HEADER_LENGTH, arguments);
        // Bytes beyond the length that the request claims do not belong to it.
        let claimed = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        exchange.source.position = length;
        exchange.source.end = claimed.min(readable).max(length);
        if exchange.source.buffers.lost() {
            exchange.give_back(0);
            return None;
        }
        Some(Incoming {
            inline,
            readable,
            exchange,
        })
    }

    /// Answers with an error, or with nothing if there is no room for one.
    fn refuse(&mut self, errno: i32) {
        if self.sink.buffers.len() < REPLY_HEADER {
            self.give_back(0);
            return;
        }
        let [l0, l1, l2, l3] = 16_u32.to_le_bytes();
        let [e0, e1, e2, e3] = errno.wrapping_neg().to_le_bytes();
        let [u0, u1, u2, u3, u4, u5, u6, u7] = self.unique;
        let header = [
            l0, l1, l2, l3, e0, e1, e2, e3, u0, u1, u2, u3, u4, u5, u6, u7,
        ];
        self.sink.buffers.copy_in(0, &header);
        self.give_back(16);
    }

    /// Gives the chain back, and says whether the guest sees that.
    fn give_back(&mut self, written: u32) -> bool {
        self.given_back = true;
        self.ring.release(self.reserved);
        if self.sink.buffers.lost() {
            // What was written went nowhere.
            self.ring.give_back(self.head, 0, 0);
            return false;
        }
        let moved = self.source.position.saturating_add(self.sink.filled);
        self.ring.give_back(self.head, written, moved)
    }
}

impl Exchange for ChainExchange {
    fn capacity(&self) -> usize {
        self.sink.buffers.len()
    }

    fn payload(&mut self) -> &mut dyn WriteSource {
        &mut self.source
    }

    fn sink(&mut self) -> &mut dyn ReadSink {
        &mut self.sink
    }

    fn reply(mut self, header: [u8; 16], body: Body<'_>) -> Delivery {
        let room = self.sink.buffers.len();
        let (length, taken) = match body {
            Body::Bytes(bytes) => (bytes.len().saturating_add(REPLY_HEADER), true),
            Body::Sunk(count) => (
                count.saturating_add(REPLY_HEADER),
                count <= self.sink.filled,
            ),
        };
        let [l0, l1, l2, l3, ..] = header;
        let claimed = u32::from_le_bytes([l0, l1, l2, l3]);
        if usize::try_from(claimed) != Ok(length) || length > room || !taken {
            self.ring
                .counters
                .wrong_reply(self.ring.name(), claimed, length, room);
            self.refuse(libc::EIO);
            return Delivery::Lost;
        }
        if let Body::Bytes(bytes) = body {
            self.sink.buffers.copy_in(REPLY_HEADER, bytes);
        }
        self.sink.buffers.copy_in(0, &header);
        if self.give_back(claimed) {
            Delivery::Sent
        } else {
            Delivery::Lost
        }
    }

    fn discard(mut self) {
        self.give_back(0);
    }
}

impl Drop for ChainExchange {
    fn drop(&mut self) {
        if !self.given_back {
            self.refuse(libc::EIO);
        }
    }
}

/// What follows the inline part of a request.
#[derive(Debug)]
struct PayloadSource {
    buffers: GuestBuffers,
    position: usize,
    end: usize,
}

impl WriteSource for PayloadSource {
    fn remaining(&self) -> usize {
        self.end.saturating_sub(self.position)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = buffer.len().min(self.remaining());
        let target = buffer.get_mut(..length).unwrap_or_default();
        let copied = self.buffers.copy_out(self.position, target);
        if self.buffers.lost() {
            return Err(Errno::FAULT.into());
        }
        self.position = self.position.saturating_add(copied);
        Ok(copied)
    }

    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let written = self
            .buffers
            .write_to(file, offset, self.position, self.remaining(), wait)?;
        self.position = self.position.saturating_add(written);
        Ok(written)
    }
}

/// What follows the header of a reply.
#[derive(Debug)]
struct ReplySink {
    buffers: GuestBuffers,
    filled: usize,
}

impl ReplySink {
    fn position(&self) -> usize {
        self.filled.saturating_add(REPLY_HEADER)
    }
}

impl ReadSink for ReplySink {
    fn room(&self) -> usize {
        self.buffers.len().saturating_sub(self.position())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let copied = self.buffers.copy_in(self.position(), bytes);
        if self.buffers.lost() {
            return Err(Errno::FAULT.into());
        }
        self.filled = self.filled.saturating_add(copied);
        Ok(copied)
    }

    fn put_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        wait: Wait,
    ) -> Result<usize> {
        let read = self
            .buffers
            .read_from(file, offset, self.position(), length, wait)?;
        self.filled = self.filled.saturating_add(read);
        Ok(read)
    }
}
