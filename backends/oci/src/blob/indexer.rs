//! One pass over a layer: decode it, hash it, note where decoding can begin anew.

use std::ops::Range;

use super::checkpoint::Checkpoint;
use super::decoder::{Decoder, Point};
use super::hashing::Hashing;
use super::span::{BlobIndex, Resume, Span};
use super::{BlobError, Compression, SpanDigest};

/// How a blob is indexed.
#[derive(Debug, Clone)]
pub struct BlobOptions {
    /// Decoded bytes of a span, at least: the next place where decoding can begin ends it. 256 KiB
    /// unless changed. Between blocks of gzip each span costs the index up to 32 KiB more, mostly 1 to 4.
    pub span: u64,
    /// The most bytes that a blob may decode to. 1 TiB unless changed.
    pub max_decoded: u64,
    /// The most spans that a blob may have. 4 Mi unless changed.
    pub max_spans: u64,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self {
            span: 256 << 10,
            max_decoded: 1 << 40,
            max_spans: 1 << 22,
        }
    }
}

/// Indexes a blob that is given piece by piece, with a thread beside it that hashes. Memory: about 5
/// MiB (zstd: up to 128 MiB more if the blob asks for such a window) and the spans.
#[expect(missing_debug_implementations, reason = "the decoders have none")]
pub struct BlobIndexer {
    options: BlobOptions,
    /// The first bytes, until they tell the compression.
    head: Vec<u8>,
    work: Option<Work>,
}

impl BlobIndexer {
    /// An indexer that has seen nothing yet.
    pub fn new(options: BlobOptions) -> Self {
        Self {
            options,
            head: Vec::new(),
            work: None,
        }
    }

    /// Takes the next bytes of the blob, and gives `sink` what they decode to, in order.
    ///
    /// # Errors
    /// A malformed blob, or a limit of the options; what `sink` fails with. The indexer is of no
    /// use afterwards.
    pub fn push<E: From<BlobError>>(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.work.is_none() {
            let wanted = Compression::MAGIC.saturating_sub(self.head.len());
            let (head, rest) = input.split_at(wanted.min(input.len()));
            self.head.extend_from_slice(head);
            input = rest;
            if self.head.len() < Compression::MAGIC {
                return Ok(());
            }
        }
        self.started()?.push(input, &mut sink)
    }

    /// The index, now that the blob has ended; `sink` as for [`push`](Self::push).
    ///
    /// # Errors
    /// A blob that ends too early; what `sink` fails with.
    pub fn finish<E: From<BlobError>>(
        mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<BlobIndex, E> {
        self.started()?.push(&[], &mut sink)?;
        match self.work {
            Some(work) => Ok(work.finish()?),
            None => Err(BlobError::Malformed("the blob ends too early").into()),
        }
    }

    /// The work, which begins with the bytes seen so far.
    fn started(&mut self) -> Result<Pushed<'_>, BlobError> {
        let head = std::mem::take(&mut self.head);
        let work = match &mut self.work {
            Some(work) => work,
            none => none.insert(Work::new(Compression::detect(&head), self.options.clone())?),
        };
        Ok(Pushed { head, work })
    }
}

/// The work with bytes that come before those that are pushed.
struct Pushed<'a> {
    head: Vec<u8>,
    work: &'a mut Work,
}

impl Pushed<'_> {
    fn push<E: From<BlobError>>(
        self,
        input: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.head.is_empty() {
            self.work.push(&self.head, sink)?;
        }
        self.work.push(input, sink)
    }
}

struct Work {
    options: BlobOptions,
    compression: Compression,
    decoder: Decoder,
    hashing: Hashing,
    /// Bytes of the blob that were decoded, and the last of them.
    consumed: u64,
    last: u8,
    /// Bytes that came out.
    decoded: u64,
    span: OpenSpan,
    spans: Vec<ClosedSpan>,
    /// Where the span began, as long as more of what follows counts.
    checkpoint: Option<Checkpoint>,
}

/// The span that is being decoded.
struct OpenSpan {
    compressed_start: u64,
    decoded_start: u64,
    /// Whether it begins at a checkpoint.
    has_checkpoint: bool,
}

/// A span whose hashes are not known yet.
struct ClosedSpan {
    compressed: Range<u64>,
    decoded: Range<u64>,
    has_checkpoint: bool,
}

impl Work {
    fn new(compression: Compression, options: BlobOptions) -> Result<Self, BlobError> {
        Ok(Self {
            decoder: Decoder::new(compression)?,
            hashing: Hashing::new(compression != Compression::Plain)?,
            options,
            compression,
            consumed: 0,
            last: 0,
            decoded: 0,
            span: OpenSpan {
                compressed_start: 0,
                decoded_start: 0,
                has_checkpoint: false,
            },
            spans: Vec::new(),
            checkpoint: None,
        })
    }

    fn push<E: From<BlobError>>(
        &mut self,
        mut input: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let step = self.decoder.step(self.piece(input))?;
            if step.is_stalled() {
                break;
            }
            let (taken, rest) = input.split_at(step.consumed.min(input.len()));
            input = rest;
            self.hashing.update(taken, step.output)?;
            if let Some(mut checkpoint) = self.checkpoint.take() {
                match checkpoint.follow(taken, step.output) {
                    true => self.hashing.checkpoint(checkpoint)?,
                    false => self.checkpoint = Some(checkpoint),
                }
            }
            self.consumed = self.consumed.saturating_add(size(taken));
            self.last = taken.last().copied().unwrap_or(self.last);
            self.decoded = self.decoded.saturating_add(size(step.output));
            if self.decoded > self.options.max_decoded {
                return Err(E::from(BlobError::TooLarge {
                    what: "decoded bytes",
                    limit: self.options.max_decoded,
                }));
            }
            if !step.output.is_empty() {
                sink(step.output)?;
            }
            if let Some(point) = step.point
                && self.is_worth_a_span(point)
            {
                self.cut(point)?;
            }
        }
        if input.is_empty() {
            Ok(())
        } else {
            Err(BlobError::Malformed("the decoder makes no progress").into())
        }
    }

    /// What the decoder is to see next: of a plain blob no more than the span still takes.
    fn piece<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        if self.compression != Compression::Plain {
            return input;
        }
        let left = self.options.span.max(1).saturating_sub(self.span_length());
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        input.get(..left).unwrap_or(input)
    }

    fn span_length(&self) -> u64 {
        self.decoded.saturating_sub(self.span.decoded_start)
    }

    /// A place inside a gzip member needs a window. In a blob of several members the next member's
    /// start is waited for, up to twice the span.
    fn is_worth_a_span(&self, point: Point) -> bool {
        let wanted = match point {
            Point::Block { .. } if self.decoder.has_several_parts() => {
                self.options.span.saturating_mul(2)
            }
            Point::Block { .. } | Point::Fresh => self.options.span,
        };
        self.span_length() >= wanted.max(1)
    }

    /// Ends the span here and begins the next.
    fn cut(&mut self, point: Point) -> Result<(), BlobError> {
        if size(&self.spans).saturating_add(1) >= self.options.max_spans {
            return Err(BlobError::TooLarge {
                what: "spans",
                limit: self.options.max_spans,
            });
        }
        let mut shared = None;
        let mut compressed_start = self.consumed;
        self.close_checkpoint()?;
        if let Point::Block { bits } = point {
            if bits > 0 {
                shared = Some(self.last);
                compressed_start = compressed_start.saturating_sub(1);
            }
            let window = self.decoder.window();
            self.checkpoint = Some(Checkpoint::new(bits, self.last, window));
        }
        let next = OpenSpan {
            compressed_start,
            decoded_start: self.decoded,
            has_checkpoint: self.checkpoint.is_some(),
        };
        let ended = std::mem::replace(&mut self.span, next);
        self.spans.push(ended.end(self.consumed, self.decoded));
        self.hashing.cut(shared)
    }

    /// What follows a checkpoint counts as far as its span.
    fn close_checkpoint(&mut self) -> Result<(), BlobError> {
        let checkpoint = self.checkpoint.take();
        checkpoint.map_or(Ok(()), |it| self.hashing.checkpoint(it))
    }

    fn finish(mut self) -> Result<BlobIndex, BlobError> {
        self.decoder.finish()?;
        self.close_checkpoint()?;
        // A plain blob that ends with a span has begun one too many.
        let one_too_many = self.compression == Compression::Plain && self.span_length() == 0;
        if !one_too_many || self.spans.is_empty() {
            self.spans.push(self.span.end(self.consumed, self.decoded));
            self.hashing.cut(None)?;
        }
        let hashes = self.hashing.finish()?;
        let mut checkpoints = hashes.checkpoints.into_iter();
        let spans = self.spans.into_iter().zip(hashes.spans);
        let spans = spans.map(|(span, (compressed, decoded))| {
            let checkpoint = match span.has_checkpoint {
                true => checkpoints.next(),
                false => None,
            };
            Span {
                compressed: span.compressed,
                decoded: span.decoded,
                resume: checkpoint.unwrap_or(Resume::Fresh),
                compressed_digest: Some(compressed),
                decoded_digest: SpanDigest::Blake3(decoded),
            }
        });
        Ok(BlobIndex {
            compression: self.compression,
            digest: hashes.blob,
            size: self.consumed,
            diff_id: hashes.decoded,
            decoded_size: self.decoded,
            spans: spans.collect(),
            contents: None,
        })
    }
}

impl OpenSpan {
    fn end(self, compressed_end: u64, decoded_end: u64) -> ClosedSpan {
        ClosedSpan {
            compressed: self.compressed_start..compressed_end,
            decoded: self.decoded_start..decoded_end,
            has_checkpoint: self.has_checkpoint,
        }
    }
}

fn size<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
