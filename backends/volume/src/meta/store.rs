//! The store of all rows: where they are found, and how they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use vfsd_backend::{Errno, Error, Result};

use super::ahead::{self, Ahead};
use super::change::{self, Change};
use super::journal::{self, Journal, Lsn, Purpose};
use super::row::{EntryRow, NodeRow};
use super::schema;
use super::tables::{self, Attribute, Figures, Named};

/// Changes wait that long for more to be applied with them.
const GATHER: Duration = Duration::from_millis(20);
/// More than this is applied without a wait.
const PLENTY: usize = 4096;
/// Above this operations wait until the tables have caught up.
const MOST_CHANGES: usize = 200_000;
/// See [`MOST_CHANGES`]: names and values.
const MOST_BYTES: usize = 32 << 20;
/// A checkpoint is made when the journal is this long, or after a time without changes.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// See [`CHECKPOINT_BYTES`].
const CHECKPOINT_IDLE: Duration = Duration::from_secs(10);
/// After a failure of SQLite (a full disk) it is tried again after this time.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });
/// Readers that are kept for the next who needs one.
const SPARE_READERS: usize = 8;

#[derive(Debug)]
pub(crate) struct Meta {
    journal: Journal,
    waiting: Mutex<Waiting>,
    /// There is something to apply, or somebody waits for it, or it is time to stop.
    work: Condvar,
    /// Something was applied.
    applied: Condvar,
    readers: Mutex<Vec<Connection>>,
    path: PathBuf,
    newest_inode: AtomicU64,
    /// Records after this one stay in the journal, whether the tables have them or not.
    kept_after: AtomicU64,
}

/// What the tables do not have yet.
#[derive(Debug, Default)]
struct Waiting {
    /// Newer than `applying`.
    next: Ahead,
    /// What the thread is about to apply.
    applying: Arc<Ahead>,
    /// The last record that is in the tables.
    applied: Lsn,
    /// How many wait for `applied`.
    impatient: usize,
    /// SQLite failed at the last attempt.
    failing: bool,
    stop: bool,
}

fn storage(error: rusqlite::Error) -> Error {
    Error::Storage(Box::new(error))
}

/// Makes empty tables and an empty journal.
pub(crate) fn create(database: &Path, journal: &Path) -> Result<()> {
    std::fs::create_dir(journal)?;
    schema::create(database).map_err(storage)
}

/// How much is in the tables, which may be in use.
pub(crate) fn figures(database: &Path) -> Result<Figures> {
    let db = schema::reader(database).map_err(storage)?;
    tables::figures(&db).map_err(storage)
}

/// The last record that is in the tables.
pub(crate) fn applied(database: &Path) -> Result<Lsn> {
    let db = schema::writer(database).map_err(storage)?;
    tables::state(&db, tables::APPLIED).map_err(storage)
}

impl Meta {
    /// Brings the tables up to what the journal has, and begins a new journal. Also starts the thread that
    /// applies records. Records after `kept_after` stay in the journal until [`Meta::keep_after`] lets go of
    /// them.
    pub(crate) fn open(
        database: &Path,
        folder: &Path,
        kept_after: Option<Lsn>,
    ) -> Result<(Arc<Self>, JoinHandle<()>)> {
        let mut db = schema::writer(database).map_err(storage)?;
        let last = recover(&mut db, folder)?;
        match kept_after {
            None => journal::remove(folder)?,
            Some(lsn) if lsn >= last => journal::remove(folder)?,
            Some(_) => {}
        }
        let newest = tables::state(&db, tables::NEWEST_INODE).map_err(storage)?;
        let meta = Arc::new(Self {
            journal: Journal::begin(folder, last)?,
            waiting: Mutex::new(Waiting {
                applied: last,
                ..Waiting::default()
            }),
            work: Condvar::new(),
            applied: Condvar::new(),
            readers: Mutex::default(),
            path: database.to_owned(),
            newest_inode: AtomicU64::new(newest),
            kept_after: AtomicU64::new(kept_after.unwrap_or(Lsn::MAX)),
        });
        let applier = meta.clone();
        let span = tracing::Span::current();
        let thread = std::thread::Builder::new()
            .name("volume-meta".to_owned())
            .spawn(move || span.in_scope(|| applier.apply_all(db)))?;
        Ok((meta, thread))
    }

    /// Lets the thread apply what is left and end. Nothing may be committed any more.
    pub(crate) fn close(&self) {
        self.waiting.lock().stop = true;
        self.work.notify_all();
    }

    /// A number that no inode ever had.
    pub(crate) fn new_inode(&self) -> u64 {
        // 63 bits do not run out: at a billion a second they last for centuries.
        self.newest_inode
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    /// Does all changes or none, and answers the number of their record. They are in the host's page cache
    /// then, and found by whoever asks.
    ///
    /// # Errors
    /// ENOSPC or EIO as the host's file system says; then nothing has changed.
    pub(crate) fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<Lsn> {
        self.wait_for_room()?;
        let record = change::encode(&changes);
        let lsn = self.journal.append(&record, purpose, |lsn| {
            let mut waiting = self.waiting.lock();
            let was_empty = waiting.next.is_empty();
            waiting.next.add(lsn, changes);
            if was_empty || waiting.next.changes >= PLENTY {
                self.work.notify_one();
            }
        })?;
        Ok(lsn)
    }

    /// Number of the last record.
    pub(crate) fn last(&self) -> Lsn {
        self.journal.last()
    }

    /// The last record that is known to be on the disk.
    #[cfg(test)]
    pub(crate) fn synced(&self) -> Lsn {
        self.journal.synced()
    }

    /// Records up to this one need not stay in the journal.
    pub(crate) fn keep_after(&self, lsn: Lsn) {
        self.kept_after.store(lsn, Ordering::Release);
    }

    /// Waits until everything that was committed is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.journal.sync(self.journal.last())?)
    }

    /// While SQLite fails, what is ahead of it grows up to a limit; then changes fail.
    fn wait_for_room(&self) -> Result<()> {
        let mut waiting = self.waiting.lock();
        while waiting.next.changes > MOST_CHANGES || waiting.next.bytes > MOST_BYTES {
            if waiting.failing {
                return Err(Errno::NOSPC.into());
            }
            self.work.notify_one();
            self.applied.wait(&mut waiting);
        }
        Ok(())
    }

    /// Waits until the tables have all that was committed before.
    ///
    /// # Errors
    /// EIO when SQLite fails: nobody knows for how long.
    pub(crate) fn catch_up(&self) -> Result<()> {
        let last = self.journal.last();
        let mut waiting = self.waiting.lock();
        if waiting.applied >= last {
            return Ok(());
        }
        waiting.impatient = waiting.impatient.saturating_add(1);
        self.work.notify_one();
        while waiting.applied < last && !waiting.failing && !waiting.stop {
            self.applied.wait(&mut waiting);
        }
        waiting.impatient = waiting.impatient.saturating_sub(1);
        if waiting.applied < last {
            return Err(Errno::IO.into());
        }
        Ok(())
    }

    /// Looks into the tables.
    pub(crate) fn read<T>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let spare = self.readers.lock().pop();
        let reader = match spare {
            Some(reader) => reader,
            None => schema::reader(&self.path).map_err(storage)?,
        };
        let found = look(&reader).map_err(storage);
        let mut readers = self.readers.lock();
        if readers.len() < SPARE_READERS {
            readers.push(reader);
        }
        found
    }

    /// Looks at what is ahead of the tables, newest first.
    fn ahead<T>(&self, look: impl Fn(&Ahead) -> Option<T>) -> Option<T> {
        let waiting = self.waiting.lock();
        look(&waiting.next).or_else(|| look(&waiting.applying))
    }

    pub(crate) fn node(&self, ino: u64) -> Result<Option<NodeRow>> {
        match self.ahead(|ahead| ahead.node(ino).cloned()) {
            Some(row) => Ok(row),
            None => self.read(|db| tables::node(db, ino)),
        }
    }

    pub(crate) fn entry(&self, parent: u64, name: &[u8]) -> Result<Option<EntryRow>> {
        match self.ahead(|ahead| ahead.entry(parent, name)) {
            Some(row) => Ok(row),
            None => self.read(|db| tables::entry(db, parent, name)),
        }
    }

    /// Up to `count` entries of a directory after `cookie`, in the order of their cookies.
    pub(crate) fn entries(&self, parent: u64, cookie: u64, count: u64) -> Result<Vec<Named>> {
        match self.catch_up() {
            Ok(()) => self.read(|db| tables::entries(db, parent, cookie, count)),
            Err(_) => {
                self.read_behind(|db, ahead| ahead::entries_over(db, ahead, parent, cookie, count))
            }
        }
    }

    pub(crate) fn attributes(&self, ino: u64) -> Result<Vec<Attribute>> {
        match self.catch_up() {
            Ok(()) => self.read(|db| tables::attributes(db, ino)),
            Err(_) => self.read_behind(|db, ahead| ahead::attributes_over(db, ahead, ino)),
        }
    }

    /// Looks into the tables while SQLite cannot bring them forward, as on a full disk, and at what is ahead of them, older
    /// first. Should an attempt succeed just now, the tables have some of that, too.
    fn read_behind<T>(
        &self,
        look: impl FnOnce(&Connection, [&Ahead; 2]) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let waiting = self.waiting.lock();
        self.read(|db| look(db, [&waiting.applying, &waiting.next]))
    }

    /// The thread's work.
    fn apply_all(&self, mut db: Connection) {
        let mut journal_at_checkpoint: Lsn = self.waiting.lock().applied;
        // What stays in the journal though the tables have it is no reason for a checkpoint.
        let mut kept: u64 = 0;
        loop {
            let (ahead, stop) = self.next_to_apply(journal_at_checkpoint);
            // What comes after that must not be in the tables without it.
            if !ahead.is_empty() && !self.apply(&mut db, &ahead) {
                return;
            }
            let applied = self.waiting.lock().applied;
            let idle = ahead.is_empty() && applied > journal_at_checkpoint;
            if idle || self.journal.bytes().saturating_sub(kept) > CHECKPOINT_BYTES {
                match self.checkpoint(&db, applied) {
                    Ok(true) => {
                        journal_at_checkpoint = applied;
                        if self.kept_after.load(Ordering::Acquire) < applied {
                            kept = self.journal.bytes();
                        }
                    }
                    Ok(false) if stop => return,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "volume: checkpoint failed");
                        if stop {
                            return;
                        }
                        std::thread::sleep(RETRY);
                    }
                }
            } else if stop && ahead.is_empty() {
                return;
            }
        }
    }

    /// Waits for something to apply, and takes it. Nothing: it is time for a checkpoint, or to stop.
    fn next_to_apply(&self, checkpoint: Lsn) -> (Arc<Ahead>, bool) {
        let mut waiting = self.waiting.lock();
        let idle_since = Instant::now();
        while waiting.next.is_empty() && !waiting.stop {
            if waiting.applied == checkpoint {
                self.work.wait(&mut waiting);
                continue;
            }
            let timeout = CHECKPOINT_IDLE.saturating_sub(idle_since.elapsed());
            if timeout.is_zero() {
                break;
            }
            self.work.wait_for(&mut waiting, timeout);
        }
        let gathered_since = Instant::now();
        while !waiting.next.is_empty()
            && waiting.next.changes < PLENTY
            && waiting.impatient == 0
            && !waiting.stop
        {
            let timeout = GATHER.saturating_sub(gathered_since.elapsed());
            if timeout.is_zero() {
                break;
            }
            self.work.wait_for(&mut waiting, timeout);
        }
        waiting.applying = Arc::new(std::mem::take(&mut waiting.next));
        (waiting.applying.clone(), waiting.stop)
    }

    /// Brings the tables forward. False: SQLite fails, and it is time to stop; the journal has it for the next start.
    fn apply(&self, db: &mut Connection, ahead: &Ahead) -> bool {
        loop {
            match tables::apply(db, ahead) {
                Ok(()) => break,
                Err(error) => {
                    // It is in the journal, so that nothing is lost: not even if this never succeeds.
                    tracing::error!(%error, "volume: SQLite failed, trying again");
                    let mut waiting = self.waiting.lock();
                    waiting.failing = true;
                    self.applied.notify_all();
                    if waiting.stop {
                        return false;
                    }
                    drop(waiting);
                    std::thread::sleep(RETRY);
                }
            }
        }
        let mut waiting = self.waiting.lock();
        waiting.applied = ahead.last;
        waiting.applying = Arc::default();
        waiting.failing = false;
        self.applied.notify_all();
        true
    }

    /// Brings the tables to the disk, and lets go of the journal's files that they replace.
    fn checkpoint(&self, db: &Connection, applied: Lsn) -> Result<bool> {
        let done = tables::checkpoint(db).map_err(storage)?;
        if done {
            let kept_after = self.kept_after.load(Ordering::Acquire);
            self.journal.trim(applied.min(kept_after))?;
        }
        Ok(done)
    }
}

/// Applies what the journal has and the tables have not, after which the journal is not needed for them. Answers
/// the last record.
fn recover(db: &mut Connection, folder: &Path) -> Result<Lsn> {
    let applied = tables::state(db, tables::APPLIED).map_err(storage)?;
    let mut ahead = Ahead::default();
    let last = journal::read(folder, applied, |lsn, record| {
        let changes = change::decode(record).map_err(|_| {
            io::Error::other(format!("record {lsn} of the journal has an unknown form"))
        })?;
        ahead.add(lsn, changes);
        if ahead.changes > MOST_CHANGES || ahead.bytes > MOST_BYTES {
            let full = std::mem::take(&mut ahead);
            tables::apply(db, &full).map_err(io::Error::other)?;
        }
        Ok(())
    })?;
    if !ahead.is_empty() {
        tables::apply(db, &ahead).map_err(storage)?;
    }
    // The journal may go only when the tables are on the disk.
    if !tables::checkpoint(db).map_err(storage)? {
        return Err(io::Error::other("another process reads the volume's tables").into());
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
