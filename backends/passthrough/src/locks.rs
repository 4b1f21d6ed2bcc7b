//! Advisory locks, held on the host so that they exclude host processes and other guests.
//!
//! A POSIX lock of the guest is an open-file-description lock (fcntl_locking(2)) on a descriptor that is
//! kept for its owner and its file: owners exclude each other, and all locks of an owner end when its
//! descriptor is closed. A flock of the guest is one on the open file's own descriptor.
//!
//! An owner's locks end when the guest flushes them, as it does when a process closes the file. An
//! open-file-description lock of the guest has an owner that is never flushed: the open file. So the locks of
//! an owner end with the last of the open files through which it locked, too.
//!
//! Nobody waits for a lock in a thread. A wait tries again whenever this daemon has released a lock of
//! the file, and from time to time for locks that others on the host hold.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use vfsd_backend::posix::LockBudget;
use vfsd_backend::{Answer, Errno, HeldLock, LockKind, LockOwner, LockRequest, LockStyle};

use crate::budget::Descriptor;
use crate::credentials::check_thread;
use crate::inode::Inode;
use crate::lock_ranges::LockRanges;
use crate::share::{Share, no_descriptor};
use crate::syscalls::{get_ofd_lock, set_ofd_lock};

type Result<T> = std::result::Result<T, Errno>;

/// How long a wait for a lock of a host process sleeps first, and at most.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// The locks that this daemon's guest has on one file.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    owners: Mutex<HashMap<LockOwner, Owner>>,
    released: Notify,
}

/// Somebody with POSIX locks on the file.
#[derive(Debug)]
struct Owner {
    descriptor: Arc<Descriptor>,
    /// The open files through which it locked, by their own descriptors.
    files: BTreeSet<RawFd>,
    held: LockRanges,
    /// The process in the guest that locked last.
    pid: u32,
    /// To which its ranges and open files count.
    budget: Arc<LockBudget>,
}

impl Owner {
    fn weight(&self) -> usize {
        self.held.len().saturating_add(self.files.len())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.budget.give_back(self.weight());
    }
}

/// The lock tables of a share, by the addresses of their nodes: of many files few are ever locked.
#[derive(Debug)]
pub(crate) struct LockTables {
    tables: Mutex<HashMap<usize, Arc<LockTable>>>,
    budget: Arc<LockBudget>,
}

impl Default for LockTables {
    fn default() -> Self {
        Self {
            tables: Mutex::default(),
            budget: LockBudget::new(LockBudget::USUAL),
        }
    }
}

fn address(node: &Inode) -> usize {
    std::ptr::from_ref(node).addr()
}

impl LockTables {
    /// Forgets the table of a node that is being dropped.
    pub(crate) fn remove(&self, node: &Inode) {
        if node.has_locks.load(Ordering::Relaxed) {
            let removed = self.tables.lock().remove(&address(node));
            drop(removed);
        }
    }
}

impl Inode {
    /// The locks of this file.
    pub(crate) fn locks(&self) -> Arc<LockTable> {
        self.has_locks.store(true, Ordering::Relaxed);
        let mut tables = self.share().locks.tables.lock();
        tables.entry(address(self)).or_default().clone()
    }

    /// The locks of this file, if there ever was one.
    pub(crate) fn locks_if_any(&self) -> Option<Arc<LockTable>> {
        self.has_locks.load(Ordering::Relaxed).then(|| self.locks())
    }
}

/// The node of an open file, which wakes those who wait for a lock of it when the open file, and with it
/// its flock, is gone.
#[derive(Debug)]
pub(crate) struct WakeWaiters(pub(crate) Arc<Inode>);

impl Drop for WakeWaiters {
    fn drop(&mut self) {
        if let Some(locks) = self.0.locks_if_any() {
            locks.released.notify_waiters();
        }
    }
}

impl LockTable {
    /// Sets or releases a lock through `file`, an open file of the table's inode. `asks_others` says that
    /// the file system may ask another machine or program, and so may be kept waiting for each answer.
    pub(crate) fn set<'a>(
        self: Arc<Self>,
        share: &'a Share,
        file: BorrowedFd<'a>,
        request: LockRequest,
        asks_others: bool,
    ) -> Answer<'a, ()> {
        let mut attempt = Attempt {
            table: self,
            share,
            file,
            request,
            asks_others,
            spare: None,
        };
        let waits = request.wait && request.kind.is_some();
        let first = move || match attempt.make() {
            Err(Errno::AGAIN) if waits => Ok(Some(attempt)),
            other => Ok(other.map(|()| None)?),
        };
        let first = match asks_others {
            true => Answer::brief(first),
            false => Answer::now(first),
        };
        first.then(|tried| match tried {
            Ok(Some(mut attempt)) => Answer::later(async move { Ok(attempt.wait().await?) }),
            other => Answer::ready(other.map(drop)),
        })
    }

    /// The lock in the way of a POSIX lock.
    pub(crate) fn test(
        &self,
        share: &Share,
        file: BorrowedFd<'_>,
        request: &LockRequest,
    ) -> Result<Option<HeldLock>> {
        check_thread()?;
        let (LockStyle::Posix, Some(kind)) = (request.style, request.kind) else {
            return Err(Errno::INVAL);
        };
        let owners = self.owners.lock();
        let foreign = match owners.get(&request.owner) {
            // Through the owner's own descriptor its own locks are not in the way.
            Some(owner) => get_ofd_lock(owner.descriptor.as_fd(), kind, request.range)?,
            None => {
                let descriptor = open_for_locks(share, file)?;
                get_ofd_lock(descriptor.as_fd(), kind, request.range)?
            }
        };
        Ok(foreign.map(|lock| HeldLock {
            kind: lock.kind,
            range: lock.range,
            pid: owners
                .iter()
                .filter(|(owner, _)| **owner != request.owner)
                .find(|(_, owner)| owner.held.cover(lock.range, lock.kind))
                .map_or(0, |(_, owner)| owner.pid),
        }))
    }

    /// Ends all POSIX locks of the owners that locked through `file`, which is about to be closed, and
    /// through no other open file.
    pub(crate) fn close_file(&self, file: BorrowedFd<'_>) {
        let file = file.as_raw_fd();
        let closed: Vec<_> = self
            .owners
            .lock()
            .extract_if(|_, owner| {
                let was = owner.files.remove(&file);
                owner.budget.give_back(usize::from(was));
                was && owner.files.is_empty()
            })
            .collect();
        // Closed here, where the table is not locked; whoever waits is woken once the file is closed.
        drop(closed);
    }

    /// Ends all POSIX locks of an owner.
    pub(crate) fn close(&self, owner: LockOwner) {
        let closed = self.owners.lock().remove(&owner);
        if closed.is_some() {
            drop(closed);
            self.released.notify_waiters();
        }
    }
}

/// One request for a lock, as often as it has to be tried.
struct Attempt<'a> {
    table: Arc<LockTable>,
    share: &'a Share,
    file: BorrowedFd<'a>,
    request: LockRequest,
    asks_others: bool,
    /// A descriptor for an owner that does not have a lock on the file yet.
    spare: Option<Arc<Descriptor>>,
}

impl Attempt<'_> {
    /// Tries once. EAGAIN when another holds a lock.
    fn make(&mut self) -> Result<()> {
        check_thread()?;
        match (self.request.style, self.request.kind) {
            (LockStyle::Flock, kind) => self.flock(kind),
            (LockStyle::Posix, None) => self.unlock(),
            (LockStyle::Posix, Some(kind)) => self.lock(kind),
        }
    }

    /// As [`make`](Self::make), without keeping a thread of the runtime from others.
    async fn make_on_runtime(&mut self) -> Result<()> {
        if !self.asks_others {
            return self.make();
        }
        let tried = Answer::blocking(|| Ok(self.make())).await;
        tried.unwrap_or(Err(Errno::IO))
    }

    fn flock(&self, kind: Option<LockKind>) -> Result<()> {
        let operation = match kind {
            Some(LockKind::Read) => FlockOperation::NonBlockingLockShared,
            Some(LockKind::Write) => FlockOperation::NonBlockingLockExclusive,
            None => FlockOperation::NonBlockingUnlock,
        };
        flock(self.file, operation)?;
        // A weaker lock, too, may let others in.
        if kind != Some(LockKind::Write) {
            self.table.released.notify_waiters();
        }
        Ok(())
    }

    fn unlock(&self) -> Result<()> {
        let mut owners = self.table.owners.lock();
        let Some(owner) = owners.get_mut(&self.request.owner) else {
            return Ok(());
        };
        let held = owner.held.with(self.request.range, None);
        let split = held.len().saturating_sub(owner.held.len());
        self.charged(split, || {
            set_ofd_lock(owner.descriptor.as_fd(), None, self.request.range)
        })?;
        let less = owner.held.len().saturating_sub(held.len());
        owner.budget.give_back(less);
        owner.held = held;
        let gone = match owner.held.len() {
            0 => owners.remove(&self.request.owner),
            _ => None,
        };
        drop(owners);
        drop(gone);
        self.table.released.notify_waiters();
        Ok(())
    }

    /// Does what makes as many ranges or open files more count towards the budget of the share.
    fn charged(&self, more: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let budget = &self.share.locks.budget;
        budget.take(more)?;
        work().inspect_err(|_| budget.give_back(more))
    }

    fn lock(&mut self, kind: LockKind) -> Result<()> {
        let LockRequest {
            owner, range, pid, ..
        } = self.request;
        let mut owners = self.table.owners.lock();
        // Another thread of the owner may have got a descriptor meanwhile: it has one only.
        let descriptor = match owners.get(&owner) {
            Some(known) => known.descriptor.clone(),
            None => match &self.spare {
                Some(spare) => spare.clone(),
                None => {
                    let permit = self.share.permit()?;
                    let fd = open_for_locks(self.share, self.file)?;
                    let spare = Arc::new(permit.hold(fd));
                    self.spare = Some(spare.clone());
                    spare
                }
            },
        };
        let file = self.file.as_raw_fd();
        let (held, before, new_file) = match owners.get(&owner) {
            Some(known) => (
                known.held.with(range, Some(kind)),
                known.held.len(),
                !known.files.contains(&file),
            ),
            None => (LockRanges::default().with(range, Some(kind)), 0, true),
        };
        let more = held.len().saturating_sub(before);
        self.charged(more.saturating_add(usize::from(new_file)), || {
            set_ofd_lock(descriptor.as_fd(), Some(kind), range)
        })?;
        let known = owners.entry(owner).or_insert_with(|| Owner {
            descriptor,
            files: BTreeSet::new(),
            held: LockRanges::default(),
            pid,
            budget: Arc::clone(&self.share.locks.budget),
        });
        known.budget.give_back(before.saturating_sub(held.len()));
        known.files.insert(file);
        known.held = held;
        known.pid = pid;
        drop(owners);
        self.spare = None;
        // Taking the place of a write lock, a read lock may let others in.
        if kind == LockKind::Read {
            self.table.released.notify_waiters();
        }
        Ok(())
    }

    /// Tries until it succeeds. Dropping the future ends the wait with nothing locked.
    async fn wait(&mut self) -> Result<()> {
        // Timers belong to the runtime, which the thread that polls first may not be part of.
        hand_over().await;
        let mut pause = SHORTEST_WAIT;
        loop {
            let table = self.table.clone();
            let mut released = pin!(table.released.notified());
            // Listening starts before the attempt: no release is missed in between.
            released.as_mut().enable();
            match self.make_on_runtime().await {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
            if Handle::try_current().is_ok() {
                // A time-out is no error: it is the turn to look at what others on the host did.
                let _elapsed = tokio::time::timeout(pause, released).await;
            } else {
                released.await;
            }
            pause = pause.saturating_mul(2).min(LONGEST_WAIT);
        }
    }
}

/// Pending once, so that the future goes on elsewhere.
async fn hand_over() {
    let mut handed_over = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut handed_over, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// A descriptor of the same file, for reading and writing where that is allowed: a lock for writing
/// needs one for writing, and one for reading needs one for reading.
fn open_for_locks(share: &Share, file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let open = |access| share.proc_fd.reopen(file, access | OFlags::NONBLOCK);
    open(OFlags::RDWR)
        .or_else(|errno| match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY => {
                open(OFlags::RDONLY).or_else(|_| open(OFlags::WRONLY))
            }
            other => Err(other),
        })
        .map_err(no_descriptor)
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::fs::File;
    use std::task::{Context, Poll, Waker};

    use vfsd_backend::{Backend, LockRange};

    use super::*;
    use crate::{Options, Passthrough};

    #[test]
    fn the_locks_of_a_share_are_bounded_and_all_of_them_are_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let fs = Passthrough::open(directory.path(), Options::default()).unwrap();
        let root = fs.root();
        let root: &dyn Any = root.as_ref();
        let share = root.downcast_ref::<Inode>().unwrap().share();
        let budget = &share.locks.budget;
        // Four are left: an owner and its open file count like a range.
        budget.take(LockBudget::USUAL - 4).unwrap();
        let file = File::create_new(directory.path().join("file")).unwrap();
        let table = Arc::new(LockTable::default());
        let set = |owner, kind, start, end| {
            let request = LockRequest {
                owner: LockOwner(owner),
                pid: 1,
                style: LockStyle::Posix,
                kind,
                range: LockRange { start, end },
                wait: false,
            };
            let answer = Arc::clone(&table).set(share, file.as_fd(), request, false);
            match pin!(answer).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => result.map_err(|error| error.is(Errno::NOLCK)),
                Poll::Pending => panic!("nobody waits"),
            }
        };
        let write = Some(LockKind::Write);
        for at in [0, 10, 20] {
            set(1, write, at, at + 5).unwrap();
        }
        assert_eq!(set(1, write, 30, 31), Err(true));
        assert_eq!(set(2, write, 40, 41), Err(true));
        assert_eq!(set(1, None, 2, 3), Err(true), "a range more");
        set(1, write, 20, 29).unwrap();
        set(1, None, 10, 15).unwrap();
        set(1, None, 2, 3).unwrap();
        table.close(LockOwner(1));
        set(2, write, 0, 1).unwrap();
        table.close_file(file.as_fd());
        set(2, write, 0, 1).unwrap();
        set(2, None, 0, 9).unwrap();
        set(2, write, 0, 1).unwrap();
        drop(table);
        assert_eq!(budget.take(4), Ok(()));
    }
}
