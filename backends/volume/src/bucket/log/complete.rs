//! Whether a log object says all that it has to, before it is put and when it is read.
//!
//! What the writer leaves out by a defect is missed by every host for good, and nobody notices. So nothing is left to be taken for
//! granted: records without gaps, content that is there as its checksums say, and a piece for all of it.

use super::{LogObject, MAX_INLINE_BYTES, header_bytes};
use crate::bucket::damage::Damage;
use crate::bucket::frame::Frame;
use crate::bucket::place::{ObjectId, Piece};

impl LogObject {
    pub(super) fn check(&self) -> Result<(), Damage> {
        if self.seq == 0 || self.first == 0 || self.last < self.first.saturating_sub(1) {
            return Err(Damage("its numbers make no sense"));
        }
        self.check_records()?;
        let fits = |piece: &Piece| piece.is_sound() && self.may_name(piece);
        if !self.pieces.iter().all(fits) {
            return Err(Damage("a piece lies where no content can be"));
        }
        let nothing_new = self.last < self.first;
        if self.moves && !(nothing_new && self.pieces.iter().all(|piece| piece.place.is_some())) {
            return Err(Damage("it moves content and changes something else"));
        }
        self.check_inline()
    }

    fn check_records(&self) -> Result<(), Damage> {
        let mut expected = self.first..=self.last;
        let follow = |(lsn, _): &(_, _)| expected.next() == Some(*lsn);
        match self.records.iter().all(follow) && expected.next().is_none() {
            true => Ok(()),
            false => Err(Damage("its records are not all there")),
        }
    }

    /// Content that it carries is as its frames say, without gaps, and pieces name all of it.
    fn check_inline(&self) -> Result<(), Damage> {
        if self.inline.len() > MAX_INLINE_BYTES {
            return Err(Damage("it carries too much content"));
        }
        let own = |piece: &Piece| Some(piece.place?.0).filter(|frame| self.carries(frame));
        let mut frames: Vec<Frame> = self.pieces.iter().filter_map(own).collect();
        frames.sort_unstable();
        frames.dedup();
        let mut rest = self.inline.as_slice();
        let mut at = header_bytes();
        for frame in frames {
            let length = usize::try_from(frame.stored).unwrap_or(usize::MAX);
            let Some((stored, after)) =
                rest.split_at_checked(length).filter(|_| frame.offset == at)
            else {
                return Err(Damage("content that it carries is not where it should be"));
            };
            if crc32fast::hash(stored) != frame.crc {
                return Err(Damage("content that it carries has a wrong checksum"));
            }
            (rest, at) = (after, frame.end());
        }
        match rest.is_empty() {
            true => Ok(()),
            false => Err(Damage("it carries content of no file")),
        }
    }

    fn carries(&self, frame: &Frame) -> bool {
        frame.object == ObjectId::Log(self.seq)
    }

    /// Whether the object that a piece names was there before this one, or is this one.
    fn may_name(&self, piece: &Piece) -> bool {
        let Some((frame, _)) = piece.place else {
            return true;
        };
        match frame.object {
            ObjectId::Segment { epoch, .. } => epoch <= self.epoch,
            ObjectId::Log(_) if self.carries(&frame) => true,
            ObjectId::Log(seq) => (1..self.seq).contains(&seq) && frame.offset >= header_bytes(),
        }
    }
}
