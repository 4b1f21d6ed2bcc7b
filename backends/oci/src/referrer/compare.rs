//! Whether an index says of a layer what the layer is.

use std::io::{self, Read};

use crate::blob::{BlobError, Span, SpanHasher};
use crate::index::{IndexBuilder, IndexError, IndexOptions, LayerIndex, PIECE};

/// What came of a comparison.
#[derive(Debug)]
pub(super) enum Compared {
    /// The index says what is so. This is the one that was made here.
    Right(LayerIndex),
    /// It does not, and why. The one that was made here, where the layer can be indexed at all.
    Wrong(Option<LayerIndex>, &'static str),
}

/// Reads a layer as a whole, from a reader that ends well only if it gave the bytes of the layer's digest, and compares
/// it with what `index` says of it: the same entries, and the same bytes decoded in each span.
///
/// How another version has cut spans and packed windows makes no difference.
///
/// # Errors
/// The layer could not be read to its end, which says nothing of the index.
pub(super) fn compare(
    mut reader: impl Read,
    index: &LayerIndex,
    options: &IndexOptions,
) -> io::Result<Compared> {
    let mut builder = IndexBuilder::new(options);
    let mut sums = Sums::of(&index.blob.spans);
    let mut buffer = vec![0; PIECE];
    let built = loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break builder.finish_with(|piece| sums.take(piece)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = buffer.get(..count).unwrap_or_default();
        if let Err(error) = builder.push_with(piece, |piece| sums.take(piece)) {
            break Err(error);
        }
    };
    match built {
        Err(IndexError::Blob(BlobError::Io(error))) => Err(error),
        Err(IndexError::Blob(BlobError::NoMemory)) => Err(io::ErrorKind::OutOfMemory.into()),
        Err(_) => {
            // Is that what the layer is, or what came of it on its way?
            io::copy(&mut reader, &mut io::sink())?;
            Ok(Compared::Wrong(None, "the layer cannot be indexed at all"))
        }
        Ok(own) if own.blob.digest != index.blob.digest => Err(io::ErrorKind::InvalidData.into()),
        Ok(own) => {
            let wrong = if own.entries != index.entries {
                Some("the layer has other files")
            } else if own.blob.diff_id != index.blob.diff_id || !sums.are_right() {
                Some("the layer's files have other contents")
            } else {
                None
            };
            Ok(match wrong {
                Some(why) => Compared::Wrong(Some(own), why),
                None => Compared::Right(own),
            })
        }
    }
}

/// What another index of the same layer says of one; none where that cannot be told without the layer.
pub(super) fn agrees(own: &LayerIndex, other: &LayerIndex) -> Option<bool> {
    let decoded = |index: &LayerIndex| -> Vec<_> {
        let spans = index.blob.spans.iter();
        spans.map(|span| span.decoded.clone()).collect()
    };
    if own.entries != other.entries {
        return Some(false);
    }
    let sums = |index: &LayerIndex| -> Vec<_> {
        let spans = index.blob.spans.iter();
        spans.map(|span| span.decoded_digest).collect()
    };
    (decoded(own) == decoded(other)).then(|| sums(own) == sums(other))
}

/// The sums of what a layer decodes to, span by span.
struct Sums<'a> {
    /// Those that are not complete yet.
    spans: &'a [Span],
    /// Bytes that the first of them still needs, and what it has so far.
    left: u64,
    hasher: Option<SpanHasher>,
    is_wrong: bool,
}

impl<'a> Sums<'a> {
    fn of(spans: &'a [Span]) -> Self {
        let mut sums = Self {
            spans,
            left: 0,
            hasher: None,
            is_wrong: false,
        };
        sums.begin();
        sums
    }

    /// Begins with the next span that has bytes.
    fn begin(&mut self) {
        while let Some((span, rest)) = self.spans.split_first() {
            self.left = span.decoded.end.saturating_sub(span.decoded.start);
            if self.left > 0 {
                self.hasher = Some(span.decoded_digest.hasher());
                return;
            }
            self.spans = rest;
        }
        self.hasher = None;
    }

    fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && !self.is_wrong {
            let (Some((span, rest)), Some(hasher)) = (self.spans.split_first(), &mut self.hasher)
            else {
                // More than all spans together.
                self.is_wrong = true;
                return;
            };
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            let (taken, behind) = piece.split_at(most.min(piece.len()));
            hasher.update(taken);
            piece = behind;
            let count = u64::try_from(taken.len()).unwrap_or(u64::MAX);
            self.left = self.left.saturating_sub(count);
            if self.left == 0 {
                let found = self.hasher.take().map(SpanHasher::finish);
                self.is_wrong = found != Some(span.decoded_digest);
                self.spans = rest;
                self.begin();
            }
        }
    }

    /// Whether all spans were there, and none was another.
    fn are_right(&self) -> bool {
        !self.is_wrong && self.spans.is_empty()
    }
}
