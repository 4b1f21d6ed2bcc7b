//! How many descriptors a guest may make the daemon hold.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vfsd_backend::{blocking_section, is_worker};

use crate::closer::Closer;

/// Descriptors kept back for the daemon itself when the budget follows from the process's limit.
const RESERVE: u64 = 512;

/// The descriptors that a guest's nodes, open files and locks may use together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    closer: Closer,
}

impl Budget {
    /// A budget of `limit`, or of what the process's own limit leaves.
    pub(crate) fn new(limit: Option<usize>) -> Arc<Self> {
        let limit = limit.unwrap_or_else(|| {
            let process = rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(1 << 20);
            // Under a tiny limit half of it is kept back instead.
            let left = process.saturating_sub(RESERVE).max(process / 2);
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            closer: Closer::default(),
        })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Descriptors in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The right to one more descriptor, if there is one left.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Permit<'_>> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(1).filter(|&used| used <= self.limit)
            })
            .ok()
            .map(|_| Permit(self))
    }

    /// Closes a descriptor, and takes back the right to it, which was [kept](Permit::keep).
    ///
    /// It may be the end of a large file, or of one that another machine or program has to be told of. A
    /// thread that serves a queue does it in a blocking section, or leaves it to the share's own thread.
    pub(crate) fn close(self: &Arc<Self>, fd: OwnedFd) {
        let mut fd = Some(fd);
        // Not done, it is still here.
        let _ = blocking_section(|| drop(fd.take()));
        match fd {
            Some(fd) if is_worker() => self.closer.close(fd, self),
            left => {
                drop(left);
                self.give_back();
            }
        }
    }

    /// Takes back a right that was [kept](Permit::keep).
    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to hold one descriptor; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Arc<Budget>);

impl Permit<'_> {
    /// The descriptor that the permit is for.
    pub(crate) fn hold(self, fd: OwnedFd) -> Descriptor {
        let budget = self.0.clone();
        self.keep();
        Descriptor {
            fd: Some(fd),
            budget,
        }
    }

    /// The right stays taken until it is [given back](Budget::give_back).
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A descriptor that counts against the guest's budget.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// None only while it is dropped.
    fd: Option<OwnedFd>,
    budget: Arc<Budget>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.budget.close(fd);
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // What stands for none is refused by every call.
        self.fd.as_ref().map_or(rustix::fs::ABS, AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_that_is_dropped_can_be_taken_again() {
        let budget = Budget::new(Some(1));
        let permit = budget.try_take();
        assert!(permit.is_some());
        assert!(budget.try_take().is_none());
        drop(permit);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_take().is_some());
    }

    #[test]
    fn the_default_leaves_descriptors_to_the_daemon() {
        let process = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let budget = Budget::new(None);
        assert!(process.is_none_or(|limit| (budget.limit() as u64) < limit));
    }
}
