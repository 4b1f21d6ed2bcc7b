//! The live side of a volume in a bucket: what is newer here than there, and how it gets there.
//!
//! The volume is worked on in a directory of this host, as any other. A thread ships what changed:
//! a [cut] notes the state of an instant, the content of that instant goes into segments, and a log object tells
//! rows and places of content. [`shipped`] says what the bucket has, [`extents`] where; what is not here any more, or never was,
//! is [fetched](fetch) from there. What is left in objects of which little is needed is [moved](moving).

mod cache;
mod care;
mod check;
mod clean;
mod complete;
pub(crate) mod cut;
pub(crate) mod dirty;
#[cfg(test)]
mod dirty_tests;
pub(crate) mod extents;
mod fetch;
mod frozen;
pub(crate) mod holes;
mod lag;
mod local;
mod moving;
pub(crate) mod open;
mod packing;
mod pin;
mod published;
pub(crate) mod ranges;
pub(crate) mod readahead;
mod retention;
mod round;
mod rounds;
mod seen;
pub(crate) mod shipped;
mod shipper;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
mod uploads;
mod wanted;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use vfsd_backend::{Answer, Errno, Result};

use self::cache::Cache;
use self::dirty::Dirty;
use self::rounds::Rounds;
use self::shipped::Shipped;
use crate::bucket::{ObjectId, Remote};
use crate::core::Core;
use crate::inode::Inode;

pub use self::cache::{CacheUse, CacheWatch};
pub use self::check::{RemoteReport, RemoteStatus};
pub use self::lag::{Lag, LagWatch};
pub use self::local::host_boot;
pub use self::open::{Durability, RemoteOptions};

/// Requests for content at a time.
const FETCHES: usize = 32;

/// What a volume in a bucket has beside one in a directory.
#[derive(Debug)]
pub(crate) struct Live {
    /// Shared by who changes anything, for as long as that takes; alone by a cut.
    cut: RwLock<()>,
    pub(crate) dirty: Dirty,
    pub(crate) shipped: Shipped,
    pub(crate) rounds: Rounds,
    remote: Arc<Remote>,
    runtime: Handle,
    durability: Durability,
    /// It is a snapshot: nothing ever changes.
    frozen: bool,
    fetches: Semaphore,
    pub(crate) cache: Cache,
    /// Objects whose content is worth moving into others.
    sparse: Arc<Mutex<Vec<ObjectId>>>,
}

/// Held while something changes, so that a cut sees all of it or nothing.
#[derive(Debug, Default)]
pub(crate) struct Passing<'a>(
    #[expect(dead_code, reason = "held")] Option<RwLockReadGuard<'a, ()>>,
);

impl Live {
    fn new(shipped: Shipped, remote: Arc<Remote>, rounds: Rounds, options: &RemoteOptions) -> Self {
        Self {
            cut: RwLock::new(()),
            dirty: Dirty::default(),
            shipped,
            rounds,
            remote,
            runtime: options.runtime.clone(),
            durability: options.durability,
            frozen: false,
            fetches: Semaphore::new(FETCHES),
            cache: Cache::new(options.cache_size),
            sparse: Arc::default(),
        }
    }

    /// The same of a snapshot.
    fn frozen(self) -> Self {
        Self {
            frozen: true,
            ..self
        }
    }

    /// See [`Core::pass`].
    pub(crate) fn pass(&self) -> Passing<'_> {
        self.rounds.wait_for_room(|| self.dirty.bytes());
        self.pass_now()
    }

    /// See [`Core::pass_now`].
    pub(crate) fn pass_now(&self) -> Passing<'_> {
        Passing(Some(self.cut.read()))
    }

    /// Whether what is synced on this host outlives a power cut.
    pub(crate) fn is_durable_here(&self) -> bool {
        self.durability == Durability::Local
    }

    /// Whether changes still get into the bucket.
    ///
    /// # Errors
    /// EROFS when another daemon took the volume over, when it is not known how to ship it whole, and in a snapshot.
    pub(crate) fn check_owned(&self) -> Result<(), Errno> {
        match self.frozen || self.rounds.halted().is_some() {
            true => Err(Errno::ROFS),
            false => Ok(()),
        }
    }

    /// Whether content of an inode that is to be removed is on its way: then it is handed in again
    /// when it has arrived. Otherwise nothing of it will be shipped.
    pub(crate) fn is_on_its_way(&self, ino: u64, has_data: bool) -> bool {
        let on_its_way = self.dirty.is_frozen(ino);
        match on_its_way {
            true => self.rounds.remove_later(ino, has_data),
            false => self.dirty.forget(ino),
        }
        on_its_way
    }
}

impl Core {
    /// Whether nothing ever changes: it is a snapshot.
    pub(crate) fn is_frozen(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.frozen)
    }

    /// Makes all names and attributes durable, as far as the volume promises it.
    pub(crate) fn names_synced(&self) -> Answer<'_, ()> {
        self.synced(|| self.sync_meta())
    }

    /// Makes everything durable, as far as the volume promises it.
    pub(crate) fn all_synced(&self) -> Answer<'_, ()> {
        match self.live.as_deref() {
            // Who asks for it by name waits whatever the files' promise is.
            Some(live) => Answer::later(live.rounds.shipped()),
            None => Answer::blocking(|| self.sync_all()),
        }
    }

    fn synced<'a>(
        &'a self,
        on_this_host: impl FnOnce() -> Result<()> + Send + 'a,
    ) -> Answer<'a, ()> {
        let Some(live) = self.live.as_deref() else {
            return Answer::blocking(on_this_host);
        };
        match live.durability {
            Durability::Bucket => Answer::later(live.rounds.shipped()),
            Durability::Local => Answer::blocking(on_this_host),
            Durability::None => Answer::ok(()),
        }
    }
}

impl Inode {
    /// Makes content and row durable, and everything that was done before, as far as the volume
    /// promises it.
    pub(crate) fn synced(&self) -> Answer<'_, ()> {
        self.core.synced(|| self.sync())
    }
}
