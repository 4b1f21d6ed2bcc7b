//! Content that is named by its digest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::blob::{BlobSource, Sha256Digest};

use super::ImageError;

/// The largest manifest, index or configuration: 4 MiB, as registries have it.
pub(super) const JSON_MAX: u64 = 4 << 20;

/// Where the blobs of an image are.
pub trait Blobs: Send + Sync {
    /// The bytes of a blob, not verified. `size` is what its descriptor says.
    ///
    /// # Errors
    /// `NotFound` where there is no such blob, `InvalidData` where it has another size.
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>>;
}

/// Reads a blob that is JSON, and verifies it.
///
/// # Errors
/// A blob that is not there, too large, or not what its digest says.
pub(super) fn read_json(
    blobs: &dyn Blobs,
    what: &'static str,
    digest: Sha256Digest,
    size: u64,
) -> Result<Vec<u8>, ImageError> {
    let failed = |error| ImageError::blob(what, digest, error);
    if size > JSON_MAX {
        return Err(ImageError::TooLarge { what, size });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let source = blobs.open(digest, size).map_err(failed)?;
    source.read_at(0, &mut bytes).map_err(failed)?;
    if Sha256Digest::of(&bytes) != digest {
        return Err(ImageError::Mismatch { what, digest });
    }
    Ok(bytes)
}

/// Bytes in the middle of a file.
#[derive(Debug, Clone)]
pub(super) struct FileRange {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl BlobSource for FileRange {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(length);
        let begin = self.offset.checked_add(offset);
        match (end, begin) {
            (Some(end), Some(begin)) if end <= self.length => {
                self.file.read_exact_at(buffer, begin)
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl FileRange {
    /// All of it.
    ///
    /// # Errors
    /// More than [`JSON_MAX`] bytes.
    pub(super) fn read(&self, what: &'static str) -> Result<Vec<u8>, ImageError> {
        if self.length > JSON_MAX {
            let size = self.length;
            return Err(ImageError::TooLarge { what, size });
        }
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(0)];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}
