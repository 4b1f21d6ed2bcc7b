//! The table `extent`: where the content of files lies in the bucket. Extents of a file never overlap.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::ranges::END;
use crate::bucket::{Frame, ObjectId, Piece};
use crate::meta::schema;

/// No extent is longer: one frame.
const MAX_EXTENT_BYTES: u64 = crate::bucket::MAX_FRAME_BYTES as u64;

pub(super) const TABLE: &str = "
CREATE TABLE extent(
  ino INT NOT NULL, off INT NOT NULL, len INT NOT NULL, epoch INT, seq INT NOT NULL,
  at INT NOT NULL, stored INT NOT NULL, raw INT NOT NULL, crc INT NOT NULL, skip INT NOT NULL,
  PRIMARY KEY(ino, off)) WITHOUT ROWID;
";

/// Content of a file that lies in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) frame: Frame,
    /// Where it begins in the frame's content.
    pub(crate) skip: u32,
}

impl Extent {
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }

    /// A part of it, from its frame's content.
    pub(crate) fn part_of(&self, content: &Bytes, part: &Range<u64>) -> Option<Bytes> {
        let into = part.start.checked_sub(self.offset)?;
        let start = usize::try_from(into.checked_add(self.skip.into())?).ok()?;
        let length = usize::try_from(part.end.checked_sub(part.start)?).ok()?;
        let end = start.checked_add(length)?;
        (end <= content.len()).then(|| content.slice(start..end))
    }
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// An extent in columns `off, len, epoch, seq, at, stored, raw, crc, skip`.
fn extent(row: &Row<'_>) -> rusqlite::Result<Extent> {
    let epoch: Option<i64> = row.get(2)?;
    let seq = unsigned(row, 3)?;
    Ok(Extent {
        offset: unsigned(row, 0)?,
        length: unsigned(row, 1)?,
        frame: Frame {
            object: match epoch {
                Some(epoch) => ObjectId::Segment {
                    epoch: epoch.cast_unsigned(),
                    seq,
                },
                None => ObjectId::Log(seq),
            },
            offset: unsigned(row, 4)?,
            stored: row.get(5)?,
            length: row.get(6)?,
            crc: row.get(7)?,
        },
        skip: row.get(8)?,
    })
}

const COLUMNS: &str = "off, len, epoch, seq, at, stored, raw, crc, skip";

fn put(db: &Transaction<'_>, ino: u64, extent: &Extent) -> rusqlite::Result<()> {
    let (epoch, seq) = match extent.frame.object {
        ObjectId::Segment { epoch, seq } => (Some(epoch.cast_signed()), seq),
        ObjectId::Log(seq) => (None, seq),
    };
    let sql = format!(
        "INSERT INTO extent(ino, {COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    );
    db.prepare_cached(&sql)?.execute(params![
        ino.cast_signed(),
        extent.offset.cast_signed(),
        extent.length.cast_signed(),
        epoch,
        seq.cast_signed(),
        extent.frame.offset.cast_signed(),
        extent.frame.stored,
        extent.frame.length,
        extent.frame.crc,
        extent.skip
    ])?;
    Ok(())
}

/// What is left of an extent from an offset on.
fn tail(extent: &Extent, from: u64) -> Option<Extent> {
    let less = from.checked_sub(extent.offset)?;
    let length = extent
        .length
        .checked_sub(less)
        .filter(|&length| length > 0)?;
    let skip = extent.skip.checked_add(u32::try_from(less).ok()?)?;
    Some(Extent {
        offset: from,
        length,
        skip,
        ..*extent
    })
}

/// Takes a range out of the extents of a file.
fn cut(db: &Transaction<'_>, ino: u64, range: &Range<u64>) -> rusqlite::Result<()> {
    let (file, start, end) = (
        ino.cast_signed(),
        range.start.cast_signed(),
        range.end.cast_signed(),
    );
    let sql =
        format!("SELECT {COLUMNS} FROM extent WHERE ino=?1 AND off<?2 ORDER BY off DESC LIMIT 1");
    let before = db
        .prepare_cached(&sql)?
        .query_row([file, start], extent)
        .optional()?;
    if let Some(before) = before.filter(|before| before.range().end > range.start) {
        let length = range.start.saturating_sub(before.offset);
        db.prepare_cached("UPDATE extent SET len=?3 WHERE ino=?1 AND off=?2")?
            .execute([file, before.offset.cast_signed(), length.cast_signed()])?;
        if let Some(rest) = tail(&before, range.end) {
            put(db, ino, &rest)?;
        }
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM extent WHERE ino=?1 AND off>=?2 AND off<?3 ORDER BY off DESC LIMIT 1"
    );
    let last = db
        .prepare_cached(&sql)?
        .query_row([file, start, end], extent)
        .optional()?;
    db.prepare_cached("DELETE FROM extent WHERE ino=?1 AND off>=?2 AND off<?3")?
        .execute([file, start, end])?;
    match last.and_then(|last| tail(&last, range.end)) {
        Some(rest) => put(db, ino, &rest),
        None => Ok(()),
    }
}

/// From now on content lies where a piece says.
pub(super) fn place(db: &Transaction<'_>, piece: &Piece) -> rusqlite::Result<()> {
    let end = piece.offset.saturating_add(piece.length);
    cut(db, piece.ino, &(piece.offset..end))?;
    match piece.place {
        Some((frame, skip)) => put(
            db,
            piece.ino,
            &Extent {
                offset: piece.offset,
                length: piece.length,
                frame,
                skip,
            },
        ),
        None => Ok(()),
    }
}

/// All frames that extents name, in the order of their objects.
pub(crate) fn frames(db: &Connection) -> rusqlite::Result<Vec<Frame>> {
    let sql = format!("SELECT {COLUMNS} FROM extent ORDER BY epoch, seq, at");
    let mut frames = Vec::new();
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let frame = extent(row)?.frame;
        if frames.last() != Some(&frame) {
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// How many stored bytes of each object the extents in a file that [`Shipping::copy`](super::shipped::Shipping::copy) wrote need, about.
pub(crate) fn live_bytes(path: &Path) -> std::io::Result<HashMap<ObjectId, u64>> {
    let read = || -> rusqlite::Result<HashMap<ObjectId, u64>> {
        let db = schema::reader(path)?;
        let sql = "SELECT epoch, seq, SUM(len * stored / raw) FROM extent GROUP BY epoch, seq";
        let mut statement = db.prepare(sql)?;
        let objects = statement.query_map([], |row| Ok((object(row)?, unsigned(row, 2)?)))?;
        objects.collect()
    };
    read().map_err(std::io::Error::other)
}

/// Which ranges of files lie in some objects: inode numbers and ranges, until they are `most` bytes of content together.
pub(crate) fn ranges_in(
    db: &Connection,
    objects: &HashSet<ObjectId>,
    most: u64,
) -> rusqlite::Result<Vec<(u64, Range<u64>)>> {
    let mut statement = db.prepare("SELECT epoch, seq, ino, off, len FROM extent")?;
    let mut rows = statement.query([])?;
    let mut ranges: Vec<(u64, Range<u64>)> = Vec::new();
    let mut bytes: u64 = 0;
    while let Some(row) = rows.next()?
        && bytes < most
    {
        if !objects.contains(&object(row)?) {
            continue;
        }
        let (ino, start, length) = (unsigned(row, 2)?, unsigned(row, 3)?, unsigned(row, 4)?);
        let end = start.saturating_add(length);
        // However little it is, it takes room here.
        bytes = bytes.saturating_add(length.max(4096));
        match ranges.last_mut() {
            Some((last, range)) if *last == ino && range.end == start => range.end = end,
            _ => ranges.push((ino, start..end)),
        }
    }
    Ok(ranges)
}

/// An object in columns `epoch, seq`.
fn object(row: &Row<'_>) -> rusqlite::Result<ObjectId> {
    let seq = unsigned(row, 1)?;
    let epoch: Option<i64> = row.get(0)?;
    Ok(match epoch.map(i64::cast_unsigned) {
        Some(epoch) => ObjectId::Segment { epoch, seq },
        None => ObjectId::Log(seq),
    })
}

/// All objects that the extents in a file that [`Shipping::copy`](super::shipped::Shipping::copy) wrote name.
pub(crate) fn objects(path: &Path) -> std::io::Result<Vec<ObjectId>> {
    let read = || -> rusqlite::Result<Vec<ObjectId>> {
        let db = schema::reader(path)?;
        let mut statement = db.prepare("SELECT DISTINCT epoch, seq FROM extent")?;
        let objects = statement.query_map([], object)?;
        objects.collect()
    };
    read().map_err(std::io::Error::other)
}

/// Which ranges of the first `size` bytes of a file the bucket has.
pub(super) fn ranges(db: &Connection, ino: u64, size: u64) -> rusqlite::Result<Vec<Range<u64>>> {
    let sql = "SELECT off, len FROM extent WHERE ino=?1 AND off<?2 ORDER BY off";
    let mut statement = db.prepare_cached(sql)?;
    let ranges = statement.query_map([ino, size.min(END)].map(u64::cast_signed), |row| {
        let (offset, length) = (unsigned(row, 0)?, unsigned(row, 1)?);
        Ok(offset..offset.saturating_add(length).min(size))
    })?;
    ranges.collect()
}

/// The extents that have something of a range of a file, in their order.
pub(super) fn within(
    db: &Connection,
    ino: u64,
    range: &Range<u64>,
) -> rusqlite::Result<Vec<Extent>> {
    let first = range.start.saturating_sub(MAX_EXTENT_BYTES);
    let bounds = [ino, first, range.end.min(END)].map(u64::cast_signed);
    let sql =
        format!("SELECT {COLUMNS} FROM extent WHERE ino=?1 AND off>=?2 AND off<?3 ORDER BY off");
    let mut statement = db.prepare_cached(&sql)?;
    let mut found: Vec<Extent> = statement
        .query_map(bounds, extent)?
        .collect::<Result<_, _>>()?;
    found.retain(|extent| extent.range().end > range.start);
    Ok(found)
}

/// Forgets where the content of a file lies.
pub(super) fn remove(db: &Transaction<'_>, ino: u64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM extent WHERE ino=?1")?
        .execute([ino.cast_signed()])?;
    Ok(())
}
