//! zstd, frame after frame, skippable ones among them.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::BlobError;
use super::decoder::{Point, Step};

/// The largest window a frame may ask for, as a power of two: 128 MiB, the limit of `zstd` itself
/// unless it is told otherwise. It bounds the decoder's memory.
const WINDOW_LOG_MAX: u32 = 27;

/// Decodes concatenated zstd frames.
pub(crate) struct ZstdDecoder {
    context: DCtx<'static>,
    output: Box<[u8]>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No byte was seen yet.
    Start,
    /// In a frame.
    Inside,
    /// A frame has ended.
    Between,
}

impl ZstdDecoder {
    pub(crate) fn new() -> Result<Self, BlobError> {
        let mut context = DCtx::try_create().ok_or(BlobError::NoMemory)?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(malformed)?;
        Ok(Self {
            context,
            output: vec![0; DCtx::out_size()].into_boxed_slice(),
            state: State::Start,
        })
    }

    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step<'_>, BlobError> {
        if self.state != State::Inside {
            if input.is_empty() {
                return Ok(Step {
                    consumed: 0,
                    output: &[],
                    point: None,
                });
            }
            let point = (self.state == State::Between).then_some(Point::Fresh);
            self.state = State::Inside;
            if point.is_some() {
                return Ok(Step {
                    consumed: 0,
                    output: &[],
                    point,
                });
            }
        }
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(&mut *self.output);
        let hint = self
            .context
            .decompress_stream(&mut to, &mut from)
            .map_err(malformed)?;
        let (consumed, produced) = (from.pos(), to.pos());
        if hint == 0 {
            self.state = State::Between;
        }
        Ok(Step {
            consumed,
            output: self.output.get(..produced).unwrap_or_default(),
            point: None,
        })
    }

    pub(crate) fn may_end(&self) -> bool {
        self.state == State::Between
    }
}

fn malformed(code: usize) -> BlobError {
    BlobError::Malformed(get_error_name(code))
}
