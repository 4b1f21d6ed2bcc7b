//! Waits for one reply.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use vfsd_backend::Errno;
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::Unique;

use crate::link::{Ending, Link};
use crate::receive::give_back;
use crate::request::Undo;

/// Waits for the reply to one request. Dropped before it came, the request is interrupted if it waits for a lock, and
/// what its reply grants is given back when it comes.
#[derive(Debug)]
pub(crate) struct Waiter {
    link: Arc<Link>,
    unique: Unique,
    opcode: Opcode,
    undo: Undo,
    receiver: oneshot::Receiver<Ending>,
    done: bool,
}

impl Waiter {
    pub(crate) fn new(
        link: Arc<Link>,
        unique: Unique,
        opcode: Opcode,
        undo: Undo,
        receiver: oneshot::Receiver<Ending>,
    ) -> Self {
        Self {
            link,
            unique,
            opcode,
            undo,
            receiver,
            done: false,
        }
    }
}

impl Waiter {
    /// The reply, if it is there.
    pub(crate) fn look(&mut self) -> Option<Ending> {
        let ending = match self.receiver.try_recv() {
            Ok(ending) => ending,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Closed) => Err(Errno::IO),
        };
        self.done = true;
        Some(ending)
    }
}

impl Future for Waiter {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ending> {
        let ending = std::task::ready!(Pin::new(&mut self.receiver).poll(context));
        self.done = true;
        // The link ended.
        Poll::Ready(ending.unwrap_or(Err(Errno::IO)))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.receiver.close();
        if self.link.abandon(self.unique) {
            if self.opcode == Opcode::Setlkw {
                self.link.interrupt(self.unique);
            }
        } else if let Ok(Ok(reply)) = self.receiver.try_recv() {
            give_back(&self.link, self.undo, &reply);
        }
    }
}
