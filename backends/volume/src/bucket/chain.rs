//! The chain of log objects: each names the hash of the one before, so that what is read from a point on is one line
//! of history or is refused.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::damage::Damage;
use super::error::BucketError;
use super::head::Head;
use super::log::{Link, LogObject, MAX_LOG_BYTES, Uuid};
use super::objects::Objects;
use super::place::{ChainHash, Point};

type Result<T> = std::result::Result<T, BucketError>;

/// Log objects that are fetched ahead.
const AHEAD: usize = 4;

/// A log object as it was found.
pub(super) struct Fetched {
    pub(super) object: LogObject,
    pub(super) link: Link,
    pub(super) point: Point,
}

/// The log object of a number.
pub(super) async fn fetch(objects: &Objects, uuid: Uuid, seq: u64) -> Result<Option<Fetched>> {
    let key = objects.names.log(seq);
    let Some((bytes, _)) = objects.read(&key, MAX_LOG_BYTES).await? else {
        return Ok(None);
    };
    read(objects, uuid, seq, &bytes)
        .map(Some)
        .map_err(BucketError::damaged(&key))
}

fn read(
    objects: &Objects,
    uuid: Uuid,
    seq: u64,
    bytes: &Bytes,
) -> std::result::Result<Fetched, Damage> {
    let (object, link) = LogObject::decode(bytes, &objects.cipher)?;
    if link.uuid != uuid {
        return Err(Damage("it belongs to another volume"));
    }
    if object.seq != seq {
        return Err(Damage("it is the log object of another number"));
    }
    Ok(Fetched {
        point: object.point(ChainHash::of(bytes)),
        object,
        link,
    })
}

impl Fetched {
    /// Whether it is what comes after a point.
    pub(super) fn follows(&self, before: Point) -> bool {
        self.link.previous == before.hash
            && Some(self.object.first) == before.lsn.checked_add(1)
            && self.object.epoch >= before.epoch
    }
}

fn gap(objects: &Objects, seq: u64) -> BucketError {
    BucketError::damaged(objects.names.log(seq))(Damage(
        "it does not follow the log object before it",
    ))
}

/// The log object after a point, if there is one. It follows the point, or is refused.
pub(super) async fn next(objects: &Objects, uuid: Uuid, before: Point) -> Result<Option<Fetched>> {
    let Some(seq) = before.seq.checked_add(1) else {
        return Ok(None);
    };
    match fetch(objects, uuid, seq).await? {
        None => Ok(None),
        Some(found) if found.follows(before) => Ok(Some(found)),
        Some(_) => Err(gap(objects, seq)),
    }
}

/// About where the chain ends: log objects up to there exist, and there may be more. `base` is a point of it.
pub(super) async fn find_end(objects: &Objects, uuid: Uuid, base: Point) -> Result<Point> {
    let mut seqs = Vec::new();
    let after = objects.names.log(base.seq);
    let names = &objects.names;
    objects
        .list("log/", Some(&after), |object| {
            seqs.extend(names.parse_log(&object.key))
        })
        .await?;
    seqs.sort_unstable();
    let mut end = base.seq;
    for seq in seqs.into_iter().filter(|&seq| seq > base.seq) {
        // A listing may be late; the chain itself has no gaps.
        while seq.saturating_sub(1) > end {
            end = end.saturating_add(1);
            let key = objects.names.log(end);
            if objects.look(&key).await?.is_none() {
                return Err(BucketError::damaged(key)(Damage("it is not there")));
            }
        }
        end = seq;
    }
    if end == base.seq {
        return Ok(base);
    }
    match fetch(objects, uuid, end).await? {
        Some(found) => Ok(found.point),
        None => Err(BucketError::damaged(objects.names.log(end))(Damage(
            "it is not there",
        ))),
    }
}

/// Hands out all log objects after a point, each with the point that it is, up to the one with number `until` or to the
/// last one. Returns the point of the last.
///
/// # Errors
/// [`Diverged`](BucketError::Diverged) where `after` is no point of the chain, [`Gone`](BucketError::Gone) where what
/// follows it may have been removed; damage; the store's failures; those of `each`, which end it.
pub(super) async fn follow<E: From<BucketError>>(
    objects: &Objects,
    head: &Head,
    after: Point,
    until: Option<Point>,
    mut each: impl FnMut(LogObject, Point) -> std::result::Result<(), E>,
) -> std::result::Result<Point, E> {
    let uuid = head.uuid.0;
    if after.seq.saturating_add(1) < head.boundary {
        return Err(BucketError::Gone(after.seq).into());
    }
    let last = until.map_or(u64::MAX, |until| until.seq);
    if after.seq > last || until.is_some_and(|until| until.seq == after.seq && until != after) {
        return Err(BucketError::Diverged(after.seq).into());
    }
    let seqs = after.seq.saturating_add(1)..=last;
    let mut fetched = stream::iter(seqs)
        .map(|seq| async move { (seq, fetch(objects, uuid, seq).await) })
        .buffered(AHEAD);
    let mut point = after;
    while let Some((seq, found)) = fetched.next().await {
        match found? {
            // Whoever took the volume over may have removed the last one, and an earlier owner put another in its place.
            Some(found) if until.is_some_and(|until| until.seq == seq && until != found.point) => {
                return Err(BucketError::Diverged(found.point.seq).into());
            }
            Some(found) if found.follows(point) => {
                point = found.point;
                each(found.object, point)?;
            }
            // What was not checked yet is the point that was asked about.
            Some(_) if point == after && after != head.base() => {
                return Err(BucketError::Diverged(after.seq).into());
            }
            Some(_) => return Err(gap(objects, seq).into()),
            None if until.is_some() => {
                let key = objects.names.log(seq);
                return Err(BucketError::damaged(key)(Damage("it is not there")).into());
            }
            None => break,
        }
    }
    if until.is_none() && point == after && after != head.base() && after != Point::START {
        match fetch(objects, uuid, after.seq).await? {
            Some(found) if found.point == after => {}
            _ => return Err(BucketError::Diverged(after.seq).into()),
        }
    }
    Ok(point)
}
