//! Reading one span of a layer.

use std::io;
use std::sync::Arc;

use super::decoder::{Decoder, Step};
use super::span::{BlobIndex, Resume, Span};
use super::{
    Blake3Digest, BlobError, BlobSource, Check, Compression, SpanError, SpanFault, SpanHasher,
};

/// The most of a blob that is asked for, and held, at once.
const PIECE: u64 = 4 << 20;

/// Reads the spans of a blob, each by itself, and verifies them.
#[derive(Debug, Clone)]
pub struct SpanReader<S> {
    source: S,
    index: Arc<BlobIndex>,
}

impl<S: BlobSource> SpanReader<S> {
    /// A reader of the blob that `index` was made of.
    pub fn new(source: S, index: Arc<BlobIndex>) -> Self {
        Self { source, index }
    }

    /// Where spans are read from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The index that spans are read by.
    pub fn index(&self) -> &Arc<BlobIndex> {
        &self.index
    }

    /// Decodes a span and gives `sink` its bytes, in order, in pieces of at most 4 MiB.
    ///
    /// **They count only if this ends well**: the digest is known when the last byte was given.
    /// Never more bytes are given than the span has. Memory: two pieces and a decoder, however
    /// large the span is.
    ///
    /// # Errors
    /// Each names the layer and the span; see [`SpanFault`].
    pub fn stream(
        &self,
        span: usize,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), SpanError> {
        self.index
            .spans
            .get(span)
            .ok_or(SpanFault::Missing)
            .and_then(|place| self.decode(place, &|bytes| self.index.check(span, bytes), &mut sink))
            .map_err(|reason| SpanError {
                layer: self.index.digest,
                span,
                reason,
            })
    }

    /// The verified bytes of a span that has at most `limit` of them.
    ///
    /// # Errors
    /// As for [`stream`](Self::stream); `TooLarge` over `limit`.
    pub fn read(&self, span: usize, limit: usize) -> Result<Vec<u8>, SpanError> {
        let failed = |reason| SpanError {
            layer: self.index.digest,
            span,
            reason,
        };
        let range = &self
            .index
            .spans
            .get(span)
            .ok_or(failed(SpanFault::Missing))?;
        let length = length(&range.decoded);
        if usize::try_from(length).map_or(true, |length| length > limit) {
            return Err(failed(SpanFault::TooLarge {
                length,
                limit: u64::try_from(limit).unwrap_or(u64::MAX),
            }));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        self.stream(span, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn decode(
        &self,
        span: &Span,
        check: Check<'_>,
        sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), SpanFault> {
        let mut offset = span.compressed.start;
        let mut output = Output::of(span, sink);
        let mut compressed = blake3::Hasher::new();
        let mut decoder = None;
        let mut piece = Vec::new();
        // A span without compressed bytes still has to be decoded, to nothing.
        loop {
            let left = span.compressed.end.saturating_sub(offset);
            let size = left.min(PIECE);
            piece.resize(usize::try_from(size).unwrap_or(0), 0);
            // In pieces no other place can be asked for what is wrong: it is known at the end.
            let read = match size == length(&span.compressed) {
                true => self.source.read_right(offset, &mut piece, check),
                false => self.source.read_at(offset, &mut piece),
            };
            read.map_err(SpanFault::Source)?;
            offset = offset.saturating_add(size);
            compressed.update(&piece);
            // Wrong bytes do not even reach the decoder, if all are there already.
            if left == size
                && span
                    .compressed_digest
                    .is_some_and(|expected| expected != Blake3Digest::from(&compressed))
            {
                return Err(SpanFault::Mismatch("compressed"));
            }
            let mut input = piece.as_slice();
            let decoder = match &mut decoder {
                Some(decoder) => decoder,
                none => none.insert(begin(self.index.compression, span, &mut input)?),
            };
            output.feed(decoder, input)?;
            // What has no sum of its own need not be read further than it counts.
            let is_enough = span.compressed_digest.is_none() && output.left == 0;
            if left == size || is_enough {
                break;
            }
        }
        output.finish(span)
    }
}

/// A decoder for the span, and the input without what it has already seen.
fn begin(compression: Compression, span: &Span, input: &mut &[u8]) -> Result<Decoder, SpanFault> {
    let mut before = 0;
    if let Resume::Block { bits: 1.., .. } = span.resume
        && let Some((first, rest)) = input.split_first()
    {
        before = *first;
        *input = rest;
    }
    Decoder::resume(compression, &span.resume, before).map_err(SpanFault::Decode)
}

/// Whether `bytes`, which are all that a span has in its blob, decode to what they should.
pub(super) fn decode_all(
    compression: Compression,
    span: &Span,
    mut bytes: &[u8],
) -> Result<(), SpanFault> {
    let mut decoder = begin(compression, span, &mut bytes)?;
    let mut nowhere = |_: &[u8]| Ok(());
    let mut output = Output::of(span, &mut nowhere);
    output.feed(&mut decoder, bytes)?;
    output.finish(span)
}

struct Output<'a, F> {
    left: u64,
    hasher: SpanHasher,
    sink: &'a mut F,
}

impl<'a, F: FnMut(&[u8]) -> io::Result<()>> Output<'a, F> {
    fn of(span: &Span, sink: &'a mut F) -> Self {
        Self {
            left: length(&span.decoded),
            hasher: span.decoded_digest.hasher(),
            sink,
        }
    }

    /// Whether all of the span came out, and is what it should be.
    fn finish(self, span: &Span) -> Result<(), SpanFault> {
        if self.left > 0 {
            let short = BlobError::Malformed("a span gives fewer bytes than the index says");
            return Err(SpanFault::Decode(short));
        }
        match self.hasher.finish() == span.decoded_digest {
            true => Ok(()),
            false => Err(SpanFault::Mismatch("decoded")),
        }
    }

    /// Decodes until the input is used up, or the span is complete: what follows then belongs to
    /// the end of a member, or to padding.
    fn feed(&mut self, decoder: &mut Decoder, mut input: &[u8]) -> Result<(), SpanFault> {
        while self.left > 0 {
            let step = decoder.step(input).map_err(SpanFault::Decode)?;
            if step.is_stalled() {
                break;
            }
            let Step {
                consumed, output, ..
            } = step;
            input = input.get(consumed..).unwrap_or_default();
            let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
            let output = output.get(..wanted).unwrap_or(output);
            self.left = self.left.saturating_sub(size(output.len()));
            self.hasher.update(output);
            if !output.is_empty() {
                (self.sink)(output).map_err(SpanFault::Sink)?;
            }
        }
        Ok(())
    }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn length(range: &std::ops::Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}
