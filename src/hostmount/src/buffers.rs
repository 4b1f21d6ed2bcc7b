//! Memory for requests and for the data of replies.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{MAX_ARGUMENTS, MAX_DATA};

/// Buffers that are used again, so that no request pays for clearing one.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Idle buffers that are kept; more are freed.
    kept: usize,
}

impl Buffers {
    /// Length of each buffer: the largest request, or reply.
    pub(crate) const LENGTH: usize = MAX_DATA + MAX_ARGUMENTS;

    /// No buffers yet; at most `kept` idle ones later.
    pub(crate) fn new(kept: usize) -> Self {
        Self {
            idle: Arc::default(),
            kept,
        }
    }

    /// A buffer with arbitrary content.
    pub(crate) fn take(&self) -> Buffer {
        let idle = self.idle.lock().pop();
        let bytes = idle.unwrap_or_else(|| vec![0; Self::LENGTH]);
        Buffer {
            bytes,
            home: self.clone(),
        }
    }

    fn put(&self, bytes: Vec<u8>) {
        let mut idle = self.idle.lock();
        if idle.len() < self.kept {
            idle.push(bytes);
        }
    }
}

/// A buffer of [`Buffers::LENGTH`] bytes. It goes back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again() {
        let buffers = Buffers::new(1);
        let mut first = buffers.take();
        first[0] = 7;
        drop(first);
        assert_eq!(buffers.take()[0], 7);
    }

    #[test]
    fn no_more_idle_buffers_are_kept_than_allowed() {
        let buffers = Buffers::new(2);
        let taken: Vec<Buffer> = (0..5).map(|_| buffers.take()).collect();
        drop(taken);
        assert_eq!(buffers.idle.lock().len(), 2);
    }
}
