//! A thread's seat at a queue, from which it can be relieved while its work waits for a disk.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

/// The place of a thread that serves a queue.
///
/// Some work is over at once nearly always, and now and then waits for a disk: a write into the
/// page cache, the making of a directory. To move all of it to another thread would cost more than
/// it takes. So the thread does it, [away](Self::leave) from its seat: if that lasts, another
/// thread takes the seat and serves the queue.
pub trait Seat {
    /// The thread turns to work that may wait. False if it is better done elsewhere, because such
    /// work took long lately; then the thread stays.
    fn leave(&self) -> bool;

    /// The work is over, well or by a panic. The seat may have been taken meanwhile.
    fn come_back(&self);
}

thread_local! {
    static SEAT: OnceCell<Rc<dyn Seat>> = const { OnceCell::new() };
    static AWAY: Cell<bool> = const { Cell::new(false) };
}

/// Gives the calling thread a seat, until it ends. It can have one only: false if it had one before.
pub fn take_seat(seat: Rc<dyn Seat>) -> bool {
    SEAT.with(|own| own.set(seat).is_ok())
}

/// Whether the calling thread has a seat, so that others wait for what it does.
pub fn has_seat() -> bool {
    SEAT.with(|own| own.get().is_some())
}

/// Does work that may wait, if this thread has a seat that it may leave for it; otherwise gives the
/// work back. For what is no [`Answer`](crate::Answer) as a whole.
///
/// # Errors
/// The work, not done.
pub fn away_from_seat<T, W: FnOnce() -> T>(work: W) -> Result<T, W> {
    if AWAY.get() {
        return Ok(work());
    }
    SEAT.with(|own| match own.get() {
        Some(seat) if seat.leave() => {
            AWAY.set(true);
            let _back = Back(seat.as_ref());
            Ok(work())
        }
        _ => Err(work),
    })
}

/// Comes back however the work ends.
struct Back<'a>(&'a dyn Seat);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        AWAY.set(false);
        self.0.come_back();
    }
}
