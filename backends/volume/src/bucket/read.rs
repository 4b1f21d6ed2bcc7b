//! Reading content: frames, checked, with as few requests as can be.

use std::ops::Range;
use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::cipher::{ObjectCipher, Sealed};
use super::damage::Damage;
use super::error::BucketError;
use super::frame::Frame;
use super::object_readahead::ObjectReadahead;
use super::objects::{Objects, part_failed};
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
    let mut coming = pin!(frames_as_they_come(objects, ahead, frames));
    let mut contents = vec![Bytes::new(); frames.len()];
    while let Some((which, content)) = coming.try_next().await? {
        if let Some(slot) = contents.get_mut(which) {
            *slot = content;
        }
    }
    Ok(contents)
}

/// The content of frames, each with its place among them, as soon as it is there: of what one request reads the first ones come
/// before the rest has arrived.
pub(super) fn frames_as_they_come<'a>(
    objects: &'a Objects,
    ahead: &'a ObjectReadahead,
    frames: &'a [Frame],
) -> impl Stream<Item = Result<(usize, Bytes)>> + Send + 'a {
    let runs = stream::iter(plan(frames)).map(move |run| {
        let reading = Reading {
            objects,
            ahead,
            frames,
            run,
            body: None,
            whole: Vec::new().into_iter(),
        };
        stream::try_unfold(reading, Reading::next).boxed()
    });
    runs.flatten_unordered(PARALLEL)
}

/// A run that is read.
struct Reading<'a> {
    objects: &'a Objects,
    ahead: &'a ObjectReadahead,
    frames: &'a [Frame],
    run: Run,
    /// What is on its way, since it was asked for.
    body: Option<Body>,
    /// What was there all at once.
    whole: std::vec::IntoIter<(usize, Bytes)>,
}

impl Reading<'_> {
    async fn next(mut self) -> Result<Option<((usize, Bytes), Self)>> {
        if self.body.is_none() {
            self.body = Some(self.begin().await?);
        }
        if let Some(one) = self.whole.next() {
            return Ok(Some((one, self)));
        }
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let Some(&which) = self.run.frames.get(body.done) else {
            return Ok(None);
        };
        let Some(frame) = self.frames.get(which) else {
            return Ok(None);
        };
        let content = body.content_of(frame).await?;
        body.done = body.done.saturating_add(1);
        Ok(Some(((which, content), self)))
    }

    /// Asks for the run, unless it was taken along before.
    async fn begin(&mut self) -> Result<Body> {
        let (object, range) = (self.run.object, self.run.range.clone());
        let cipher = self.objects.cipher.of(Sealed::Content(object));
        let cipher = cipher.map_err(BucketError::local("make the key of an object"))?;
        let key = self.objects.names.object(object);
        let mut body = Body {
            chunks: stream::empty().boxed(),
            bytes: BytesMut::new(),
            at: range.start,
            last: None,
            done: 0,
            cipher,
            key,
        };
        if let Some(kept) = self.ahead.kept(object, &range)
            && let Ok(contents) = unpack(self.frames, &self.run, &kept, &body.cipher)
        {
            body.done = self.run.frames.len();
            self.whole = contents.into_iter();
            return Ok(body);
        }
        let widened = self.ahead.widened(object, &range);
        if widened != range {
            // The rest is kept for those that read what follows.
            let start = widened.start;
            let (bytes, size) = self.objects.read_range(&body.key, widened).await?;
            self.ahead.read(object, &range, start, &bytes, size);
            let contents = unpack(self.frames, &self.run, &bytes, &body.cipher);
            let contents = contents.map_err(BucketError::damaged(body.key.clone()))?;
            body.done = self.run.frames.len();
            self.whole = contents.into_iter();
            return Ok(body);
        }
        let length = range.end.saturating_sub(range.start);
        let (chunks, size) = self.objects.begin_range(&body.key, range.clone()).await?;
        self.ahead
            .read(object, &range, range.start, &Bytes::new(), size);
        body.bytes.reserve(usize::try_from(length).unwrap_or(0));
        body.chunks = chunks;
        Ok(body)
    }
}

/// A part of an object that is on its way.
struct Body {
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    /// What arrived, and is part of no frame that was handed out.
    bytes: BytesMut,
    /// Where that begins in the object.
    at: u64,
    /// The frame that was handed out last, and its content.
    last: Option<(Frame, Bytes)>,
    /// How many frames were handed out.
    done: usize,
    cipher: ObjectCipher,
    key: Path,
}

impl Body {
    /// The content of the next frame, in the order of the object.
    async fn content_of(&mut self, frame: &Frame) -> Result<Bytes> {
        if let Some((_, content)) = self.last.as_ref().filter(|(last, _)| last == frame) {
            return Ok(content.clone());
        }
        let damaged = |damage| BucketError::damaged(self.key.clone())(damage);
        // Frames lie one behind the other, and are not longer than a request.
        let lengths = frame.offset.checked_sub(self.at).and_then(|gap| {
            Some((
                usize::try_from(gap).ok()?,
                usize::try_from(frame.stored).ok()?,
            ))
        });
        let Some((gap, stored)) = lengths else {
            return Err(damaged(Damage("frames of content overlap")));
        };
        let needed = gap.saturating_add(stored);
        while self.bytes.len() < needed {
            match self.chunks.try_next().await {
                Ok(Some(chunk)) => self.bytes.extend_from_slice(&chunk),
                Ok(None) => return Err(damaged(Damage("it is too short for a frame of content"))),
                Err(error) => return Err(part_failed(&self.key, error)),
            }
        }
        self.bytes.advance(gap);
        let stored = self.bytes.split_to(stored).freeze();
        self.at = frame.end();
        let content = frame.unpack(&stored, &self.cipher).map_err(damaged)?;
        self.last = Some((*frame, content.clone()));
        Ok(content)
    }
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
