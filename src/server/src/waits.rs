//! Requests that wait for a lock, and how they are woken without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use vfsd_backend::Errno;
use vfsd_fuse::wire::Unique;

use crate::admission::{Admission, Uncounted};

/// The waiting requests of a session.
#[derive(Debug)]
pub(crate) struct LockWaits {
    state: Mutex<State>,
    limit: usize,
    admission: Arc<Admission>,
}

#[derive(Debug, Default)]
struct State {
    /// By the request's `unique`, which a hostile guest may use twice, and a serial number.
    waiting: BTreeMap<(Unique, u64), oneshot::Sender<Errno>>,
    serial: u64,
    /// The session is over: nobody may wait any more.
    closed: bool,
}

/// A request that waits. Leaves the list when it is dropped.
#[derive(Debug)]
pub(crate) struct LockWait {
    waits: Arc<LockWaits>,
    key: (Unique, u64),
    ended: oneshot::Receiver<Errno>,
    _uncounted: Uncounted,
}

impl LockWaits {
    pub(crate) fn new(limit: usize, admission: Arc<Admission>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limit,
            admission,
        })
    }

    /// Enters a request.
    ///
    /// # Errors
    /// ENOLCK when too many wait already; EAGAIN when the session has ended.
    pub(crate) fn enter(self: &Arc<Self>, unique: Unique) -> Result<LockWait, Errno> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Errno::AGAIN);
        }
        if state.waiting.len() >= self.limit {
            return Err(Errno::NOLCK);
        }
        state.serial = state.serial.wrapping_add(1);
        let key = (unique, state.serial);
        let (sender, ended) = oneshot::channel();
        state.waiting.insert(key, sender);
        Ok(LockWait {
            waits: Arc::clone(self),
            key,
            ended,
            _uncounted: self.admission.wait_for_lock(),
        })
    }

    /// Ends the waits of one request with EINTR. Says whether there was one.
    pub(crate) fn interrupt(&self, unique: Unique) -> bool {
        let mut state = self.state.lock();
        let range = (unique, 0)..=(unique, u64::MAX);
        let keys: Vec<_> = state.waiting.range(range).map(|(key, _)| *key).collect();
        for key in &keys {
            if let Some(sender) = state.waiting.remove(key) {
                let _ = sender.send(Errno::INTR);
            }
        }
        !keys.is_empty()
    }

    /// Ends all waits with EAGAIN, as if the lock had only been tried. EINTR would be wrong: a
    /// guest's kernel makes it "restart the call", which without a signal reaches the program as an
    /// errno that it does not know.
    pub(crate) fn end_all(&self) {
        for (_, sender) in std::mem::take(&mut self.state.lock().waiting) {
            let _ = sender.send(Errno::AGAIN);
        }
    }

    /// Ends all waits, as [`end_all`](Self::end_all), and those to come: a request that began before
    /// the session ended must not wait after it, when nobody ends its wait any more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.end_all();
    }

    /// How many requests wait.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl LockWait {
    /// Ready when the wait was ended from outside, with the errno for the guest.
    pub(crate) async fn ended(&mut self) -> Errno {
        (&mut self.ended).await.unwrap_or(Errno::AGAIN)
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        self.waits.state.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_in_a_session_that_has_ended() {
        let waits = LockWaits::new(2, Admission::new(1));
        let mut before = waits.enter(Unique(1)).unwrap();
        waits.end_all();
        assert_eq!(before.ended().await, Errno::AGAIN);
        let mut between = waits
            .enter(Unique(2))
            .expect("only those that waited were ended");
        waits.close();
        assert_eq!(between.ended().await, Errno::AGAIN);
        assert_eq!(waits.enter(Unique(3)).err(), Some(Errno::AGAIN));
        assert_eq!(waits.count(), 0);
    }
}
