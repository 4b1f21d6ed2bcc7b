//! The shipped image: what the bucket says up to a point of its chain, in tables of its own.
//!
//! They are the tables of the volume, and `extent`: where content lies in the bucket. Nothing brings them forward
//! but log objects that are in the bucket, each in one transaction. The live tables start from them on a host
//! that never had the volume, and a checkpoint is a copy of them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use vfsd_backend::{Error, Result};

use super::ranges::END;
use crate::bucket::{ChainHash, Frame, ObjectId, Piece, Point};
use crate::meta::ahead::Ahead;
use crate::meta::journal::Lsn;
use crate::meta::{change, schema, tables};

/// No extent is longer: one frame.
const MAX_EXTENT_BYTES: u64 = crate::bucket::MAX_FRAME_BYTES as u64;
/// Readers that are kept for the next who needs one.
const SPARE_READERS: usize = 8;

const TABLES: &str = "
CREATE TABLE chain(id INTEGER PRIMARY KEY CHECK(id=1), seq INT NOT NULL, lsn INT NOT NULL, epoch INT NOT NULL, hash BLOB NOT NULL);
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
}

fn storage(error: rusqlite::Error) -> Error {
    Error::Storage(Box::new(error))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
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

fn place(db: &Transaction<'_>, piece: &Piece) -> rusqlite::Result<()> {
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

/// How many stored bytes of each object the extents in a file that [`Shipping::copy`] wrote need, about.
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

/// All objects that the extents in a file that [`Shipping::copy`] wrote name.
pub(crate) fn objects(path: &Path) -> std::io::Result<Vec<ObjectId>> {
    let read = || -> rusqlite::Result<Vec<ObjectId>> {
        let db = schema::reader(path)?;
        let mut statement = db.prepare("SELECT DISTINCT epoch, seq FROM extent")?;
        let objects = statement.query_map([], object)?;
        objects.collect()
    };
    read().map_err(std::io::Error::other)
}

/// Looks into the shipped image.
#[derive(Debug)]
pub(crate) struct Shipped {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
}

impl Shipped {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            readers: Mutex::default(),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let spare = self.readers.lock().pop();
        let reader = match spare {
            Some(reader) => reader,
            None => schema::reader(&self.path).map_err(storage)?,
        };
        let found = look(&reader).map_err(storage)?;
        let mut readers = self.readers.lock();
        if readers.len() < SPARE_READERS {
            readers.push(reader);
        }
        Ok(found)
    }

    /// Which ranges of the first `size` bytes of a file the bucket has.
    pub(crate) fn ranges(&self, ino: u64, size: u64) -> Result<Vec<Range<u64>>> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT off, len FROM extent WHERE ino=?1 AND off<?2 ORDER BY off",
            )?;
            let ranges =
                statement.query_map([ino, size.min(END)].map(u64::cast_signed), |row| {
                    let (offset, length) = (unsigned(row, 0)?, unsigned(row, 1)?);
                    Ok(offset..offset.saturating_add(length).min(size))
                })?;
            ranges.collect()
        })
    }

    /// The extents that have something of a range of a file, in their order.
    pub(crate) fn extents(&self, ino: u64, range: &Range<u64>) -> Result<Vec<Extent>> {
        let first = range.start.saturating_sub(MAX_EXTENT_BYTES);
        let bounds = [ino, first, range.end.min(END)].map(u64::cast_signed);
        let sql = format!(
            "SELECT {COLUMNS} FROM extent WHERE ino=?1 AND off>=?2 AND off<?3 ORDER BY off"
        );
        let mut found: Vec<Extent> = self.read(|db| {
            db.prepare_cached(&sql)?
                .query_map(bounds, extent)?
                .collect()
        })?;
        found.retain(|extent| extent.range().end > range.start);
        Ok(found)
    }
}

/// Brings the shipped image forward. There is one of it.
#[derive(Debug)]
pub(crate) struct Shipping {
    db: Connection,
    point: Point,
}

impl Shipping {
    /// Makes the image of a volume of which nothing is known.
    pub(crate) fn create(path: &Path) -> Result<()> {
        schema::create(path).map_err(storage)?;
        let db = schema::writer(path).map_err(storage)?;
        db.execute_batch(TABLES).map_err(storage)
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let db = schema::writer(path).map_err(storage)?;
        let point = db
            .query_row("SELECT seq, lsn, epoch, hash FROM chain", [], |row| {
                Ok(Point {
                    seq: unsigned(row, 0)?,
                    lsn: unsigned(row, 1)?,
                    epoch: unsigned(row, 2)?,
                    hash: ChainHash(row.get(3)?),
                })
            })
            .optional()
            .map_err(storage)?;
        Ok(Self {
            db,
            point: point.unwrap_or(Point::START),
        })
    }

    /// Where in the chain it is.
    pub(crate) fn point(&self) -> Point {
        self.point
    }

    /// Takes in what a log object says, which makes it the image of `point`.
    ///
    /// # Errors
    /// A record is of an unknown form, or SQLite failed: then nothing is different.
    pub(crate) fn apply(
        &mut self,
        records: &[(Lsn, Vec<u8>)],
        pieces: &[Piece],
        point: Point,
    ) -> Result<()> {
        let mut ahead = Ahead::default();
        for (lsn, record) in records {
            let changes = change::decode(record).map_err(|_| {
                std::io::Error::other(format!("record {lsn} of the volume has an unknown form"))
            })?;
            ahead.add(*lsn, changes);
        }
        ahead.last = point.lsn;
        self.bring_forward(&ahead, pieces, point).map_err(storage)?;
        self.point = point;
        Ok(())
    }

    fn bring_forward(
        &mut self,
        ahead: &Ahead,
        pieces: &[Piece],
        point: Point,
    ) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        tables::apply_within(&transaction, ahead)?;
        for piece in pieces {
            place(&transaction, piece)?;
        }
        for (ino, _) in ahead.nodes.iter().filter(|(_, row)| row.is_none()) {
            transaction
                .prepare_cached("DELETE FROM extent WHERE ino=?1")?
                .execute([ino.cast_signed()])?;
        }
        let Point {
            seq,
            lsn,
            epoch,
            hash,
        } = point;
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO chain(id, seq, lsn, epoch, hash) VALUES(1, ?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                seq.cast_signed(),
                lsn.cast_signed(),
                epoch.cast_signed(),
                hash.0
            ])?;
        transaction.commit()
    }

    /// Writes the live tables of this moment, which are none other, to a new file.
    pub(crate) fn copy_tables(&self, to: &Path) -> Result<()> {
        let to = to.to_str().ok_or(vfsd_backend::Errno::INVAL)?;
        self.db.execute("VACUUM INTO ?1", [to]).map_err(storage)?;
        let copy = schema::writer(Path::new(to)).map_err(storage)?;
        copy.execute_batch("PRAGMA journal_mode=WAL; DROP TABLE extent; DROP TABLE chain;")
            .map_err(storage)
    }

    /// Writes the image to a new file.
    pub(crate) fn copy(&self, to: &Path) -> Result<()> {
        let to = to.to_str().ok_or(vfsd_backend::Errno::INVAL)?;
        self.db.execute("VACUUM INTO ?1", [to]).map_err(storage)?;
        Ok(())
    }

    /// Makes a file that [`copy`](Self::copy) wrote one to be opened.
    pub(crate) fn take_copy(path: &Path) -> Result<()> {
        let db = schema::writer(path).map_err(storage)?;
        db.execute_batch("PRAGMA journal_mode=WAL;")
            .map_err(storage)
    }

    /// Looks into the image.
    pub(crate) fn look<T>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        look(&self.db).map_err(storage)
    }

    /// Brings all of it to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        tables::checkpoint(&self.db).map_err(storage)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u64) -> Frame {
        Frame {
            object: if seq.is_multiple_of(2) {
                ObjectId::Log(seq)
            } else {
                ObjectId::Segment { epoch: 3, seq }
            },
            offset: 64,
            stored: 10,
            length: 4096,
            crc: u32::MAX,
        }
    }

    /// Random pieces and holes, against an array that says for each byte where it lies.
    #[test]
    fn extents_are_what_the_pieces_say_and_never_overlap() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("shipped.sqlite");
        Shipping::create(&path).unwrap();
        let mut shipping = Shipping::open(&path).unwrap();
        let shipped = Shipped::new(&path);
        let mut random = 5_u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut places: Vec<Option<(Frame, u32)>> = vec![None; 5000];
        for seq in 1..400 {
            let offset = next(4900);
            let length = next(100.min(4900 - offset) + 1) + 1;
            let skip = u32::try_from(next(1000)).unwrap();
            let place = (next(4) > 0).then(|| (frame(seq), skip));
            let piece = Piece {
                ino: 7,
                offset,
                length,
                place,
            };
            let point = Point {
                seq,
                lsn: seq,
                epoch: 3,
                hash: ChainHash([9; 32]),
            };
            shipping.apply(&[], &[piece], point).unwrap();
            for at in 0..length {
                let slot = usize::try_from(offset + at).unwrap();
                places[slot] =
                    place.map(|(frame, skip)| (frame, skip + u32::try_from(at).unwrap()));
            }
            let mut told = vec![None; 5000];
            let mut end = 0;
            for extent in shipped.extents(7, &(0..5000)).unwrap() {
                assert!(extent.offset >= end && extent.length > 0);
                end = extent.range().end;
                for at in extent.range() {
                    let skip = extent.skip + u32::try_from(at - extent.offset).unwrap();
                    told[usize::try_from(at).unwrap()] = Some((extent.frame, skip));
                }
            }
            assert!(told == places, "{piece:?}");
        }
        drop(shipping);
        let again = Shipping::open(&path).unwrap();
        assert_eq!(
            (again.point().seq, again.point().hash),
            (399, ChainHash([9; 32]))
        );
    }
}
