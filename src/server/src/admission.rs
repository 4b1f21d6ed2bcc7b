//! How many requests may go on at a time that were not ready at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that copies are given at a time, as long as there are any left: a disk's work of a second or less, so that
/// a stop need not wait longer for them.
const COPIED_BYTES: u64 = 256 << 20;

/// What each copy is given in any case.
const LEAST_COPY: u64 = 1 << 20;

/// The deferred requests of a session: those that moved to the runtime. When there are as many as
/// there may be, transports take no more in until some have ended.
///
/// Those that wait for a lock do not count. Another request has to end them, which would not be taken
/// in any more, and they have a limit of their own.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: usize,
    deferred: AtomicUsize,
    /// Of them, those that wait for a lock.
    lock_waits: AtomicUsize,
    /// Who waits for room.
    held_up: AtomicUsize,
    freed: Notify,
    /// Bytes that copies have been given.
    copied: AtomicU64,
}

impl Admission {
    /// For at most `limit` deferred requests.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            deferred: AtomicUsize::new(0),
            lock_waits: AtomicUsize::new(0),
            held_up: AtomicUsize::new(0),
            freed: Notify::new(),
            copied: AtomicU64::new(0),
        })
    }

    /// A request is deferred as long as what this answers lives.
    pub(crate) fn defer(self: &Arc<Self>) -> Deferred {
        self.deferred.fetch_add(1, Ordering::SeqCst);
        Deferred(Arc::clone(self))
    }

    /// A request waits for a lock as long as what this answers lives.
    pub(crate) fn wait_for_lock(self: &Arc<Self>) -> Uncounted {
        self.lock_waits.fetch_add(1, Ordering::SeqCst);
        Uncounted(Arc::clone(self))
    }

    /// How many are deferred for another reason than a lock.
    pub(crate) fn count(&self) -> usize {
        let deferred = self.deferred.load(Ordering::SeqCst);
        deferred.saturating_sub(self.lock_waits.load(Ordering::SeqCst))
    }

    /// Whether one more may come.
    pub(crate) fn has_room(&self) -> bool {
        self.count() < self.limit
    }

    /// Ready when there is room.
    pub(crate) async fn room(&self) {
        self.held_up.fetch_add(1, Ordering::SeqCst);
        let _counted = HeldUp(self);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Listening starts before the look: nobody who leaves is missed in between.
            freed.as_mut().enable();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }

    /// How much of a copy of `length` bytes may be done at once.
    pub(crate) fn copy(&self, length: u64) -> CopyShare<'_> {
        let before = self.copied.load(Ordering::Relaxed);
        let left = COPIED_BYTES.saturating_sub(before);
        let length = length.min(left.max(LEAST_COPY));
        self.copied.fetch_add(length, Ordering::Relaxed);
        CopyShare {
            admission: self,
            length,
        }
    }
}

/// A request that is deferred.
#[derive(Debug)]
pub(crate) struct Deferred(Arc<Admission>);

impl Drop for Deferred {
    fn drop(&mut self) {
        self.0.deferred.fetch_sub(1, Ordering::SeqCst);
        if self.0.held_up.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_waiters();
        }
    }
}

/// A request that waits for a lock, and does not count as long as it does.
#[derive(Debug)]
pub(crate) struct Uncounted(Arc<Admission>);

impl Drop for Uncounted {
    fn drop(&mut self) {
        self.0.lock_waits.fetch_sub(1, Ordering::SeqCst);
    }
}

struct HeldUp<'a>(&'a Admission);

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.0.held_up.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a copy may do, until it is dropped.
#[derive(Debug)]
pub(crate) struct CopyShare<'a> {
    admission: &'a Admission,
    /// Bytes; not none, unless none were asked for.
    pub(crate) length: u64,
}

impl Drop for CopyShare<'_> {
    fn drop(&mut self) {
        self.admission
            .copied
            .fetch_sub(self.length, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn there_is_room_again_when_a_request_has_ended() {
        let admission = Admission::new(2);
        let one = admission.defer();
        assert!(admission.has_room());
        let two = admission.defer();
        assert!(!admission.has_room());
        let mut room = pin!(admission.room());
        let mut context = Context::from_waker(Waker::noop());
        assert!(room.as_mut().poll(&mut context).is_pending());
        drop(one);
        assert!(room.as_mut().poll(&mut context).is_ready());
        drop(two);
        assert_eq!(admission.count(), 0);
        assert_eq!(admission.deferred.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn who_waits_for_a_lock_takes_nobodys_room() {
        let admission = Admission::new(1);
        let waits: Vec<_> = (0..9)
            .map(|_| (admission.wait_for_lock(), admission.defer()))
            .collect();
        assert!(admission.has_room());
        drop(waits);
        assert_eq!(admission.count(), 0);
    }

    #[test]
    fn many_copies_are_given_less_each_and_never_nothing() {
        let admission = Admission::new(1);
        let whole: Vec<_> = (0..4).map(|_| admission.copy(64 << 20)).collect();
        assert!(whole.iter().all(|share| share.length == 64 << 20));
        assert_eq!(admission.copy(64 << 20).length, LEAST_COPY);
        assert_eq!(admission.copy(5).length, 5);
        drop(whole);
        assert_eq!(admission.copy(64 << 20).length, 64 << 20);
    }
}
