//! The shipped image: what the bucket says up to a point of its chain, in tables of its own.
//!
//! They are the tables of the volume, and [`extent`](extents): where content lies in the bucket. Nothing brings them forward
//! but log objects that are in the bucket, each in one transaction. The live tables start from them on a host
//! that never had the volume, and a checkpoint is a copy of them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use vfsd_backend::{Error, Result};

use super::extents::{self, Extent, unsigned};
use crate::bucket::{ChainHash, Piece, Point};
use crate::meta::ahead::Ahead;
use crate::meta::journal::Lsn;
use crate::meta::{change, schema, tables};

/// Readers that are kept for the next who needs one.
const SPARE_READERS: usize = 8;

const CHAIN: &str = "
CREATE TABLE chain(id INTEGER PRIMARY KEY CHECK(id=1), seq INT NOT NULL, lsn INT NOT NULL, epoch INT NOT NULL, hash BLOB NOT NULL);
";

fn storage(error: rusqlite::Error) -> Error {
    Error::Storage(Box::new(error))
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
        self.read(|db| extents::ranges(db, ino, size))
    }

    /// The extents that have something of a range of a file, in their order.
    pub(crate) fn extents(&self, ino: u64, range: &Range<u64>) -> Result<Vec<Extent>> {
        self.read(|db| extents::within(db, ino, range))
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
        db.execute_batch(CHAIN).map_err(storage)?;
        db.execute_batch(extents::TABLE).map_err(storage)
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
    /// It is not the next one, a record is of an unknown form, or SQLite failed: then nothing is different.
    pub(crate) fn apply(
        &mut self,
        records: &[(Lsn, Vec<u8>)],
        pieces: &[Piece],
        point: Point,
    ) -> Result<()> {
        // What is left out once is never missed again.
        if point.seq != self.point.seq.saturating_add(1) {
            let (seq, known) = (point.seq, self.point.seq);
            let error = format!("log object {seq} of the volume does not follow {known}");
            return Err(std::io::Error::other(error).into());
        }
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
            extents::place(&transaction, piece)?;
        }
        for (ino, _) in ahead.nodes.iter().filter(|(_, row)| row.is_none()) {
            extents::remove(&transaction, *ino)?;
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
    use crate::bucket::{Frame, ObjectId};

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
