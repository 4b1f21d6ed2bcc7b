//! The threads that read requests, and which of them may wait for the storage.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vfsd_backend::Seat;

/// Counts the threads that read, or will as soon as they answered what they have.
///
/// The kernel gives a request to whichever thread reads. So one may wait for the storage as long
/// as another is there.
#[derive(Debug)]
pub(crate) struct Readers(AtomicUsize);

impl Readers {
    /// So many of them.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(count)))
    }

    /// The seat of one of them.
    pub(crate) fn seat(self: &Arc<Self>) -> Rc<dyn Seat> {
        Rc::new(ReaderSeat(Arc::clone(self)))
    }
}

#[derive(Debug)]
struct ReaderSeat(Arc<Readers>);

impl Seat for ReaderSeat {
    fn leave(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1).filter(|&left| left > 0);
        self.0
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    fn come_back(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reader_stays() {
        let readers = Readers::new(3);
        let seats: Vec<_> = (0..3).map(|_| readers.seat()).collect();
        assert!(seats[0].leave());
        assert!(seats[1].leave());
        assert!(!seats[2].leave());
        seats[0].come_back();
        assert!(seats[2].leave());
        assert!(!seats[0].leave());
    }

    #[test]
    fn one_alone_never_leaves() {
        assert!(!Readers::new(1).seat().leave());
    }
}
