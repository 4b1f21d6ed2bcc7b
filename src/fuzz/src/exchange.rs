//! A request's way back that only looks whether it is gone once.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use vfsd_backend::{BufferSink, ReadSink, Result, SliceSource, Wait, WriteSource};
use vfsd_server::{Body, Delivery, Exchange};

/// Length of a reply's header.
const HEADER: usize = 16;

pub(crate) struct Way {
    payload: Vec<u8>,
    taken: usize,
    sunk: Vec<u8>,
    filled: usize,
    replies: Sender<Vec<u8>>,
    /// Requests that have no answer yet.
    open: Arc<AtomicUsize>,
    ended: bool,
}

impl Way {
    pub(crate) fn new(
        payload: &[u8],
        capacity: usize,
        replies: Sender<Vec<u8>>,
        open: &Arc<AtomicUsize>,
    ) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self {
            payload: payload.to_vec(),
            taken: 0,
            sunk: vec![0; capacity.saturating_sub(HEADER)],
            filled: 0,
            replies,
            open: Arc::clone(open),
            ended: false,
        }
    }

    fn end(&mut self) {
        assert!(!self.ended, "a request ends once");
        self.ended = true;
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

impl ReadSink for Way {
    fn room(&self) -> usize {
        self.sunk.len() - self.filled
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let taken = BufferSink::new(&mut self.sunk[self.filled..]).put(bytes)?;
        self.filled += taken;
        Ok(taken)
    }

    fn put_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        wait: Wait,
    ) -> Result<usize> {
        let mut sink = BufferSink::new(&mut self.sunk[self.filled..]);
        let taken = sink.put_from(file, offset, length, wait)?;
        self.filled += taken;
        Ok(taken)
    }
}

impl WriteSource for Way {
    fn remaining(&self) -> usize {
        self.payload.len() - self.taken
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let taken = SliceSource::new(&self.payload[self.taken..]).take(buffer)?;
        self.taken += taken;
        Ok(taken)
    }

    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let taken = SliceSource::new(&self.payload[self.taken..]).take_into(file, offset, wait)?;
        self.taken += taken;
        Ok(taken)
    }
}

impl Exchange for Way {
    fn capacity(&self) -> usize {
        self.sunk.len() + HEADER
    }

    fn payload(&mut self) -> &mut dyn WriteSource {
        self
    }

    fn sink(&mut self) -> &mut dyn ReadSink {
        self
    }

    fn reply(mut self, header: [u8; HEADER], body: Body<'_>) -> Delivery {
        let body = match body {
            Body::Bytes(bytes) => bytes,
            Body::Sunk(length) => {
                assert!(length <= self.filled, "what was sunk is shown");
                &self.sunk[..length]
            }
        };
        let reply = [&header[..], body].concat();
        assert!(reply.len() <= self.sunk.len() + HEADER, "a reply fits");
        assert_eq!(
            header[..4],
            u32::try_from(reply.len()).unwrap().to_le_bytes()
        );
        let failed = header[4..8] != [0; 4];
        assert!(!failed || reply.len() == HEADER, "an error has no body");
        // Nobody listens to what comes after the script.
        let _ = self.replies.send(reply);
        self.end();
        Delivery::Sent
    }

    fn discard(mut self) {
        self.end();
    }
}
