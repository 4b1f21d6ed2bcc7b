//! Who takes the requests that the rings bring.

use std::fmt::Debug;
use std::sync::Arc;

use vfsd_server::{Incoming, Session};

use crate::ChainExchange;

/// Takes requests: the server's session, or a test's stand-in for it.
pub trait Consumer: Send + Sync + Debug + 'static {
    /// Takes a request on the thread of its queue. It is answered there or later from any thread;
    /// until it returns, the queue's other requests wait.
    fn submit(&self, request: Incoming<ChainExchange>);

    /// Ends every wait that only another request could end, so that a ring can be drained.
    fn cancel_waits(&self);

    /// The device was reset, or the front end left: nothing of the guest's state remains.
    fn reset(&self);
}

impl Consumer for Arc<Session> {
    fn submit(&self, request: Incoming<ChainExchange>) {
        self.attend(|intake| intake.submit(request));
    }

    fn cancel_waits(&self) {
        Session::cancel_waits(self);
    }

    fn reset(&self) {
        Session::reset(self);
    }
}
