//! Content on its way into segments: frame after frame, segment after segment.

use std::io;

use crate::bucket::{Piece, Remote, Segment, SegmentWriter};

/// The segment that is being filled.
#[derive(Debug)]
pub(super) struct Packing {
    writer: Option<SegmentWriter>,
    /// How long it is to be.
    wanted: usize,
    /// Memory for others.
    free: Vec<Vec<u8>>,
}

impl Default for Packing {
    /// Segments as long as they may be.
    fn default() -> Self {
        Self {
            writer: None,
            wanted: usize::MAX,
            free: Vec::new(),
        }
    }
}

impl Packing {
    /// Whether the next content begins a segment.
    pub(super) fn is_empty(&self) -> bool {
        self.writer.is_none()
    }

    /// The segment is to be so long, about.
    pub(super) fn want(&mut self, bytes: usize) {
        self.wanted = bytes;
    }

    /// A segment of before is stored.
    pub(super) fn take_back(&mut self, segment: Segment) {
        self.free.extend(segment.into_memory());
    }

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
            None => {
                let memory = self.free.pop().unwrap_or_default();
                self.writer.insert(remote.segment_in(memory)?)
            }
        };
        let frame = writer.append(ino, offset, bytes)?;
        Ok(Piece::whole(ino, offset, frame))
    }

    /// The segment, if nothing more belongs into it.
    ///
    /// # Errors
    /// As those of [`finish`](Self::finish).
    pub(super) fn full(&mut self) -> io::Result<Option<Segment>> {
        let writer = self.writer.as_ref();
        match writer.is_some_and(|writer| writer.is_full(self.wanted)) {
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
