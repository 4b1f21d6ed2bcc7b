//! Content on its way into segments: frame after frame, segment after segment.

use std::io;

use crate::bucket::{Piece, Remote, Segment, SegmentWriter};

/// The segment that is being filled.
#[derive(Debug, Default)]
pub(super) struct Packing {
    writer: Option<SegmentWriter>,
}

impl Packing {
    /// Puts content of a file into a frame, and answers where it lies then. [`full`](Self::full) is asked next.
    ///
    /// # Errors
    /// The content is empty or too long for a frame, or there is no memory; then nothing is different.
    pub(super) fn append(
        &mut self,
        remote: &Remote,
        ino: u64,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<Piece> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(remote.segment()?),
        };
        let frame = writer.append(ino, offset, bytes)?;
        Ok(Piece::whole(ino, offset, frame))
    }

    /// The segment, if nothing more belongs into it.
    ///
    /// # Errors
    /// As those of [`finish`](Self::finish).
    pub(super) fn full(&mut self) -> io::Result<Option<Segment>> {
        match self.writer.as_ref().is_some_and(SegmentWriter::is_full) {
            true => self.finish(),
            false => Ok(None),
        }
    }

    /// The segment as it is, if something is in it.
    ///
    /// # Errors
    /// It cannot be sealed; then it may be tried again.
    pub(super) fn finish(&mut self) -> io::Result<Option<Segment>> {
        let Some(writer) = self.writer.as_mut().filter(|writer| !writer.is_empty()) else {
            return Ok(None);
        };
        let segment = writer.finish()?;
        self.writer = None;
        Ok(Some(segment))
    }
}
