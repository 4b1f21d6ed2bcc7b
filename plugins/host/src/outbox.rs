//! What is on its way to a plugin. Nobody who sends waits for it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use vfsd_plugin_protocol::{send_all, send_some};

/// Bytes that may wait beyond the payload that is in flight anyway: forgotten nodes, mostly.
const SLACK: usize = 16 << 20;

/// Messages that the socket did not take at once, in their order.
#[derive(Debug)]
pub(crate) struct Outbox {
    stream: UnixStream,
    queue: Mutex<Queue>,
    changed: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The writer has taken a message out and is sending it.
    sending: bool,
    closed: bool,
}

/// The message was not taken: the connection is closed, or so much waits that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    Closed,
    Full,
}

impl Outbox {
    /// For a stream to which `payload` bytes may be on their way at once.
    pub(crate) fn new(stream: UnixStream, payload: u32) -> Self {
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        Self {
            stream,
            queue: Mutex::default(),
            changed: Condvar::new(),
            limit: payload.saturating_add(SLACK),
        }
    }

    /// Sends a message, or has it sent.
    pub(crate) fn send(&self, message: Vec<u8>) -> Result<(), Unsent> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Unsent::Closed);
        }
        let mut rest = message;
        if queue.messages.is_empty() && !queue.sending {
            match send_some(&self.stream, &[IoSlice::new(&rest)], None, false) {
                Ok(sent) if sent == rest.len() => return Ok(()),
                Ok(sent) => drop(rest.drain(..sent)),
                Err(Errno::AGAIN) => {}
                Err(_) => return Err(Unsent::Closed),
            }
        }
        queue.bytes = queue.bytes.saturating_add(rest.len());
        if queue.bytes > self.limit {
            return Err(Unsent::Full);
        }
        queue.messages.push_back(rest);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Sends what waits, until the outbox is closed. The work of a thread.
    pub(crate) fn write(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        while !queue.closed {
            let Some(message) = queue.messages.pop_front() else {
                self.changed.wait(&mut queue);
                continue;
            };
            queue.sending = true;
            drop(queue);
            let sent = send_all(&self.stream, &[&message], None);
            queue = self.queue.lock();
            queue.sending = false;
            queue.bytes = queue.bytes.saturating_sub(message.len());
            // The reader of the socket sees the same, and says so.
            queue.closed |= sent.is_err();
        }
    }

    /// Sends nothing more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.messages.clear();
        drop(queue);
        self.changed.notify_all();
    }
}
