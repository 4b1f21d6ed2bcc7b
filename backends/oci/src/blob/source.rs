//! Where the compressed bytes of a layer are read from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A layer as its registry, or a folder, keeps it: bytes that are found by their offset.
///
/// Nothing read from it is trusted before it was verified.
pub trait BlobSource: Send + Sync {
    /// Fills `buffer` with the bytes from `offset` on. May block, for a disk or a network.
    ///
    /// # Errors
    /// `UnexpectedEof` when the blob ends before; whatever else kept the bytes from being read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

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

    fn is_distant(&self) -> bool {
        T::is_distant(self)
    }
}

impl<T: BlobSource + ?Sized> BlobSource for Box<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        T::read_at(self, offset, buffer)
    }

    fn is_distant(&self) -> bool {
        T::is_distant(self)
    }
}
