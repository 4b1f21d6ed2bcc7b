//! The threads that read requests, and which of them may wait for the storage.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vfsd_exec::Worker;

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

    /// One of them.
    pub(crate) fn worker(self: &Arc<Self>) -> Rc<dyn Worker> {
        Rc::new(Reader(Arc::clone(self)))
    }
}

#[derive(Debug)]
struct Reader(Arc<Readers>);

impl Worker for Reader {
    fn enter_blocking(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1).filter(|&left| left > 0);
        self.0
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    fn exit_blocking(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reader_does_not_block() {
        let readers = Readers::new(3);
        let workers: Vec<_> = (0..3).map(|_| readers.worker()).collect();
        assert!(workers[0].enter_blocking());
        assert!(workers[1].enter_blocking());
        assert!(!workers[2].enter_blocking());
        workers[0].exit_blocking();
        assert!(workers[2].enter_blocking());
        assert!(!workers[0].enter_blocking());
    }

    #[test]
    fn one_alone_never_blocks() {
        assert!(!Readers::new(1).worker().enter_blocking());
    }
}
