//! The thread that closes what may take long to close.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use crate::budget::Budget;

/// A descriptor, and the budget that it counts towards until it is closed: that bounds how many wait.
type Closed = (OwnedFd, Arc<Budget>);

/// Closes descriptors on a thread of its own, which is started with the first and ends with the share.
#[derive(Debug, Default)]
pub(crate) struct Closer(Mutex<Option<Sender<Closed>>>);

impl Closer {
    /// Closes a descriptor, soon, and gives its right back to `budget` then.
    pub(crate) fn close(&self, fd: OwnedFd, budget: &Arc<Budget>) {
        let mut thread = self.0.lock();
        let sender = match thread.as_ref() {
            Some(sender) => Some(sender),
            None => start().map(|sender| &*thread.insert(sender)),
        };
        let left = match sender {
            Some(sender) => sender.send((fd, Arc::clone(budget))).map_err(|lost| lost.0),
            None => Err((fd, Arc::clone(budget))),
        };
        drop(thread);
        // Without a thread it is done here, whoever waits for that.
        left.unwrap_or_else(close);
    }
}

fn close((fd, budget): Closed) {
    drop(fd);
    budget.give_back();
}

fn start() -> Option<Sender<Closed>> {
    let (sender, receiver): (_, Receiver<Closed>) = channel();
    std::thread::Builder::new()
        .name("vfsd-close".into())
        .spawn(move || receiver.into_iter().for_each(close))
        .ok()
        .map(|_| sender)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_left_to_the_thread_is_closed_and_given_back() {
        let budget = Budget::new(Some(8));
        let closer = Closer::default();
        for _ in 0..3 {
            let (mut reader, writer) = std::io::pipe().unwrap();
            budget.try_take().unwrap().keep();
            closer.close(writer.into(), &budget);
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the writer is closed");
        }
        while budget.used() > 0 {
            std::thread::yield_now();
        }
    }
}
