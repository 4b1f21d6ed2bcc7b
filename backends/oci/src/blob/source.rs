//! Where the compressed bytes of a layer are read from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::SpanError;

/// Whether bytes of a blob are what they should be; the error names the layer and the span.
pub type Check<'a> = &'a dyn Fn(&[u8]) -> Result<(), SpanError>;

/// A layer as its registry, or a folder, keeps it: bytes that are found by their offset.
///
/// Nothing read from it is trusted before it was verified.
pub trait BlobSource: Send + Sync {
    /// Fills `buffer` with the bytes from `offset` on. May block, for a disk or a network.
    ///
    /// # Errors
    /// `UnexpectedEof` when the blob ends before; whatever else kept the bytes from being read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// As [`read_at`](Self::read_at), and where the blob is in several places, at the next one whenever `check` refuses
    /// the bytes of one. Those of the last place are given unchecked.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    fn read_right(&self, offset: u64, buffer: &mut [u8], check: Check<'_>) -> io::Result<()> {
        let _ = check;
        self.read_at(offset, buffer)
    }

    /// Whether reading needs another host: then it may be worth it to read ahead.
    fn is_distant(&self) -> bool {
        false
    }
}

impl BlobSource for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl BlobSource for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end_early = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| end_early())?;
        let end = start.checked_add(buffer.len()).ok_or_else(end_early)?;
        buffer.copy_from_slice(self.get(start..end).ok_or_else(end_early)?);
        Ok(())
    }
}

impl<T: BlobSource + ?Sized> BlobSource for Arc<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        T::read_at(self, offset, buffer)
    }

    fn read_right(&self, offset: u64, buffer: &mut [u8], check: Check<'_>) -> io::Result<()> {
        T::read_right(self, offset, buffer, check)
    }

    fn is_distant(&self) -> bool {
        T::is_distant(self)
    }
}

impl<T: BlobSource + ?Sized> BlobSource for Box<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        T::read_at(self, offset, buffer)
    }

    fn read_right(&self, offset: u64, buffer: &mut [u8], check: Check<'_>) -> io::Result<()> {
        T::read_right(self, offset, buffer, check)
    }

    fn is_distant(&self) -> bool {
        T::is_distant(self)
    }
}
