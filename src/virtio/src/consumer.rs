//! Who takes the requests that the rings bring.

use std::fmt::Debug;
use std::sync::Arc;

use vfsd_server::{Intake, Session};

use crate::ChainExchange;

/// Takes requests: the server's session, or a test's stand-in for it.
pub trait Consumer: Send + Sync + Debug + 'static {
    /// Calls `work`, once, with what takes requests on the calling thread, which is a queue's. A
    /// request is answered there or later from any thread; until its submission returns, the
    /// queue's other requests wait.
    fn attend(&self, work: &mut dyn FnMut(&mut dyn Intake<ChainExchange>));

    /// Ends every wait that only another request could end, so that a ring can be drained.
    fn cancel_waits(&self);

    /// The device was reset, or the front end left: nothing of the guest's state remains.
    fn reset(&self);
}

impl Consumer for Arc<Session> {
    fn attend(&self, work: &mut dyn FnMut(&mut dyn Intake<ChainExchange>)) {
        Session::attend(self, |intake| work(intake));
    }

    fn cancel_waits(&self) {
        Session::cancel_waits(self);
    }

    fn reset(&self) {
        Session::reset(self);
    }
}
