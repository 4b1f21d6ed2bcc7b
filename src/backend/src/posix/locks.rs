//! Advisory locks of one inode.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Errno, HeldLock, LockKind, LockOwner, LockRange, LockRequest, LockStyle};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many byte ranges one file may have locked. More is ENOLCK: it bounds memory and time.
const MAX_RANGES: usize = 16 * 1024;

/// How many byte ranges the files of a storage may have locked together: each takes memory, here or in
/// the kernel.
#[derive(Debug)]
pub struct LockBudget {
    used: AtomicUsize,
    limit: usize,
}

impl LockBudget {
    /// Enough for a storage that many use: some MiB of memory.
    pub const USUAL: usize = 64 * 1024;

    /// A budget of so many, none of them in use.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit,
        })
    }

    /// Takes as many, or none.
    ///
    /// # Errors
    /// ENOLCK when there are fewer left.
    pub fn take(&self, count: usize) -> Result<(), Errno> {
        let after = |used: usize| used.checked_add(count).filter(|sum| *sum <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after)
            .map(drop)
            .map_err(|_| Errno::NOLCK)
    }

    /// Gives back as many of what was taken.
    pub fn give_back(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Tells open files apart, as holders of flock. Unique among those of a backend that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpenFileId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    owner: LockOwner,
    pid: u32,
    kind: LockKind,
    range: LockRange,
}

#[derive(Debug, Clone, Copy)]
struct Whole {
    file: OpenFileId,
    pid: u32,
    kind: LockKind,
}

#[derive(Debug, Default)]
struct Held {
    ranges: Vec<Range>,
    whole: Vec<Whole>,
    /// Who locked ranges through which open files: they end with the last of those.
    through: BTreeSet<(LockOwner, OpenFileId)>,
    budget: Option<Arc<LockBudget>>,
}

/// The locks of an inode, and who waits for them. The two styles do not see each other, as on Linux.
#[derive(Debug, Default)]
pub struct LockTable {
    held: Mutex<Held>,
    /// Wakes all who wait, each time that a lock becomes weaker.
    changed: Notify,
}

fn exclude_each_other(one: LockKind, other: LockKind) -> bool {
    one == LockKind::Write || other == LockKind::Write
}

fn overlap(one: LockRange, other: LockRange) -> bool {
    one.start <= other.end && other.start <= one.end
}

/// What is left of `range` before and after `hole`.
fn cut(range: LockRange, hole: LockRange) -> impl Iterator<Item = LockRange> {
    let before = hole
        .start
        .checked_sub(1)
        .filter(|&end| range.start <= end)
        .map(|end| LockRange {
            start: range.start,
            end: range.end.min(end),
        });
    let after = hole
        .end
        .checked_add(1)
        .filter(|&start| start <= range.end)
        .map(|start| LockRange {
            start: range.start.max(start),
            end: range.end,
        });
    before.into_iter().chain(after)
}

impl Drop for Held {
    fn drop(&mut self) {
        let weight = self.weight();
        self.ranges.clear();
        self.through.clear();
        self.settle(weight);
    }
}

impl Held {
    /// What counts towards the budget.
    fn weight(&self) -> usize {
        self.ranges.len().saturating_add(self.through.len())
    }

    /// Gives back what is no longer needed of what was needed before.
    fn settle(&self, before: usize) {
        if let Some(budget) = &self.budget {
            budget.give_back(before.saturating_sub(self.weight()));
        }
    }

    fn range_in_the_way(&self, request: &LockRequest, kind: LockKind) -> Option<&Range> {
        self.ranges
            .iter()
            .filter(|held| {
                held.owner != request.owner
                    && overlap(held.range, request.range)
                    && exclude_each_other(held.kind, kind)
            })
            .min_by_key(|held| held.range.start)
    }

    fn whole_in_the_way(&self, file: OpenFileId, kind: LockKind) -> Option<&Whole> {
        self.whole
            .iter()
            .find(|held| held.file != file && exclude_each_other(held.kind, kind))
    }

    /// Gives the range of the request, which came through `file`, to its owner in the kind asked for,
    /// or to nobody.
    fn assign_range(&mut self, file: OpenFileId, request: &LockRequest) -> Result<(), Errno> {
        let (own, mut ranges): (Vec<Range>, Vec<Range>) = self
            .ranges
            .iter()
            .partition(|held| held.owner == request.owner);
        let mut own: Vec<Range> = own
            .into_iter()
            .flat_map(|held| {
                cut(held.range, request.range).map(move |range| Range { range, ..held })
            })
            .collect();
        own.extend(request.kind.map(|kind| Range {
            owner: request.owner,
            pid: request.pid,
            kind,
            range: request.range,
        }));
        own.sort_by_key(|held| held.range.start);
        own.dedup_by(|next, held| {
            let adjoins = held.range.end.checked_add(1) == Some(next.range.start);
            let same = held.kind == next.kind && adjoins;
            if same {
                held.range.end = next.range.end;
            }
            same
        });
        let count = ranges.len().saturating_add(own.len());
        if count > MAX_RANGES && count > self.ranges.len() {
            return Err(Errno::NOLCK);
        }
        let before = self.weight();
        let link = (request.owner, file);
        let links = request.kind.is_some() && !self.through.contains(&link);
        if links && self.through.len() >= MAX_RANGES {
            return Err(Errno::NOLCK);
        }
        let added = count
            .saturating_add(usize::from(links))
            .saturating_sub(self.ranges.len());
        if let Some(budget) = &self.budget {
            budget.take(added)?;
        }
        if links {
            self.through.insert(link);
        }
        if own.is_empty() {
            self.forget_owner(request.owner);
        }
        ranges.append(&mut own);
        self.ranges = ranges;
        self.settle(before.saturating_add(added));
        Ok(())
    }

    /// The owner has no range any more.
    fn forget_owner(&mut self, owner: LockOwner) {
        self.through.retain(|(own, _)| *own != owner);
    }

    /// Releases the ranges of owners that locked through `file`, which is closed, and no other.
    fn close_file(&mut self, file: OpenFileId) {
        if self.through.is_empty() {
            return;
        }
        let mut gone = BTreeSet::new();
        self.through.retain(|(owner, own)| {
            let other = *own != file;
            if !other {
                gone.insert(*owner);
            }
            other
        });
        for (owner, _) in &self.through {
            gone.remove(owner);
        }
        self.ranges.retain(|lock| !gone.contains(&lock.owner));
    }

    /// Sets the lock of an open file, and says besides whether an old one went.
    ///
    /// A conversion gives the old lock up first, even if the new one is then refused: flock(2) says
    /// so, and Linux does so.
    fn set_whole(&mut self, file: OpenFileId, request: &LockRequest) -> (Result<(), Errno>, bool) {
        let own = self.whole.iter().position(|lock| lock.file == file);
        if let Some(own) = own {
            let same = self
                .whole
                .get(own)
                .is_some_and(|lock| Some(lock.kind) == request.kind);
            if same {
                return (Ok(()), false);
            }
            self.whole.swap_remove(own);
        }
        let result = match request.kind {
            Some(kind) if self.whole_in_the_way(file, kind).is_some() => Err(Errno::AGAIN),
            Some(kind) => {
                self.whole.push(Whole {
                    file,
                    pid: request.pid,
                    kind,
                });
                Ok(())
            }
            None => Ok(()),
        };
        (result, own.is_some())
    }
}

impl LockTable {
    /// A table without locks. What is held in it counts towards `budget`; in the default one, towards none.
    pub fn new(budget: Arc<LockBudget>) -> Self {
        let table = Self::default();
        table.held.lock().budget = Some(budget);
        table
    }

    /// The lock in the way of `request`.
    pub fn test(&self, file: OpenFileId, request: &LockRequest) -> Option<HeldLock> {
        let kind = request.kind?;
        let held = self.held.lock();
        match request.style {
            LockStyle::Posix => held.range_in_the_way(request, kind).map(|held| HeldLock {
                kind: held.kind,
                range: held.range,
                pid: held.pid,
            }),
            LockStyle::Flock => held.whole_in_the_way(file, kind).map(|held| HeldLock {
                kind: held.kind,
                range: request.range,
                pid: held.pid,
            }),
        }
    }

    /// Sets or releases a lock, without waiting.
    ///
    /// # Errors
    /// EAGAIN when another is in the way, ENOLCK when the file, or the storage, has too many locks.
    pub fn try_set(&self, file: OpenFileId, request: &LockRequest) -> Result<(), Errno> {
        let mut held = self.held.lock();
        let (result, weaker) = match request.style {
            LockStyle::Posix => {
                let result = match request.kind {
                    Some(kind) if held.range_in_the_way(request, kind).is_some() => {
                        Err(Errno::AGAIN)
                    }
                    _ => held.assign_range(file, request),
                };
                let weaker = result.is_ok() && request.kind != Some(LockKind::Write);
                (result, weaker)
            }
            LockStyle::Flock => held.set_whole(file, request),
        };
        drop(held);
        // Only then: waiters whose attempts fail must not wake each other.
        if weaker {
            self.changed.notify_waiters();
        }
        result
    }

    /// Sets a lock, and waits for those in the way. A wait that is dropped leaves no trace.
    ///
    /// # Errors
    /// ENOLCK when the file, or the storage, has too many locks.
    pub async fn set(&self, file: OpenFileId, request: LockRequest) -> Result<(), Errno> {
        loop {
            // Registered before the attempt, so that a release between the two is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.try_set(file, &request) {
                Err(Errno::AGAIN) => changed.await,
                result => return result,
            }
        }
    }

    /// Releases the byte ranges of an owner.
    pub fn release_owner(&self, owner: LockOwner) {
        let mut held = self.held.lock();
        let (before, weight) = (held.ranges.len(), held.weight());
        held.ranges.retain(|lock| lock.owner != owner);
        held.forget_owner(owner);
        held.settle(weight);
        let released = held.ranges.len() != before;
        drop(held);
        if released {
            self.changed.notify_waiters();
        }
    }

    /// Releases the flock of an open file that is closed, and the byte ranges of owners that locked
    /// through it and through no other open file: nobody flushes an owner that is itself an open file
    /// (`F_OFD_SETLK`).
    pub fn release_file(&self, file: OpenFileId) {
        let mut held = self.held.lock();
        let before = (held.ranges.len(), held.whole.len());
        held.whole.retain(|lock| lock.file != file);
        let weight = held.weight();
        held.close_file(file);
        held.settle(weight);
        let released = (held.ranges.len(), held.whole.len()) != before;
        drop(held);
        if released {
            self.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(owner: u64, kind: Option<LockKind>, start: u64, end: u64) -> LockRequest {
        LockRequest {
            owner: LockOwner(owner),
            pid: 1,
            style: LockStyle::Posix,
            kind,
            range: LockRange { start, end },
            wait: false,
        }
    }

    #[test]
    fn the_files_of_a_storage_share_a_budget_and_give_all_of_it_back() {
        let write = Some(LockKind::Write);
        let budget = LockBudget::new(8);
        let tables = [(), ()].map(|()| LockTable::new(Arc::clone(&budget)));
        let [one, two] = &tables;
        let file = OpenFileId(1);
        // An owner and its open file count like a range.
        for at in [0, 10, 20] {
            one.try_set(file, &request(1, write, at, at + 5)).unwrap();
        }
        for at in [0, 10, 20] {
            two.try_set(file, &request(2, write, at, at + 5)).unwrap();
        }
        let more = request(1, write, 30, 31);
        assert_eq!(one.try_set(file, &more), Err(Errno::NOLCK));
        let split = request(1, None, 2, 3);
        assert_eq!(one.try_set(file, &split), Err(Errno::NOLCK));
        // What makes it no more is possible still: to widen a range, and to release all.
        one.try_set(file, &request(1, write, 20, 29)).unwrap();
        two.release_owner(LockOwner(2));
        one.try_set(file, &more).unwrap();
        one.try_set(file, &split).unwrap();
        one.release_file(file);
        two.try_set(file, &request(2, write, 0, 1)).unwrap();
        two.try_set(file, &request(2, None, 0, 9)).unwrap();
        two.try_set(file, &request(2, write, 0, 1)).unwrap();
        drop(tables);
        assert_eq!(budget.take(8), Ok(()));
    }
}
