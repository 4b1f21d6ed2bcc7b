//! Content that is named by its digest.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::blob::{BlobSource, Sha256Digest};

use super::ImageError;

/// The largest manifest, index or configuration: 4 MiB, as registries have it.
pub(crate) const JSON_MAX: u64 = 4 << 20;

/// Where the blobs of an image are.
pub trait Blobs: Send + Sync {
    /// The bytes of a blob, not verified. `size` is what its descriptor says.
    ///
    /// # Errors
    /// `NotFound` where there is no such blob, `InvalidData` where it has another size.
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>>;

    /// The bytes of a blob that is no layer, not verified.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_document(
        &self,
        kind: Document,
        digest: Sha256Digest,
        size: u64,
    ) -> io::Result<Arc<dyn BlobSource>> {
        let _ = kind;
        self.open(digest, size)
    }

    /// A blob from its first byte to its last, not verified, for whoever wants all of it. Where that has to be
    /// fetched it is kept, so that [`open`](Self::open) finds it then.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn read(&self, digest: Sha256Digest, size: u64) -> io::Result<Box<dyn Read + Send>> {
        let source = self.open(digest, size)?;
        Ok(Box::new(WholeBlob {
            source,
            offset: 0,
            size,
        }))
    }

    /// The manifests of a type that were pushed beside another one, the newest last.
    ///
    /// # Errors
    /// It is not to be had whether there are any.
    fn referrers(&self, subject: Sha256Digest, kind: &str) -> io::Result<Vec<Sha256Digest>> {
        let _ = (subject, kind);
        Ok(Vec::new())
    }

    /// A manifest of which no size is known, verified. It is not kept.
    ///
    /// # Errors
    /// `NotFound` where there is no such manifest; `InvalidData` for one that is not what its digest says.
    fn manifest(&self, digest: Sha256Digest) -> io::Result<Vec<u8>> {
        let _ = digest;
        Err(io::ErrorKind::NotFound.into())
    }

    /// The manifests, indexes and configurations that were read and are kept in the cache.
    fn documents(&self) -> Vec<Sha256Digest> {
        Vec::new()
    }

    /// Drops what is kept of a blob, because it turned out to be wrong. Tells whether [`read`](Self::read) may yield
    /// something else now.
    fn discard(&self, digest: Sha256Digest) -> bool {
        let _ = digest;
        false
    }
}

/// What a blob is that is no layer. Registries keep them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// A manifest or an index.
    Manifest,
    /// A configuration.
    Configuration,
}

impl Document {
    fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Configuration => "configuration",
        }
    }
}

/// A blob from its first byte to its last.
struct WholeBlob {
    source: Arc<dyn BlobSource>,
    offset: u64,
    size: u64,
}

impl Read for WholeBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.offset);
        let count = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let target = buffer.get_mut(..count).unwrap_or_default();
        self.source.read_at(self.offset, target)?;
        let read = u64::try_from(count).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(read);
        Ok(count)
    }
}

/// Reads a blob that is JSON, and verifies it.
///
/// # Errors
/// A blob that is not there, too large, or not what its digest says.
pub(super) fn read_json(
    blobs: &dyn Blobs,
    kind: Document,
    digest: Sha256Digest,
    size: u64,
) -> Result<Vec<u8>, ImageError> {
    let what = kind.name();
    let failed = |error| ImageError::blob(what, digest, error);
    if size > JSON_MAX {
        return Err(ImageError::TooLarge { what, size });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let source = blobs.open_document(kind, digest, size).map_err(failed)?;
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
