//! The calling thread as a worker, and its blocking sections.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

/// A thread that serves a queue, as the thread itself sees it.
pub trait Worker {
    /// The thread turns to work that may block. From now on somebody sees to it that the queue does
    /// not wait for long. False if the work is better done elsewhere: because nobody can, or
    /// because such work took long lately. Then nothing was entered.
    fn enter_blocking(&self) -> bool;

    /// The work is over, well or by a panic. The queue may have been handed off meanwhile.
    fn exit_blocking(&self);
}

thread_local! {
    static WORKER: OnceCell<Rc<dyn Worker>> = const { OnceCell::new() };
    static BLOCKING: Cell<bool> = const { Cell::new(false) };
}

/// Makes the calling thread a worker, until it ends. It can be one only: false if it was before.
pub fn register(worker: Rc<dyn Worker>) -> bool {
    WORKER.with(|own| own.set(worker).is_ok())
}

/// Whether the calling thread is a worker, so that others wait for what it does.
#[inline]
pub fn is_worker() -> bool {
    WORKER.with(|own| own.get().is_some())
}

/// Does work that may block in a blocking section, if this thread is a worker that may enter one;
/// otherwise gives the work back. Within a section there is no other: the work is just done.
///
/// # Errors
/// The work, not done.
#[inline]
pub fn blocking_section<T, W: FnOnce() -> T>(work: W) -> Result<T, W> {
    if BLOCKING.get() {
        return Ok(work());
    }
    WORKER.with(|own| match own.get() {
        Some(worker) if worker.enter_blocking() => {
            BLOCKING.set(true);
            let _section = Section(worker.as_ref());
            Ok(work())
        }
        _ => Err(work),
    })
}

/// Does work on a thread that may be blocked, whoever sees to it that nobody waits for it: no [section](blocking_section)
/// need be entered for what is done in it.
pub fn while_blocked<T>(work: impl FnOnce() -> T) -> T {
    let _within = Within(BLOCKING.replace(true));
    work()
}

/// Says what was so before, however the work ends.
struct Within(bool);

impl Drop for Within {
    fn drop(&mut self) {
        BLOCKING.set(self.0);
    }
}

/// Exits the section however the work ends.
struct Section<'a>(&'a dyn Worker);

impl Drop for Section<'_> {
    #[inline]
    fn drop(&mut self) {
        BLOCKING.set(false);
        self.0.exit_blocking();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// A worker that notes what it enters and exits, and may enter only so often.
    struct Noting {
        entries: Cell<u32>,
        notes: RefCell<Vec<&'static str>>,
    }

    impl Worker for Noting {
        fn enter_blocking(&self) -> bool {
            let left = self.entries.get();
            self.entries.set(left.saturating_sub(1));
            if left > 0 {
                self.notes.borrow_mut().push("entered");
            }
            left > 0
        }

        fn exit_blocking(&self) {
            self.notes.borrow_mut().push("exited");
        }
    }

    #[test]
    fn a_thread_that_may_be_blocked_needs_no_section() {
        let enters = || blocking_section(|| ()).is_ok();
        assert!(!enters(), "of no worker");
        assert!(while_blocked(|| while_blocked(enters) && enters()));
        assert!(!enters());
        let panics = || while_blocked(|| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(!enters());
    }

    #[test]
    fn a_worker_enters_one_section_at_a_time_and_exits_it_whatever_happens() {
        // A thread of its own, which is a worker until it ends.
        std::thread::spawn(|| {
            assert!(!is_worker());
            assert!(blocking_section(|| ()).is_err(), "of no worker");
            let worker = Rc::new(Noting {
                entries: 2.into(),
                notes: RefCell::default(),
            });
            assert!(register(worker.clone()) && is_worker());
            assert!(!register(worker.clone()), "one worker a thread");
            let Ok(Ok(7)) = blocking_section(|| blocking_section(|| 7).map_err(drop)) else {
                panic!("both are done");
            };
            assert_eq!(*worker.notes.borrow(), ["entered", "exited"]);
            let panics = || blocking_section(|| panic!("on purpose")).is_ok();
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            assert_eq!(worker.notes.borrow().len(), 4, "exited after a panic");
            assert!(blocking_section(|| ()).is_err(), "not entered, not done");
        })
        .join()
        .unwrap();
    }
}
