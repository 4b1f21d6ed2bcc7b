//! Rounds: when the next cut is due, who waits for it, and how far the bucket has come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use vfsd_backend::{Errno, Result};

use super::lag::Lag;

/// So much content is shipped without a further wait.
const PLENTY_BYTES: u64 = 16 << 20;
/// Above this who writes waits.
const MOST_BYTES: u64 = 256 << 20;
/// So many bytes of redo records are shipped without a further wait.
const PLENTY_RECORDS: u64 = 8 << 20;
/// Above as many since the last cut who changes anything waits: one log object takes 64 MiB of them.
const MOST_RECORDS: u64 = 24 << 20;

/// What the shipper and those who wait for it tell each other.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// What changes is shipped after this time at the latest.
    lag: Duration,
    state: Mutex<State>,
    /// For the shipper.
    work: Condvar,
    /// For who waits for room.
    room: Condvar,
    /// For who waits for a round. Counts what happened.
    news: watch::Sender<u64>,
    /// Something changed since the last cut.
    touched: AtomicBool,
    /// Enough changed for a round.
    plenty: AtomicBool,
    halted: OnceLock<Halt>,
    /// Everything is in the bucket, and the volume was given back.
    closed: AtomicBool,
    /// Bytes of redo records since the last cut, about.
    recorded: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Rounds whose cut was begun.
    begun: u64,
    /// Rounds that are in the bucket.
    done: u64,
    /// A round that somebody waits for.
    wanted: u64,
    /// How many attempts failed.
    failures: u64,
    /// When something changed first after the last cut.
    since: Option<Instant>,
    /// When something changed first of what is on its way.
    cut_since: Option<Instant>,
    stop: bool,
    /// Inodes to be removed once their content is in the bucket.
    to_remove: Vec<(u64, bool)>,
}

/// Why nothing is shipped any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    /// Another daemon took the volume over.
    Fenced,
    /// What is to be shipped is not complete.
    Defect,
}

impl Halt {
    /// What who waits for the bucket is told.
    fn errno(self) -> Errno {
        match self {
            Self::Fenced => Errno::STALE,
            Self::Defect => Errno::IO,
        }
    }
}

/// What the shipper is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Ship,
    /// The last time.
    Stop,
}

impl Rounds {
    pub(super) fn new(lag: Duration) -> Self {
        Self {
            lag,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            news: watch::Sender::new(0),
            touched: AtomicBool::new(false),
            plenty: AtomicBool::new(false),
            halted: OnceLock::new(),
            closed: AtomicBool::new(false),
            recorded: AtomicU64::new(0),
        }
    }

    /// Something changed.
    pub(crate) fn touched(&self) {
        if !self.touched.swap(true, Ordering::AcqRel) {
            self.state.lock().since.get_or_insert_with(Instant::now);
            self.work.notify_one();
        }
    }

    /// Content changed, and so many bytes are dirty.
    pub(crate) fn content_changed(&self, dirty: u64) {
        self.touched();
        if dirty > PLENTY_BYTES {
            self.hurry();
        }
    }

    /// A round is due now.
    pub(super) fn hurry(&self) {
        if !self.plenty.swap(true, Ordering::AcqRel) {
            drop(self.state.lock());
            self.work.notify_one();
        }
    }

    /// Waits while too much is on its way.
    pub(super) fn wait_for_room(&self, dirty: impl Fn() -> u64) {
        let full = || dirty() > MOST_BYTES || self.recorded.load(Ordering::Relaxed) > MOST_RECORDS;
        if !full() {
            return;
        }
        self.hurry();
        let mut state = self.state.lock();
        while full() && !state.stop && self.halted().is_none() {
            self.room.wait(&mut state);
        }
    }

    /// A redo record of about so many bytes was written.
    pub(crate) fn recorded(&self, bytes: u64) {
        let before = self.recorded.fetch_add(bytes, Ordering::Relaxed);
        self.touched();
        if before > PLENTY_RECORDS {
            self.hurry();
        }
    }

    /// Whether nothing is shipped any more, and why.
    pub(super) fn halted(&self) -> Option<Halt> {
        self.halted.get().copied()
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether everything is in the bucket, and the volume was given back.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing is shipped any more.
    pub(super) fn halt(&self, why: Halt) {
        let _ = self.halted.set(why);
        self.tell(|_| ());
    }

    /// An inode is to be removed when its content is in the bucket.
    pub(super) fn remove_later(&self, ino: u64, has_data: bool) {
        self.state.lock().to_remove.push((ino, has_data));
    }

    /// Inodes that may be removed now.
    pub(super) fn take_removable(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut self.state.lock().to_remove)
    }

    /// Waits until all that was done before is in the bucket.
    ///
    /// # Errors
    /// EIO when an attempt fails meanwhile; the next one may succeed. ESTALE when another daemon took the volume over, and
    /// EIO for good when what is to be shipped is not complete.
    pub(super) async fn shipped(&self) -> Result<()> {
        let mut news = self.news.subscribe();
        let (ticket, failures) = {
            let mut state = self.state.lock();
            if let Some(halt) = self.halted() {
                return Err(halt.errno().into());
            }
            // Nothing since the last cut: then that one will do.
            let more = u64::from(self.touched.load(Ordering::Acquire));
            let ticket = state.begun.saturating_add(more);
            if state.done >= ticket {
                return Ok(());
            }
            state.wanted = state.wanted.max(ticket);
            (ticket, state.failures)
        };
        self.work.notify_one();
        loop {
            {
                let state = self.state.lock();
                if state.done >= ticket {
                    return Ok(());
                }
                if let Some(halt) = self.halted() {
                    return Err(halt.errno().into());
                }
                if state.failures != failures {
                    return Err(Errno::IO.into());
                }
            }
            if news.changed().await.is_err() {
                return Err(Errno::IO.into());
            }
        }
    }

    /// Waits until a round is due.
    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return Next::Stop;
            }
            if state.wanted > state.begun || self.plenty.load(Ordering::Acquire) {
                return Next::Ship;
            }
            match state.since {
                None => self.work.wait(&mut state),
                Some(since) => {
                    let left = self.lag.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return Next::Ship;
                    }
                    self.work.wait_for(&mut state, left);
                }
            }
        }
    }

    /// After a failure: waits until it is worth another attempt.
    pub(super) fn pause(&self, length: Duration) -> Next {
        let mut state = self.state.lock();
        if !state.stop {
            self.work.wait_for(&mut state, length);
        }
        match state.stop {
            true => Next::Stop,
            false => Next::Ship,
        }
    }

    /// Waits until nobody uses the volume any more.
    pub(super) fn wait_for_stop(&self) {
        let mut state = self.state.lock();
        while !state.stop {
            self.work.wait(&mut state);
        }
    }

    /// A round begins: who asks from now on waits for the next one.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.begun = state.begun.saturating_add(1);
    }

    /// By who has the cut alone: what changes from now on belongs to the next round.
    pub(super) fn cut(&self) {
        self.touched.store(false, Ordering::Release);
        self.plenty.store(false, Ordering::Release);
        self.recorded.store(0, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.cut_since = state.cut_since.take().or(state.since.take());
        state.since = None;
        drop(state);
        self.room.notify_all();
    }

    /// Everything of the round that was begun is in the bucket.
    pub(super) fn done(&self) {
        self.tell(|state| {
            state.done = state.begun;
            state.cut_since = None;
        });
    }

    /// How far the bucket is behind, but for the bytes.
    pub(super) fn lag(&self) -> Lag {
        let state = self.state.lock();
        let oldest = state.cut_since.or(state.since);
        Lag {
            bytes: 0,
            age: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
            rounds: state.done,
            failures: state.failures,
            fenced: self.halted() == Some(Halt::Fenced),
        }
    }

    /// Content that was on its way is no longer counted.
    pub(super) fn has_room(&self) {
        self.tell(|_| ());
    }

    /// An attempt failed.
    pub(super) fn failed(&self) {
        self.tell(|state| state.failures = state.failures.saturating_add(1));
    }

    /// What follows after the last user.
    pub(crate) fn stop(&self) {
        self.tell(|state| state.stop = true);
        self.work.notify_one();
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.room.notify_all();
        self.news
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}
