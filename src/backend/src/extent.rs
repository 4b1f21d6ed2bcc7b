//! Content that the host has in a file of its own: what can be copied, or mapped, without passing through
//! a backend.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::copy_file_range;
use rustix::io::{pread, pwrite};

use crate::{Errno, Result, Wait, WriteSource};

/// Bytes that go through memory at once where the kernel cannot copy between two files.
const PIECE: usize = 1 << 16;

/// A piece of a file's content as the host has it.
#[derive(Debug, Clone)]
pub struct Extent {
    /// A regular file of the host, open for reading. Nothing but the range belongs to the content.
    pub descriptor: Arc<OwnedFd>,
    /// Where the content begins in it.
    pub offset: u64,
    /// Bytes; not more than were asked for, and at least 1. `offset + length` is at most `i64::MAX`.
    pub length: u64,
}

/// A [`WriteSource`] that gives the content of an extent. To a file it is copied by the kernel
/// (copy_file_range(2)), which shares the blocks where the file system can.
#[derive(Debug)]
pub struct ExtentSource {
    extent: Extent,
}

impl ExtentSource {
    /// A source of all of an extent.
    pub fn new(extent: Extent) -> Self {
        Self { extent }
    }

    fn advance(&mut self, count: usize) {
        let count = count as u64;
        self.extent.offset = self.extent.offset.saturating_add(count);
        self.extent.length = self.extent.length.saturating_sub(count);
    }

    /// Copies through memory, as much as one piece.
    fn copy_piece(&self, file: BorrowedFd<'_>, offset: u64) -> Result<usize> {
        let mut buffer = vec![0; self.remaining().min(PIECE)];
        let read = pread(&self.extent.descriptor, &mut buffer, self.extent.offset)?;
        let written = pwrite(file, buffer.get(..read).unwrap_or_default(), offset)?;
        Ok(written)
    }
}

impl WriteSource for ExtentSource {
    fn remaining(&self) -> usize {
        usize::try_from(self.extent.length).unwrap_or(usize::MAX)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = buffer.len().min(self.remaining());
        let target = buffer.get_mut(..length).unwrap_or_default();
        let read = pread(&self.extent.descriptor, target, self.extent.offset)?;
        self.advance(read);
        Ok(read)
    }

    /// Always waits: EAGAIN where that is refused.
    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        if wait == Wait::Refused {
            return Err(Errno::AGAIN.into());
        }
        let (mut from, mut to) = (self.extent.offset, offset);
        let copied = copy_file_range(
            &self.extent.descriptor,
            Some(&mut from),
            file,
            Some(&mut to),
            self.remaining(),
        );
        let copied = match copied {
            // Of two file systems, or of one that does not copy.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.copy_piece(file, offset)?
            }
            other => other?,
        };
        self.advance(copied);
        Ok(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn file(content: &[u8]) -> OwnedFd {
        let fd = rustix::fs::memfd_create(c"extent", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(pwrite(&fd, content, 0).unwrap(), content.len());
        fd
    }

    fn source(content: &[u8], offset: u64, length: u64) -> ExtentSource {
        ExtentSource::new(Extent {
            descriptor: Arc::new(file(content)),
            offset,
            length,
        })
    }

    #[test]
    fn an_extent_is_copied_to_another_file_and_nothing_around_it() {
        let mut source = source(b"abcdefgh", 2, 4);
        let target = file(b"12345678");
        let refused = source.take_into(target.as_fd(), 1, Wait::Refused);
        assert!(refused.is_err_and(|error| error.is(Errno::AGAIN)));
        assert_eq!(
            source.take_into(target.as_fd(), 1, Wait::Allowed).unwrap(),
            4
        );
        assert_eq!(source.remaining(), 0);
        let mut content = [0; 8];
        assert_eq!(pread(&target, &mut content, 0).unwrap(), 8);
        assert_eq!(&content, b"1cdef678");
    }

    #[test]
    fn an_extent_is_given_out_byte_by_byte_too() {
        let mut source = source(b"abcdefgh", 3, 5);
        let mut buffer = [0; 4];
        assert_eq!(source.take(&mut buffer).unwrap(), 4);
        assert_eq!((&buffer, source.remaining()), (b"defg", 1));
        assert_eq!(source.take(&mut buffer).unwrap(), 1);
        assert_eq!((buffer[0], source.remaining()), (b'h', 0));
    }
}
