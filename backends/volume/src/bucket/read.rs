//! Reading content: frames, checked, with as few requests as can be.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::cipher::{ObjectCipher, Sealed};
use super::damage::Damage;
use super::error::BucketError;
use super::frame::Frame;
use super::object_readahead::ObjectReadahead;
use super::objects::Objects;
use super::place::ObjectId;

type Result<T> = std::result::Result<T, BucketError>;

/// One request reads at most so much, unless a single frame is longer.
const MAX_REQUEST_BYTES: u64 = 8 << 20;
/// Bytes between two frames that are read along with them rather than asking twice.
const MAX_GAP_BYTES: u64 = 64 << 10;
/// Requests at once.
const PARALLEL: usize = 8;

/// Frames that are read with one request.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    object: ObjectId,
    range: Range<u64>,
    /// Which ones of those that are wanted.
    frames: Vec<usize>,
}

/// The content of frames, in their order. All of it is in memory at once: ask for as much as is needed.
pub(super) async fn read_frames(
    objects: &Objects,
    ahead: &ObjectReadahead,
    frames: &[Frame],
) -> Result<Vec<Bytes>> {
    let runs = plan(frames);
    let mut reading = stream::iter(runs)
        .map(|run| read_run(objects, ahead, frames, run))
        .buffer_unordered(PARALLEL);
    let mut contents = vec![Bytes::new(); frames.len()];
    while let Some(read) = reading.try_next().await? {
        for (which, content) in read {
            if let Some(slot) = contents.get_mut(which) {
                *slot = content;
            }
        }
    }
    Ok(contents)
}

async fn read_run(
    objects: &Objects,
    ahead: &ObjectReadahead,
    frames: &[Frame],
    run: Run,
) -> Result<Vec<(usize, Bytes)>> {
    let cipher = objects.cipher.of(Sealed::Content(run.object));
    let cipher = cipher.map_err(BucketError::local("make the key of an object"))?;
    if let Some(kept) = ahead.kept(run.object, &run.range)
        && let Ok(contents) = unpack(frames, &run, &kept, &cipher)
    {
        return Ok(contents);
    }
    let key = objects.names.object(run.object);
    let range = ahead.widened(run.object, &run.range);
    let start = range.start;
    let (bytes, size) = objects.read_range(&key, range).await?;
    ahead.read(run.object, &run.range, start, &bytes, size);
    unpack(frames, &run, &bytes, &cipher).map_err(BucketError::damaged(key))
}

/// The content of a run's frames, from bytes that begin where the run does.
fn unpack(
    frames: &[Frame],
    run: &Run,
    bytes: &Bytes,
    cipher: &ObjectCipher,
) -> std::result::Result<Vec<(usize, Bytes)>, Damage> {
    let wanted = run
        .frames
        .iter()
        .filter_map(|&which| Some((which, frames.get(which)?)));
    wanted
        .map(|(which, frame)| {
            let stored = cut(frame, &run.range, bytes)?;
            Ok((which, frame.unpack(&stored, cipher)?))
        })
        .collect()
}

fn cut(frame: &Frame, range: &Range<u64>, whole: &Bytes) -> std::result::Result<Bytes, Damage> {
    let at = |offset: u64| {
        let offset = usize::try_from(offset.checked_sub(range.start)?).ok()?;
        (offset <= whole.len()).then_some(offset)
    };
    match (at(frame.offset), at(frame.end())) {
        (Some(start), Some(end)) if start <= end => Ok(whole.slice(start..end)),
        _ => Err(Damage("it is too short for a frame of content")),
    }
}

/// Which requests read these frames.
fn plan(frames: &[Frame]) -> Vec<Run> {
    let mut order: Vec<(usize, &Frame)> = frames.iter().enumerate().collect();
    order.sort_unstable_by_key(|(_, frame)| (frame.object, frame.offset));
    let mut runs: Vec<Run> = Vec::new();
    for (which, frame) in order {
        if let Some(run) = runs.last_mut().filter(|run| run.object == frame.object) {
            let end = run.range.end.max(frame.end());
            let near = frame.offset <= run.range.end.saturating_add(MAX_GAP_BYTES);
            if near && end.saturating_sub(run.range.start) <= MAX_REQUEST_BYTES {
                run.range.end = end;
                run.frames.push(which);
                continue;
            }
        }
        runs.push(Run {
            object: frame.object,
            range: frame.offset..frame.end(),
            frames: vec![which],
        });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(object: u64, offset: u64, stored: u32) -> Frame {
        Frame {
            object: ObjectId::Log(object),
            offset,
            stored,
            length: stored,
            crc: 0,
        }
    }

    fn ranges(frames: &[Frame]) -> Vec<(Range<u64>, Vec<usize>)> {
        plan(frames)
            .into_iter()
            .map(|run| (run.range, run.frames))
            .collect()
    }

    #[test]
    fn frames_that_lie_together_are_read_together() {
        let together = [frame(1, 200, 50), frame(1, 100, 100), frame(1, 1000, 10)];
        assert_eq!(ranges(&together), [(100..1010, vec![1, 0, 2])]);
        let twice = [frame(1, 100, 100), frame(1, 100, 100)];
        assert_eq!(ranges(&twice), [(100..200, vec![0, 1])]);
    }

    #[test]
    fn frames_of_other_objects_far_away_or_too_many_are_read_by_themselves() {
        let apart = [frame(1, 100, 100), frame(2, 200, 100)];
        assert_eq!(plan(&apart).len(), 2);
        let far = [frame(1, 0, 100), frame(1, 101 + MAX_GAP_BYTES, 100)];
        assert_eq!(plan(&far).len(), 2);
        let many: Vec<_> = (0..16).map(|at| frame(1, at << 20, 1 << 20)).collect();
        assert_eq!(plan(&many).len(), 2);
        assert_eq!(plan(&[]), []);
    }
}
