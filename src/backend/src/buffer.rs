//! Payloads in the daemon's own memory: for the host mount, for plugins and for tests.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::io::{ReadWriteFlags, preadv2, pwritev2};

use crate::{ReadSink, Result, Wait, WriteSource};

fn flags(wait: Wait) -> ReadWriteFlags {
    match wait {
        Wait::Allowed => ReadWriteFlags::empty(),
        Wait::Refused => ReadWriteFlags::NOWAIT,
    }
}

/// A [`ReadSink`] that fills a byte slice from its start.
#[derive(Debug)]
pub struct BufferSink<'a> {
    buffer: &'a mut [u8],
    filled: usize,
}

impl<'a> BufferSink<'a> {
    /// An empty sink over `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, filled: 0 }
    }

    /// Bytes taken so far.
    pub fn filled(&self) -> usize {
        self.filled
    }

    fn free(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }
}

impl ReadSink for BufferSink<'_> {
    fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.filled)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let free = self.free();
        let copied = free.len().min(bytes.len());
        if let (Some(to), Some(from)) = (free.get_mut(..copied), bytes.get(..copied)) {
            to.copy_from_slice(from);
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
        let free = self.free();
        let length = length.min(free.len());
        let target = free.get_mut(..length).unwrap_or_default();
        let read = preadv2(file, &mut [IoSliceMut::new(target)], offset, flags(wait))?;
        self.filled = self.filled.saturating_add(read);
        Ok(read)
    }
}

/// A [`WriteSource`] over a byte slice.
#[derive(Debug)]
pub struct SliceSource<'a> {
    bytes: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// A source of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn advance(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
    }
}

impl WriteSource for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = buffer.len().min(self.bytes.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), self.bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        self.advance(count);
        Ok(count)
    }

    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let written = pwritev2(file, &[IoSlice::new(self.bytes)], offset, flags(wait))?;
        self.advance(written);
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_takes_what_fits_and_no_more() {
        let mut buffer = [0; 4];
        let mut sink = BufferSink::new(&mut buffer);
        assert_eq!(sink.put(b"ab").unwrap(), 2);
        assert_eq!(sink.put(b"cdef").unwrap(), 2);
        assert_eq!(sink.put(b"g").unwrap(), 0);
        assert_eq!((sink.filled(), sink.room()), (4, 0));
        assert_eq!(&buffer, b"abcd");
    }

    #[test]
    fn a_source_gives_each_byte_once() {
        let mut source = SliceSource::new(b"abcde");
        let mut buffer = [0; 3];
        assert_eq!(source.take(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer, b"abc");
        assert_eq!(source.take(&mut buffer).unwrap(), 2);
        assert_eq!((&buffer[..2], source.remaining()), (&b"de"[..], 0));
    }
}
