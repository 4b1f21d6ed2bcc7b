//! A layer's bytes on their way from compressed to plain, with the places where that can begin anew.

use super::frames::ZstdDecoder;
use super::gzip::GzipDecoder;
use super::{BlobError, Compression, Resume};

/// What one step of a decoder did. A step that did nothing wants more input.
pub(crate) struct Step<'a> {
    /// Bytes of the input that are done with.
    pub(crate) consumed: usize,
    /// What came of them.
    pub(crate) output: &'a [u8],
    /// Whether, after these bytes, decoding could begin anew.
    pub(crate) point: Option<Point>,
}

impl Step<'_> {
    /// Whether nothing happened.
    pub(crate) fn is_stalled(&self) -> bool {
        self.consumed == 0 && self.output.is_empty() && self.point.is_none()
    }
}

/// A place where decoding can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A gzip member, a zstd frame or the next piece of a plain blob starts: nothing before it counts.
    Fresh,
    /// Between two blocks of a deflate stream. So many high bits of the byte before belong to the
    /// next block, which may refer to the [window](Decoder::window).
    Block { bits: u8 },
}

/// A decoder that is fed and never reads by itself. Its memory does not grow.
pub(crate) enum Decoder {
    Plain,
    Gzip(Box<GzipDecoder>),
    Zstd(ZstdDecoder),
}

impl Decoder {
    /// One that starts with the blob, and checks what the format has for checking.
    pub(crate) fn new(compression: Compression) -> Result<Self, BlobError> {
        Ok(match compression {
            Compression::Plain => Self::Plain,
            Compression::Gzip => Self::Gzip(Box::new(GzipDecoder::new(true)?)),
            Compression::Zstd => Self::Zstd(ZstdDecoder::new()?),
        })
    }

    /// One that starts at a checkpoint. `before` is the byte before it, which counts for a
    /// checkpoint with bits.
    pub(crate) fn resume(
        compression: Compression,
        resume: &Resume,
        before: u8,
    ) -> Result<Self, BlobError> {
        Ok(match (compression, resume) {
            (Compression::Plain, _) => Self::Plain,
            (Compression::Zstd, _) => Self::Zstd(ZstdDecoder::new()?),
            (Compression::Gzip, Resume::Fresh) => Self::Gzip(Box::new(GzipDecoder::new(false)?)),
            (Compression::Gzip, Resume::Block { bits, window }) => {
                let window = window.unpack()?;
                Self::Gzip(Box::new(GzipDecoder::resume(*bits, before, &window)?))
            }
        })
    }

    /// Decodes some of `input`.
    ///
    /// # Errors
    /// `Malformed` when the bytes are not of this format.
    pub(crate) fn step<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, BlobError> {
        match self {
            Self::Plain => Ok(Step {
                consumed: input.len(),
                output: input,
                point: (!input.is_empty()).then_some(Point::Fresh),
            }),
            Self::Gzip(gzip) => gzip.step(input),
            Self::Zstd(zstd) => zstd.step(input),
        }
    }

    /// The last bytes that came out and that the next ones may repeat, at most 32 KiB.
    pub(crate) fn window(&self) -> &[u8] {
        match self {
            Self::Gzip(gzip) => gzip.window(),
            Self::Plain | Self::Zstd(_) => &[],
        }
    }

    /// Whether a gzip member or zstd frame has already ended: such a blob has more of them.
    pub(crate) fn has_several_parts(&self) -> bool {
        match self {
            Self::Gzip(gzip) => gzip.members_ended() > 0,
            Self::Plain | Self::Zstd(_) => false,
        }
    }

    /// Whether the blob may end here.
    ///
    /// # Errors
    /// `Malformed` in the middle of a member or frame.
    pub(crate) fn finish(&self) -> Result<(), BlobError> {
        let whole = match self {
            Self::Plain => true,
            Self::Gzip(gzip) => gzip.may_end(),
            Self::Zstd(zstd) => zstd.may_end(),
        };
        if whole {
            Ok(())
        } else {
            Err(BlobError::Malformed("the blob ends too early"))
        }
    }
}
