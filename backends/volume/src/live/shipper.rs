//! The shipper: a thread that brings what changed into the bucket, one round after the other.
//!
//! A cut, then what it found on its way ([`Round`]), then the shipped image follows. A round that fails is tried again
//! from where it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vfsd_backend::Errno;

use super::Live;
use super::cache;
use super::care::Care;
use super::complete::Defect;
use super::cut::Cut;
use super::local::Local;
use super::moving::{Moved, Moving};
use super::open::Durability;
use super::round::Round;
use super::rounds::{Halt, Next};
use super::shipped::{Refused, Shipping, Step};
use crate::bucket::{Piece, ShipError, Unwritable};
use crate::core::Core;
use crate::meta::journal::Cursor;

/// After a failure a round is tried again after this time, and then after twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// No more content is moved in this time than [`Moving::part`] does: rounds come first.
const MOVE_EVERY: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// While a fault lasts it is told as often.
const TELL: Duration = Duration::from_secs(60);

/// Why an attempt did not bring a round into the bucket.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Bucket(#[from] ShipError),
    #[error("{0}")]
    Local(#[from] std::io::Error),
    #[error("{0}")]
    Defect(#[from] Defect),
}

impl Failure {
    /// Whether no further attempt mends it: what is to be appended is not complete, or in no place of the chain.
    fn is_defect(&self) -> bool {
        use ShipError::{Earlier, Stale};
        use Unwritable::{TooLarge, Unsound};
        matches!(
            self,
            Self::Defect(_)
                | Self::Bucket(
                    Earlier(..) | Stale | ShipError::Unwritable(Unsound(_) | TooLarge { .. })
                )
        )
    }
}

impl From<vfsd_backend::Error> for Failure {
    fn from(error: vfsd_backend::Error) -> Self {
        Self::Local(std::io::Error::other(error))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Defect(defect) => Self::Defect(defect),
            Refused::Storage(error) => error.into(),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Local(errno.into())
    }
}

/// The thread.
pub(super) struct Shipper {
    core: Arc<Core>,
    shipping: Shipping,
    records: Cursor,
    local: Local,
    failing: Failing,
    care: Care,
    /// What was found at a cut whose records could not be read yet.
    cut: Option<Cut>,
    /// The round that is under way, until the shipped image has it. Without it the bucket has a log object, or may have, that the
    /// shipped image misses: then nothing else may be appended.
    round: Option<Round>,
    /// As `round`, of content that is moved.
    move_under_way: Option<Moved>,
    /// Content that is moved when there is time.
    moving: Option<Moving>,
    /// When some was moved last.
    moved: Instant,
}

/// A fault that lasts.
#[derive(Debug, Default)]
struct Failing {
    pause: Duration,
    told: Option<Instant>,
}

impl Failing {
    fn again(&mut self, error: &dyn std::fmt::Display) -> Duration {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            tracing::warn!(%error, "volume: changes do not get into the bucket, trying again");
            self.told = Some(Instant::now());
        }
        self.pause = self
            .pause
            .saturating_mul(2)
            .clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.pause
    }

    fn over(&mut self) {
        if self.told.is_some() {
            tracing::info!("volume: changes get into the bucket again");
        }
        *self = Self::default();
    }
}

impl Shipper {
    pub(super) fn new(
        core: Arc<Core>,
        shipping: Shipping,
        records: Cursor,
        local: Local,
        care: Care,
    ) -> Self {
        Self {
            core,
            shipping,
            records,
            local,
            failing: Failing::default(),
            care,
            cut: None,
            round: None,
            move_under_way: None,
            moving: None,
            moved: Instant::now(),
        }
    }

    /// The thread's work.
    pub(super) fn run(mut self) {
        let core = self.core.clone();
        let Some(live) = core.live.as_deref() else {
            return;
        };
        loop {
            core.failpoints.reach("idle");
            if live.rounds.next() == Next::Stop {
                break;
            }
            core.failpoints.reach("round due");
            if !self.round(live) {
                break;
            }
            self.care
                .checkpoint_if_due(live, &self.shipping, &self.local);
            cache::trim_if_due(&self.core, live, self.local.layout());
            if !self.move_some(live) {
                break;
            }
        }
        if live.rounds.halted().is_some() {
            live.rounds.wait_for_stop();
        } else if self.finish(live) {
            live.rounds.close();
            tracing::debug!("volume: closed, everything is in the bucket");
        } else {
            tracing::warn!("volume: not everything is in the bucket; the next start here goes on");
        }
    }

    /// Brings what is left into the bucket and gives the volume back. False: not everything.
    fn finish(&mut self, live: &Live) -> bool {
        if !self.finish_what_was_begun(live) {
            return false;
        }
        loop {
            if !self.round(live) {
                return false;
            }
            if self.core.meta.last() == self.shipping.point().lsn {
                break;
            }
        }
        self.core.failpoints.reach("everything in the bucket");
        self.care.finish(live);
        let closed = live.runtime.block_on(live.remote.close());
        self.core.failpoints.reach("given back");
        let synced = || -> vfsd_backend::Result<()> {
            self.core.data.sync_all()?;
            self.core.meta.sync()?;
            self.shipping.sync()?;
            self.local.write_session(live.remote.epoch(), true)?;
            Ok(())
        };
        match closed
            .map_err(|error| error.to_string())
            .and_then(|()| synced().map_err(|error| error.to_string()))
        {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "volume: it was not closed as it should be");
                false
            }
        }
    }

    /// What the stop came in between of. False: it is time to stop still, or another daemon took the volume over.
    fn finish_what_was_begun(&mut self, live: &Live) -> bool {
        if let Some(moved) = self.move_under_way.take()
            && !self.append_moved(live, moved)
        {
            return false;
        }
        !self.is_under_way() || self.round(live)
    }

    fn is_under_way(&self) -> bool {
        self.cut.is_some() || self.round.is_some()
    }

    /// The round that is under way, or else everything up to a new cut. False: it is time to stop, or another daemon took the
    /// volume over.
    fn round(&mut self, live: &Live) -> bool {
        if !self.is_under_way() {
            live.rounds.begin();
        }
        loop {
            match self.attempt(live) {
                Ok(()) => break,
                Err(error) if self.goes_on_after(live, &error) => {}
                Err(_) => return false,
            }
        }
        self.failing.over();
        let Some(round) = self.round.take() else {
            return false;
        };
        let known = self.arrived(live, &round);
        if !known {
            self.round = Some(round);
        }
        known
    }

    /// Waits until what has failed is to be tried again. False: it is time to stop, or another daemon took the volume over.
    fn goes_on_after(&mut self, live: &Live, error: &Failure) -> bool {
        let directory = self.local.path().display();
        if let Failure::Bucket(ShipError::Fenced) = error {
            tracing::error!(
                %directory,
                "volume: another daemon took it over; nothing more is written, and what was not in the bucket stays here"
            );
            live.rounds.halt(Halt::Fenced);
            return false;
        }
        if error.is_defect() {
            tracing::error!(
                %error,
                %directory,
                "volume: what is to be stored is not whole, which is a defect of vfsd; nothing more is written, and what was not in \
                 the bucket stays here until vfsd is started again"
            );
            live.rounds.halt(Halt::Defect);
            return false;
        }
        live.rounds.failed();
        let pause = self.failing.again(error);
        live.rounds.pause(pause) != Next::Stop
    }

    /// Goes on with a round from where it is.
    fn attempt(&mut self, live: &Live) -> Result<(), Failure> {
        if self.round.is_none() {
            let made = match self.cut.take() {
                Some(cut) => cut,
                None => live.make_cut(&self.core)?,
            };
            match self.records.read_to(made.last) {
                Ok(records) => self.round = Some(Round::new(made, records)),
                Err(error) => {
                    self.cut = Some(made);
                    return Err(error.into());
                }
            }
        }
        self.core.failpoints.reach("cut made");
        match &mut self.round {
            Some(round) if !round.is_empty() => round.ship(live, &self.core, &self.shipping),
            _ => Ok(()),
        }
    }

    /// Moves some content out of objects of which little is needed, if there is any. False: it is time to stop, or another
    /// daemon took the volume over.
    fn move_some(&mut self, live: &Live) -> bool {
        if self.moved.elapsed() < MOVE_EVERY {
            return true;
        }
        let sparse = std::mem::take(&mut *live.sparse.lock());
        if !sparse.is_empty() {
            match Moving::out_of(sparse, &self.shipping) {
                Ok(moving) => self.moving = Some(moving),
                Err(error) => {
                    tracing::warn!(%error, "volume: content is not moved out of sparse objects");
                }
            }
        }
        let Some(moving) = &mut self.moving else {
            return true;
        };
        let part = moving.part(
            &live.remote,
            (&live.shipped, &self.shipping),
            &live.runtime,
            &self.core.failpoints,
        );
        self.moved = Instant::now();
        match part {
            Ok(Some(moved)) => self.append_moved(live, moved),
            Ok(None) => {
                self.moving = None;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "volume: content is not moved out of sparse objects");
                // The rest may be whole.
                if !error.is_damage() {
                    self.moving = None;
                }
                true
            }
        }
    }

    /// Tells where content lies now. Nothing else can be appended before the bucket has answered, and the shipped image knows.
    /// False: it is time to stop, or another daemon took the volume over.
    fn append_moved(&mut self, live: &Live, moved: Moved) -> bool {
        let known = self.try_append_moved(live, &moved);
        if !known {
            self.move_under_way = Some(moved);
        }
        known
    }

    fn try_append_moved(&mut self, live: &Live, moved: &Moved) -> bool {
        loop {
            let appended = live.runtime.block_on(live.remote.append(&moved.sealed));
            match appended.map_err(Failure::from) {
                Ok(_) => break,
                Err(error) if self.goes_on_after(live, &error) => {}
                Err(_) => return false,
            }
        }
        self.failing.over();
        self.core.failpoints.reach("move in the bucket");
        if !self.bring_forward(live, &moved.step, &moved.pieces) {
            return false;
        }
        self.care.logged(moved.sealed.bytes());
        self.core.failpoints.reach("shipped image knows the move");
        true
    }

    /// Tells the shipped image what the bucket has by now, as soon as there is room on the disk. False: it is time to stop.
    fn bring_forward(&mut self, live: &Live, step: &Step, pieces: &[Piece]) -> bool {
        // No round begins meanwhile. The next start finds it in the bucket.
        while let Err(refused) = self.shipping.apply(step, pieces) {
            if !self.goes_on_after(live, &refused.into()) {
                return false;
            }
        }
        self.failing.over();
        true
    }

    /// The bucket has it: wakes who waits, and brings the shipped image forward.
    fn arrived(&mut self, live: &Live, round: &Round) -> bool {
        self.core.failpoints.reach("in the bucket");
        for file in &round.cut.files {
            self.keep_through_power_cut(live, file.ino);
        }
        live.rounds.done();
        if let (Some(sealed), Some(step)) = (&round.sealed, &round.step) {
            if !self.bring_forward(live, step, &round.pieces) {
                return false;
            }
            self.care.logged(sealed.bytes());
        }
        self.core.failpoints.reach("shipped image forward");
        live.cache.grown(round.content);
        for file in &round.cut.files {
            file.map.shipped(&live.dirty);
        }
        live.rounds.has_room();
        self.core.meta.keep_after(self.shipping.point().lsn);
        self.core.failpoints.reach("content no longer dirty");
        for (ino, has_data) in live.rounds.take_removable() {
            self.core.remove_inode(ino, has_data);
        }
        true
    }

    /// Where what is here outlives a power cut: content that the bucket has may be older there than what is written over it
    /// next, but it is not to be lost here with that.
    fn keep_through_power_cut(&self, live: &Live, ino: u64) {
        if live.durability == Durability::Local
            && let Err(error) = self.core.sync_data(ino)
        {
            tracing::warn!(ino, %error, "volume: content is not durable on this host");
        }
    }
}
