//! Making the index of a layer.

use std::io::{self, Read};
use std::sync::Arc;

use super::{IndexError, LayerIndex};
use crate::blob::{BlobError, BlobIndexer, BlobOptions};
use crate::tar::{TarLimits, TarParser};

/// How much of a layer is read at once: what stays near the processor until it is decoded and hashed.
pub(crate) const PIECE: usize = 128 << 10;

/// How a layer is indexed.
#[derive(Debug, Clone, Default)]
pub struct IndexOptions {
    /// Spans and limits of the blob.
    pub blob: BlobOptions,
    /// Limits of the tar.
    pub tar: TarLimits,
}

/// How far the indexing of a layer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexProgress {
    /// Bytes of the blob.
    pub compressed: u64,
    /// Bytes they decoded to.
    pub decoded: u64,
}

/// Indexes a layer that is given piece by piece, as it arrives.
#[expect(missing_debug_implementations, reason = "the decoders have none")]
pub struct IndexBuilder {
    blob: BlobIndexer,
    tar: TarParser,
    progress: IndexProgress,
}

impl IndexBuilder {
    /// One that has seen nothing yet.
    pub fn new(options: &IndexOptions) -> Self {
        Self {
            blob: BlobIndexer::new(options.blob.clone()),
            tar: TarParser::new(options.tar.clone()),
            progress: IndexProgress::default(),
        }
    }

    /// Takes the next bytes of the blob.
    ///
    /// # Errors
    /// A malformed layer, or a limit. The builder is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.push_with(bytes, |_| {})
    }

    /// As [`push`](Self::push); shows what the bytes decode to.
    pub(crate) fn push_with(
        &mut self,
        bytes: &[u8],
        mut decoded_to: impl FnMut(&[u8]),
    ) -> Result<(), IndexError> {
        let (tar, decoded) = (&mut self.tar, &mut self.progress.decoded);
        self.blob.push(bytes, |piece| {
            decoded_to(piece);
            *decoded = decoded.saturating_add(size(piece));
            tar.push(piece).map_err(IndexError::from)
        })?;
        self.progress.compressed = self.progress.compressed.saturating_add(size(bytes));
        Ok(())
    }

    /// How far it is.
    pub fn progress(&self) -> IndexProgress {
        self.progress
    }

    /// The index, now that the blob has ended. Whether it is the layer that was wanted, its
    /// [digest](crate::blob::BlobIndex::digest) tells.
    ///
    /// # Errors
    /// A layer that ends too early.
    pub fn finish(self) -> Result<LayerIndex, IndexError> {
        self.finish_with(|_| {})
    }

    /// As [`finish`](Self::finish); shows what the last bytes decode to.
    pub(crate) fn finish_with(
        self,
        mut decoded_to: impl FnMut(&[u8]),
    ) -> Result<LayerIndex, IndexError> {
        let mut tar = self.tar;
        let blob = self.blob.finish(|piece| {
            decoded_to(piece);
            tar.push(piece).map_err(IndexError::from)
        })?;
        let contents = tar.finish()?;
        Ok(LayerIndex {
            blob: Arc::new(blob),
            entries: contents.entries,
            notes: contents.notes,
            borrowed: None,
        })
    }
}

/// Indexes the layer that `reader` gives, to its end. `progress` is told some times per MiB of
/// the blob.
///
/// # Errors
/// What `reader` fails with; a malformed layer, or a limit.
pub fn build_index(
    mut reader: impl Read,
    options: &IndexOptions,
    mut progress: impl FnMut(IndexProgress),
) -> Result<LayerIndex, IndexError> {
    let mut builder = IndexBuilder::new(options);
    let mut buffer = vec![0; PIECE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return builder.finish(),
            Ok(count) => builder.push(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BlobError::Io(error).into()),
        }
        progress(builder.progress());
    }
}

fn size(of: &[u8]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
