//! Small content that a log object has itself.

use super::super::cipher::{Cipher, Sealed};
use super::super::frame::{Frame, FrameWriter};
use super::super::place::ObjectId;
use super::{MAX_INLINE_BYTES, header_bytes};

/// Collects small content for the next log object.
#[derive(Debug)]
pub struct Inline(FrameWriter);

impl Inline {
    pub(in super::super) fn new(seq: u64, cipher: &Cipher) -> std::io::Result<Self> {
        let object = ObjectId::Log(seq);
        let cipher = cipher.of(Sealed::Content(object))?;
        Ok(Self(FrameWriter::new(object, header_bytes(), cipher)))
    }

    /// Whether a run of so many bytes fits, whatever it is compressed to.
    pub fn has_room(&self, length: usize) -> bool {
        self.0.bytes.len().saturating_add(length) <= MAX_INLINE_BYTES
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.0.bytes.len()
    }

    /// Appends a run of 1 to [`MAX_FRAME_BYTES`](super::super::MAX_FRAME_BYTES) bytes; the frame is where a piece finds it.
    ///
    /// # Errors
    /// The run is empty or too long, or there is no memory.
    pub fn append(&mut self, raw: &[u8]) -> std::io::Result<Frame> {
        self.0.append(raw)
    }

    /// The frames as they are stored.
    pub(in super::super) fn finish(self) -> Vec<u8> {
        self.0.bytes
    }
}
