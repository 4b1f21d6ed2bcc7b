//! The parts of a table, each with a lock of its own, and how much all of them may hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::slots::SHARDS;

/// Alone on the cache lines that a processor fetches together, so that who takes one lock does not
/// take its neighbours from other processors.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// A table cut into [`SHARDS`] parts.
#[derive(Debug)]
pub(crate) struct Shards<T>([Apart<RwLock<T>>; SHARDS]);

impl<T> Shards<T> {
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        Self(std::array::from_fn(|_| Apart(RwLock::new(make()))))
    }

    /// All parts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RwLock<T>> {
        self.0.iter().map(|part| &part.0)
    }

    /// A part. `None` for a number that is none's.
    pub(crate) fn get(&self, shard: usize) -> Option<&RwLock<T>> {
        self.0.get(shard).map(|part| &part.0)
    }
}

/// How many objects there are, of those that there may be, in all tables that share it: those of an
/// epoch that has ended count as long as a request holds it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ObjectQuota {
    live: AtomicUsize,
    limit: usize,
}

impl ObjectQuota {
    /// None yet.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            live: AtomicUsize::new(0),
            limit,
        }
    }

    /// One more. False if there may not be.
    pub(crate) fn take(&self) -> bool {
        let admitted = self.live.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !admitted {
            self.give_back();
        }
        admitted
    }

    /// One more, also where there may be none.
    pub(crate) fn exceed(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn give_back(&self) {
        self.give_back_all(1);
    }

    /// So many less.
    pub(crate) fn give_back_all(&self, count: usize) {
        self.live.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many there may be.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many there are.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_admitted_than_may_be() {
        let quota = ObjectQuota::new(2);
        assert!(quota.take() && quota.take());
        assert!(!quota.take() && !quota.take());
        assert_eq!(quota.live(), 2);
        quota.give_back();
        assert!(quota.take());
        quota.exceed();
        assert_eq!(quota.live(), 3);
        quota.give_back_all(3);
        assert!(quota.take());
    }
}
