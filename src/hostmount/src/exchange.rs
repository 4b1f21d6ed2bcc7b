//! One request's way back to the kernel.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use vfsd_backend::{BufferSink, ReadSink, Result, SliceSource, Wait, WriteSource};
use vfsd_server::{Body, Delivery, Exchange};

use crate::buffers::{Buffer, Buffers};
use crate::device::Device;

/// Length of `struct fuse_out_header`.
const REPLY_HEADER: usize = 16;

/// The bit of `unique` that marks an INTERRUPT (`FUSE_INT_REQ_BIT` of fs/fuse/dev.c).
const INTERRUPT: u64 = 1;

/// The descriptors of a connection, and which of them a request came from.
#[derive(Debug, Clone)]
pub(crate) struct SourceDevice {
    pub(crate) devices: Arc<[Device]>,
    pub(crate) index: usize,
}

impl SourceDevice {
    pub(crate) fn device(&self) -> Option<&Device> {
        self.devices.get(self.index)
    }

    fn send(&self, header: &[u8; REPLY_HEADER], body: &[u8]) -> rustix::io::Result<()> {
        let sent = match self.device() {
            Some(device) => device.send(header, body),
            None => Err(Errno::NODEV),
        };
        if sent != Err(Errno::NOENT) || unique(header) & INTERRUPT == 0 {
            return sent;
        }
        // The kernel hands out an INTERRUPT on any descriptor, but looks for the request it is
        // about among those read from the descriptor of the reply.
        let mut others = self
            .devices
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != self.index);
        others
            .find_map(|(_, device)| match device.send(header, body) {
                Err(Errno::NOENT) => None,
                result => Some(result),
            })
            .unwrap_or(sent)
    }
}

fn unique(header: &[u8; REPLY_HEADER]) -> u64 {
    header
        .last_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// `struct fuse_out_header` that answers EIO to the request of `header`.
fn failure(header: &[u8; REPLY_HEADER]) -> [u8; REPLY_HEADER] {
    let [.., a, b, c, d, e, f, g, h] = *header;
    let [l0, l1, l2, l3] = 16_u32.to_ne_bytes();
    let [e0, e1, e2, e3] = 0_i32.saturating_sub(Errno::IO.raw_os_error()).to_ne_bytes();
    [l0, l1, l2, l3, e0, e1, e2, e3, a, b, c, d, e, f, g, h]
}

/// One request's way back to the kernel.
#[derive(Debug)]
pub(crate) struct KernelExchange {
    source: SourceDevice,
    payload: Payload,
    sink: Sink,
}

impl KernelExchange {
    /// The way back of a request that came from `source`.
    pub(crate) fn new(source: SourceDevice, payload: Payload, buffers: Buffers) -> Self {
        Self {
            source,
            payload,
            sink: Sink {
                buffers,
                buffer: None,
                filled: 0,
            },
        }
    }
}

impl Exchange for KernelExchange {
    fn capacity(&self) -> usize {
        Buffers::LENGTH.saturating_add(REPLY_HEADER)
    }

    fn payload(&mut self) -> &mut dyn WriteSource {
        &mut self.payload
    }

    fn sink(&mut self) -> &mut dyn ReadSink {
        &mut self.sink
    }

    fn reply(self, header: [u8; REPLY_HEADER], body: Body<'_>) -> Delivery {
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::Sunk(length) => self.sink.taken(length),
        };
        match self.source.send(&header, bytes) {
            Ok(()) => Delivery::Sent,
            // Interrupted meanwhile, or unmounted.
            Err(Errno::NOENT | Errno::NODEV) => Delivery::Lost,
            Err(errno) => {
                // Without any reply its caller would hang for good.
                let answered = self.source.send(&failure(&header), &[]).is_ok();
                tracing::error!(%errno, answered, "the kernel refused a reply");
                Delivery::Lost
            }
        }
    }

    fn discard(self) {}
}

/// The data of a write.
#[derive(Debug)]
pub(crate) struct Payload {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Payload {
    /// What stands in `buffer` from `start` to `end`.
    pub(crate) fn new(buffer: Buffer, start: usize, end: usize) -> Self {
        Self {
            buffer: Some(buffer),
            start,
            end,
        }
    }

    /// No data.
    pub(crate) fn none() -> Self {
        Self {
            buffer: None,
            start: 0,
            end: 0,
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer
            .as_deref()
            .and_then(|bytes| bytes.get(self.start..self.end))
            .unwrap_or_default()
    }

    fn advance(&mut self, taken: usize) {
        self.start = self.start.saturating_add(taken).min(self.end);
    }
}

impl WriteSource for Payload {
    fn remaining(&self) -> usize {
        self.rest().len()
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let taken = SliceSource::new(self.rest()).take(buffer)?;
        self.advance(taken);
        Ok(taken)
    }

    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let taken = SliceSource::new(self.rest()).take_into(file, offset, wait)?;
        self.advance(taken);
        Ok(taken)
    }
}

/// The data of a reply, in a buffer that is taken when there are some.
#[derive(Debug)]
struct Sink {
    buffers: Buffers,
    buffer: Option<Buffer>,
    filled: usize,
}

impl Sink {
    fn free(&mut self) -> BufferSink<'_> {
        let buffer = self.buffer.get_or_insert_with(|| self.buffers.take());
        BufferSink::new(buffer.get_mut(self.filled..).unwrap_or_default())
    }

    fn taken(&self, length: usize) -> &[u8] {
        let bytes = self.buffer.as_deref().unwrap_or_default();
        bytes.get(..length.min(self.filled)).unwrap_or_default()
    }
}

impl ReadSink for Sink {
    fn room(&self) -> usize {
        Buffers::LENGTH.saturating_sub(self.filled)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let taken = self.free().put(bytes)?;
        self.filled = self.filled.saturating_add(taken);
        Ok(taken)
    }

    fn put_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        wait: Wait,
    ) -> Result<usize> {
        let taken = self.free().put_from(file, offset, length, wait)?;
        self.filled = self.filled.saturating_add(taken);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// An exchange whose replies go to a socket instead of the kernel.
    fn exchange(payload: Payload) -> (KernelExchange, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let devices = Arc::from([Device::from(OwnedFd::from(ours))]);
        let source = SourceDevice { devices, index: 0 };
        (
            KernelExchange::new(source, payload, Buffers::new(1)),
            theirs,
        )
    }

    fn sent(mut stream: UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_reply_is_header_and_body() {
        let (exchange, kernel) = exchange(Payload::none());
        assert_eq!(
            exchange.reply([1; 16], Body::Bytes(b"body")),
            Delivery::Sent
        );
        assert_eq!(sent(kernel), [&[1; 16][..], b"body"].concat());
    }

    #[test]
    fn only_as_much_of_the_sink_is_sent_as_the_reply_says() {
        let (mut exchange, kernel) = exchange(Payload::none());
        assert_eq!(exchange.sink().put(b"one ").unwrap(), 4);
        assert_eq!(exchange.sink().put(b"two three").unwrap(), 9);
        assert_eq!(exchange.reply([0; 16], Body::Sunk(7)), Delivery::Sent);
        assert_eq!(&sent(kernel)[16..], b"one two");
    }

    #[test]
    fn a_discarded_exchange_sends_nothing() {
        let (exchange, kernel) = exchange(Payload::none());
        exchange.discard();
        assert!(sent(kernel).is_empty());
    }

    #[test]
    fn a_payload_is_taken_once() {
        let mut buffer = Buffers::new(0).take();
        buffer[..10].copy_from_slice(b"headerdata");
        let mut payload = Payload::new(buffer, 6, 10);
        let mut bytes = [0; 3];
        assert_eq!(payload.remaining(), 4);
        assert_eq!(payload.take(&mut bytes).unwrap(), 3);
        assert_eq!(&bytes, b"dat");
        assert_eq!(payload.take(&mut bytes).unwrap(), 1);
        assert_eq!(payload.take(&mut bytes).unwrap(), 0);
    }

    #[test]
    fn a_failure_answers_the_same_request_with_eio() {
        let mut header = [9; 16];
        header[8..].copy_from_slice(&42_u64.to_ne_bytes());
        let failed = failure(&header);
        assert_eq!(unique(&failed), 42);
        assert_eq!(failed[..4], 16_u32.to_ne_bytes());
        assert_eq!(failed[4..8], (-5_i32).to_ne_bytes());
    }
}
