//! What is fetched with one request: how much, and which blocks are here when a part of it has arrived.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use super::dirty::Ranges;
use super::extents::Extent;
use super::ranges::{around, up};
use super::round::FRAME_BYTES;
use crate::bucket::Frame;

/// So much is asked for with one request of somebody who reads on.
pub(super) const REQUEST_BYTES: u64 = 4 << 20;
/// So much comes along at most with what somebody reads here and there.
pub(super) const ALONG_BYTES: u64 = 8 << 20;
/// A store may begin to send only when it has all that is asked for: a range that is waited for is asked for with no more than so much.
pub(super) const WAITED_BYTES: u64 = 1 << 20;
/// Of a file of which this part is here, one in so many, as much comes along as may.
const MOST_PART: u64 = 8;

/// What is fetched with one request.
#[derive(Debug)]
pub(super) struct Wanted {
    /// In whole blocks.
    pub(super) range: Range<u64>,
    /// In their order.
    pub(super) extents: Vec<Extent>,
}

/// Blocks all of whose content has arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) blocks: Range<u64>,
    /// What is in them, with the content of its frame.
    pub(super) extents: Vec<(Extent, Bytes)>,
}

/// What is wanted, while it arrives.
#[derive(Debug)]
pub(super) struct Arriving {
    frames: Vec<Content>,
    runs: Vec<Option<Run>>,
}

/// A frame, and the runs that need it.
#[derive(Debug, Default)]
struct Content {
    bytes: Option<Bytes>,
    runs: Vec<usize>,
}

/// Extents that share blocks, one with the next.
#[derive(Debug)]
struct Run {
    blocks: Range<u64>,
    /// Each with the number of its frame.
    extents: Vec<(Extent, usize)>,
    /// Frames that have not arrived.
    awaited: usize,
}

impl Wanted {
    /// The frames that are to be read, each once, and what takes them in, by their places among these.
    pub(super) fn arriving(&self) -> (Vec<Frame>, Arriving) {
        let mut frames: Vec<Frame> = self.extents.iter().map(|extent| extent.frame).collect();
        frames.sort_unstable();
        frames.dedup();
        let places: HashMap<Frame, usize> = frames.iter().copied().zip(0..).collect();
        let mut contents: Vec<Content> = frames.iter().map(|_| Content::default()).collect();
        let shares =
            |one: &Extent, next: &Extent| around(&one.range()).end > around(&next.range()).start;
        let mut runs = Vec::new();
        for extents in self.extents.chunk_by(shares) {
            let mut run = Run {
                blocks: self.blocks(extents),
                extents: Vec::with_capacity(extents.len()),
                awaited: 0,
            };
            for extent in extents {
                let Some(&place) = places.get(&extent.frame) else {
                    continue;
                };
                run.extents.push((*extent, place));
                if let Some(content) = contents.get_mut(place)
                    && content.runs.last() != Some(&runs.len())
                {
                    content.runs.push(runs.len());
                    run.awaited = run.awaited.saturating_add(1);
                }
            }
            runs.push(Some(run));
        }
        let arriving = Arriving {
            frames: contents,
            runs,
        };
        (frames, arriving)
    }

    /// The blocks of some extents that are wanted.
    fn blocks(&self, extents: &[Extent]) -> Range<u64> {
        let start = extents.first().map_or(0, |first| first.offset);
        let end = extents.last().map_or(0, |last| last.range().end);
        let blocks = around(&(start..end));
        blocks.start.max(self.range.start)..blocks.end.min(self.range.end)
    }
}

impl Arriving {
    /// Takes the content of a frame, and adds the blocks that are whole by it.
    pub(super) fn add(&mut self, which: usize, content: Bytes, arrived: &mut Vec<Arrived>) {
        let Some(frame) = self.frames.get_mut(which) else {
            return;
        };
        if frame.bytes.replace(content).is_some() {
            return;
        }
        for which in std::mem::take(&mut frame.runs) {
            let Some(place) = self.runs.get_mut(which) else {
                continue;
            };
            if let Some(run) = place {
                run.awaited = run.awaited.saturating_sub(1);
            }
            let Some(run) = place.take_if(|run| run.awaited == 0) else {
                continue;
            };
            let with_content = |(extent, frame): (Extent, usize)| {
                let content = self.frames.get(frame)?.bytes.clone()?;
                Some((extent, content))
            };
            arrived.push(Arrived {
                blocks: run.blocks,
                extents: run.extents.into_iter().filter_map(with_content).collect(),
            });
        }
    }

    /// Whether all has arrived.
    pub(super) fn is_over(&self) -> bool {
        self.runs.iter().all(Option::is_none)
    }
}

/// What is asked for where a range is missing, of a file of `size` bytes: the range, and what follows it, as far as that is missing
/// and was not asked for. The more of the file is here, the likelier the rest is wanted. A file that may not stay gets no more
/// than is asked for.
pub(super) fn along(
    ranges: &Ranges,
    range: &Range<u64>,
    size: u64,
    limit: Option<u64>,
) -> Range<u64> {
    let stays = limit.is_none_or(|limit| size <= limit / 2);
    let window = window(size, size.saturating_sub(ranges.missing_bytes()));
    let own = around(range);
    let Some(start) = ranges.missing_in(&own).first().map(|first| first.start) else {
        return range.clone();
    };
    if !stays || window <= FRAME_BYTES {
        return range.clone();
    }
    let end = down_to_frame(start).saturating_add(window).min(up(size));
    let after = ranges.unasked_in(&(start..end));
    let Some(after) = after.first().filter(|after| after.start == start) else {
        return range.clone();
    };
    start.min(range.start)..after.end.max(range.end)
}

/// How much is asked for at a time of a file of which so much is here.
fn window(size: u64, here: u64) -> u64 {
    let part = u128::from(here).saturating_mul(MOST_PART.into());
    let window = u128::from(ALONG_BYTES).saturating_mul(part);
    let window = window.checked_div(size.into()).unwrap_or(0);
    let window = u64::try_from(window).map_or(ALONG_BYTES, |window| window.min(ALONG_BYTES));
    down_to_frame(window)
}

/// The start of the frame that an offset is in, of a file that was written in one go.
fn down_to_frame(offset: u64) -> u64 {
    offset & !(FRAME_BYTES - 1)
}

/// Which extents are fetched together: those that share a block, and then up to `most` bytes.
pub(super) fn plan(extents: Vec<Extent>, most: u64) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for extent in extents {
        let range = around(&extent.range());
        if let Some(last) = all.last_mut() {
            let shares = range.start < last.range.end;
            let follows = range.start == last.range.end;
            let near = range.end.saturating_sub(last.range.start) <= most;
            if shares || (follows && near) {
                last.range.end = last.range.end.max(range.end);
                last.extents.push(extent);
                continue;
            }
        }
        all.push(Wanted {
            range,
            extents: vec![extent],
        });
    }
    all
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "sets of ranges, of which some have one"
)]
mod tests {
    use super::*;
    use crate::bucket::ObjectId;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 256 * MIB;

    fn with(missing: &[Range<u64>], fetching: &[Range<u64>]) -> Ranges {
        Ranges::missing_and_asked(missing, fetching)
    }

    #[test]
    fn the_more_of_a_file_is_here_the_more_is_asked_for() {
        let wanted = 100 * MIB + 5000..100 * MIB + 9000;
        let here = |here: u64| with(&[here..SIZE], &[]);
        assert_eq!(along(&here(0), &wanted, SIZE, None), wanted);
        let some = 100 * MIB + 4096..102 * MIB;
        assert_eq!(along(&here(8 * MIB), &wanted, SIZE, None), some);
        let most = 100 * MIB + 4096..108 * MIB;
        assert_eq!(along(&here(SIZE / 8), &wanted, SIZE, None), most);
        assert_eq!(along(&here(99 * MIB), &wanted, SIZE, None), most);
        assert_eq!(along(&here(99 * MIB), &wanted, SIZE, Some(2 * SIZE)), most);
        let limit = Some(2 * SIZE - 1);
        let asked = along(&here(99 * MIB), &wanted, SIZE, limit);
        assert_eq!(asked, wanted, "it may not stay");
    }

    #[test]
    fn one_request_ends_where_something_is_here_or_was_asked_for() {
        let wanted = 100 * MIB..100 * MIB + 4096;
        let rest = 200 * MIB..SIZE;
        let ask = |missing: &[Range<u64>], fetching: &[Range<u64>]| {
            let missing: Vec<_> = missing.iter().cloned().chain([rest.clone()]).collect();
            along(&with(&missing, fetching), &wanted, SIZE, None)
        };
        let around = 90 * MIB..101 * MIB;
        let all = std::slice::from_ref(&around);
        assert_eq!(ask(all, &[]), 100 * MIB..101 * MIB);
        let asked_after = 100 * MIB + MIB / 2..110 * MIB;
        assert_eq!(ask(all, &[asked_after]), 100 * MIB..100 * MIB + MIB / 2);
        let is_asked = 100 * MIB..100 * MIB + 8192;
        assert_eq!(ask(all, &[is_asked]), wanted);
        let long = 95 * MIB..116 * MIB;
        assert_eq!(ask(&[long], &[]), 100 * MIB..108 * MIB);
        // At the end of a file, and in one that became shorter meanwhile.
        let last = SIZE - 4096..SIZE - 5;
        let asked = along(&with(&[rest], &[]), &last, SIZE - 5, None);
        assert_eq!(asked, SIZE - 4096..SIZE);
        let nothing = with(&[0..8192], &[]);
        assert_eq!(along(&nothing, &(4096..8192), 0, None), 4096..8192);
    }

    fn extent(offset: u64, length: u64, frame: u64) -> Extent {
        Extent {
            offset,
            length,
            frame: Frame {
                object: ObjectId::Log(1),
                offset: frame,
                stored: 100,
                length: 1 << 18,
                crc: 0,
            },
            skip: 0,
        }
    }

    #[test]
    fn blocks_are_here_when_all_that_is_in_them_has_arrived() {
        let extents = vec![
            extent(0, 5000, 0),
            extent(5000, 3192, 100),
            extent(8192, 4096, 200),
            extent(12288, 4096, 0),
        ];
        let planned = plan(extents, REQUEST_BYTES);
        let [wanted] = &planned[..] else {
            panic!("{planned:?}");
        };
        let (frames, mut arriving) = wanted.arriving();
        assert_eq!(frames.len(), 3);
        let mut take = |which| {
            let mut arrived = Vec::new();
            arriving.add(which, Bytes::from(vec![0; 1 << 18]), &mut arrived);
            let blocks = arrived.into_iter().map(|one| one.blocks);
            (blocks.collect::<Vec<_>>(), arriving.is_over())
        };
        assert_eq!(take(0), (vec![12288..16384], false));
        assert_eq!(take(0), (vec![], false));
        assert_eq!(take(2), (vec![8192..12288], false));
        assert_eq!(take(1), (vec![0..8192], true));
    }
}
