//! The shipped image: what the bucket says up to a point of its chain, in tables of its own.
//!
//! They are the tables of the volume, and [`extent`](extents): where content lies in the bucket. Nothing brings them forward
//! but log objects that are in the bucket, each in one transaction. The live tables start from them on a host
//! that never had the volume, and a checkpoint is a copy of them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use vfsd_backend::{Error, FileKind, Result};

use super::complete::Defect;
use super::extents::{self, Extent, unsigned};
use crate::bucket::{ChainHash, LogObject, Piece, Point};
use crate::meta::ahead::Ahead;
use crate::meta::journal::Lsn;
use crate::meta::{NodeRow, change, schema, tables};

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

/// What a log object changes in the image, which is found to be complete.
#[derive(Debug)]
pub(crate) struct Step {
    ahead: Ahead,
    point: Point,
}

/// Why a log object cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Defect(#[from] Defect),
    #[error("{0}")]
    Storage(#[from] Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Defect(defect) => std::io::Error::other(defect).into(),
            Refused::Storage(error) => error,
        }
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

    /// Looks whether what a log object says, which would make this the image of `point`, is complete and fits.
    ///
    /// # Errors
    /// It is not the next one, a record is missing or of an unknown form, a piece is of no file or behind its end, or SQLite failed.
    pub(crate) fn prepare(
        &self,
        records: &[(Lsn, Vec<u8>)],
        pieces: &[Piece],
        point: Point,
    ) -> Result<Step, Refused> {
        self.check_follows(point)?;
        let defect = |what| Defect(format!("log object {} of the volume: {what}", point.seq));
        let mut expected = self.point.lsn.saturating_add(1)..=point.lsn;
        let mut ahead = Ahead::default();
        for (lsn, record) in records {
            if expected.next() != Some(*lsn) {
                return Err(defect(format!("record {lsn} does not follow the one before")).into());
            }
            let changes = change::decode(record)
                .map_err(|_| defect(format!("record {lsn} has an unknown form")))?;
            ahead.add(*lsn, changes);
        }
        if let Some(lsn) = expected.next() {
            return Err(defect(format!("record {lsn} is missing")).into());
        }
        ahead.last = point.lsn;
        let mut last: Option<(u64, Option<NodeRow>)> = None;
        for piece in pieces {
            let row = match &last {
                Some((ino, row)) if *ino == piece.ino => row,
                _ => {
                    &last
                        .insert((piece.ino, self.row_after(&ahead, piece.ino)?))
                        .1
                }
            };
            if !is_in_its_file(piece, row.as_ref()) {
                let what = format!(
                    "there is no place for content of inode {} at {}",
                    piece.ino, piece.offset
                );
                return Err(defect(what).into());
            }
        }
        Ok(Step { ahead, point })
    }

    /// The row of an inode as it will be.
    fn row_after(&self, ahead: &Ahead, ino: u64) -> Result<Option<NodeRow>> {
        match ahead.node(ino) {
            Some(row) => Ok(row.clone()),
            None => tables::node(&self.db, ino).map_err(storage),
        }
    }

    /// What is left out once is never missed again.
    fn check_follows(&self, point: Point) -> Result<(), Defect> {
        let (seq, known) = (point.seq, self.point.seq);
        match seq == known.saturating_add(1) {
            true => Ok(()),
            false => Err(Defect(format!(
                "log object {seq} of the volume does not follow {known}"
            ))),
        }
    }

    /// Takes in what a log object says.
    ///
    /// # Errors
    /// It is not the next one, or SQLite failed: then nothing is different.
    pub(crate) fn apply(&mut self, step: &Step, pieces: &[Piece]) -> Result<(), Refused> {
        self.check_follows(step.point)?;
        self.bring_forward(&step.ahead, pieces, step.point)
            .map_err(storage)?;
        self.point = step.point;
        Ok(())
    }

    /// Takes in a log object, which makes this the image of `point`.
    ///
    /// # Errors
    /// As those of [`prepare`](Self::prepare): then nothing is different.
    pub(crate) fn take_in(&mut self, object: &LogObject, point: Point) -> Result<(), Refused> {
        let step = self.prepare(&object.records, &object.pieces, point)?;
        self.apply(&step, &object.pieces)
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

/// Whether content may be where a piece says, in a file that is as its row says. A hole may be behind the end, and the size
/// of what has no name is not written while it is open.
fn is_in_its_file(piece: &Piece, row: Option<&NodeRow>) -> bool {
    let end = piece.offset.saturating_add(piece.length);
    row.is_some_and(|row| {
        row.kind == FileKind::Regular
            && (piece.place.is_none() || end <= row.size || row.links == 0)
    })
}

#[cfg(test)]
mod tests;
