//! Reading ahead inside objects: files that were written one after the other lie so in a segment, and are mostly read so.
//!
//! A small read near the last one of the same object takes more of it along, which is kept in memory for the next ones.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use parking_lot::Mutex;

use super::place::ObjectId;

/// Longer reads take nothing along: whoever makes them reads ahead in the file.
const SMALL_BYTES: u64 = 128 << 10;
/// Reads that are no farther apart go on one after the other.
const NEAR_BYTES: u64 = 1 << 20;
/// What is taken along first; it doubles as long as the reads go on.
const FIRST_BYTES: u64 = 256 << 10;
/// See [`FIRST_BYTES`].
const MOST_BYTES: u64 = 4 << 20;
/// Objects of which something is kept.
const OBJECTS: usize = 8;

/// Where objects were read last, and what was taken along. At most 32 MiB.
#[derive(Debug, Default)]
pub(super) struct ObjectReadahead(Mutex<VecDeque<Read>>);

/// The last read of an object.
#[derive(Debug)]
struct Read {
    object: ObjectId,
    /// How long the object is.
    size: u64,
    /// Where the last frame that was wanted ended.
    end: u64,
    window: u64,
    /// Where `kept` begins.
    start: u64,
    kept: Bytes,
}

impl ObjectReadahead {
    /// A part of an object, if it was taken along before.
    pub(super) fn kept(&self, object: ObjectId, range: &Range<u64>) -> Option<Bytes> {
        let mut reads = self.0.lock();
        let read = reads.iter_mut().find(|read| read.object == object)?;
        let from = usize::try_from(range.start.checked_sub(read.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(read.start)?).ok()?;
        if from > to || to > read.kept.len() {
            return None;
        }
        read.end = range.end;
        Some(read.kept.slice(from..to))
    }

    /// The range that is to be read where `range` of an object is wanted: that, and what may follow.
    pub(super) fn widened(&self, object: ObjectId, range: &Range<u64>) -> Range<u64> {
        let mut reads = self.0.lock();
        let Some(read) = reads.iter_mut().find(|read| read.object == object) else {
            return range.clone();
        };
        let small = range.end.saturating_sub(range.start) <= SMALL_BYTES;
        if !small || range.start.abs_diff(read.end) > NEAR_BYTES {
            read.window = 0;
            return range.clone();
        }
        read.window = read.window.saturating_mul(2).clamp(FIRST_BYTES, MOST_BYTES);
        let end = range.start.saturating_add(read.window).min(read.size);
        range.start..end.max(range.end)
    }

    /// Takes note of what was read: from `start` on, where `wanted` was asked for, of an object of `size` bytes.
    pub(super) fn read(
        &self,
        object: ObjectId,
        wanted: &Range<u64>,
        start: u64,
        bytes: &Bytes,
        size: u64,
    ) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let more = start.saturating_add(length) > wanted.end;
        let mut reads = self.0.lock();
        let known = reads.iter().position(|read| read.object == object);
        let known = known.and_then(|at| reads.remove(at));
        if known.is_none() && reads.len() >= OBJECTS {
            reads.pop_front();
        }
        reads.push_back(Read {
            object,
            size,
            end: wanted.end,
            window: known.map_or(0, |read| read.window),
            start,
            kept: if more { bytes.clone() } else { Bytes::new() },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: ObjectId = ObjectId::Segment { epoch: 1, seq: 1 };
    const SIZE: u64 = 16 << 20;

    /// Reads as of an object of zeros, and says how much was asked for.
    fn read(ahead: &ObjectReadahead, object: ObjectId, wanted: Range<u64>) -> Option<Range<u64>> {
        if let Some(bytes) = ahead.kept(object, &wanted) {
            assert_eq!(
                u64::try_from(bytes.len()).unwrap(),
                wanted.end - wanted.start
            );
            return None;
        }
        let range = ahead.widened(object, &wanted);
        assert!(range.start == wanted.start && range.end >= wanted.end && range.end <= SIZE);
        let bytes = Bytes::from(vec![0; usize::try_from(range.end - range.start).unwrap()]);
        ahead.read(object, &wanted, range.start, &bytes, SIZE);
        Some(range)
    }

    #[test]
    fn small_reads_one_after_the_other_take_more_and_more_along() {
        let ahead = ObjectReadahead::default();
        let frames = (0..SIZE / 4096).map(|at| at * 4096..(at + 1) * 4096);
        let asked: Vec<_> = frames
            .filter_map(|frame| read(&ahead, SEGMENT, frame))
            .collect();
        assert!(asked.len() < 12, "{asked:?}");
        assert_eq!(asked[0], 0..4096, "a first one is nothing yet");
        assert_eq!(asked[1], 4096..4096 + FIRST_BYTES);
        assert_eq!(asked.last().unwrap().end, SIZE);
    }

    #[test]
    fn reads_here_and_there_and_long_ones_take_nothing_along() {
        let ahead = ObjectReadahead::default();
        for at in [0, 8 << 20, 2 << 20, 12 << 20] {
            assert_eq!(read(&ahead, SEGMENT, at..at + 4096), Some(at..at + 4096));
        }
        let long = (12 << 20)..(12 << 20) + SMALL_BYTES + 1;
        assert_eq!(read(&ahead, SEGMENT, long.clone()), Some(long));
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_its_object() {
        let ahead = ObjectReadahead::default();
        for seq in 0..20 {
            let object = ObjectId::Segment { epoch: 1, seq };
            read(&ahead, object, 0..10);
            read(&ahead, object, 10..20);
            assert!(ahead.kept(object, &(20..30)).is_some());
            assert_eq!(ahead.kept(object, &(20..u64::MAX)), None);
            let other = ObjectId::Segment { epoch: 2, seq };
            assert_eq!(ahead.kept(other, &(20..30)), None);
        }
        let reads = ahead.0.lock();
        assert_eq!(reads.len(), OBJECTS);
        let kept: usize = reads.iter().map(|read| read.kept.len()).sum();
        assert!(u64::try_from(kept).unwrap() <= u64::try_from(OBJECTS).unwrap() * MOST_BYTES);
    }
}
