//! Who takes the requests that the rings bring.

use std::fmt::Debug;
use std::sync::Arc;

use vfsd_server::{RequestWorker, Session};

use crate::ChainExchange;

/// A guest's session: the server's, or a test's stand-in for it.
pub trait GuestSession: Send + Sync + Debug + 'static {
    /// Takes in the requests of the calling thread, which is a queue's. A request is answered there
    /// or later from any thread; until its submission returns, the queue's other requests wait.
    fn worker(&self) -> Box<dyn RequestWorker<ChainExchange> + '_>;

    /// Ends every wait that only another request could end, so that a ring can be drained.
    fn cancel_waits(&self);

    /// The device was reset, or the front end left: nothing of the guest's state remains.
    fn reset(&self);
}

impl GuestSession for Arc<Session> {
    fn worker(&self) -> Box<dyn RequestWorker<ChainExchange> + '_> {
        Session::worker(self)
    }

    fn cancel_waits(&self) {
        Session::cancel_waits(self);
    }

    fn reset(&self) {
        Session::reset(self);
    }
}
