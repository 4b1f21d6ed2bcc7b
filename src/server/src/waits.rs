//! Requests that wait, and how their waits are ended from outside: for a lock, or for an answer that nobody has to wait for.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use vfsd_backend::{Answer, Errno};
use vfsd_fuse::wire::Unique;

use crate::admission::{Admission, Uncounted};

/// A sync that is interrupted is waited for so much longer: programs take an error of `fsync` for lost data, and many use
/// signals that end nothing. One that is not done by then waits for a storage that is out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// The waiting requests of a session.
#[derive(Debug)]
pub(crate) struct Waits {
    state: Mutex<State>,
    /// Of those that wait for a lock.
    limit: usize,
    admission: Arc<Admission>,
}

#[derive(Debug, Default)]
struct State {
    /// By the request's `unique`, which a hostile guest may use twice, and a serial number.
    waiting: BTreeMap<(Unique, u64), Waiting>,
    /// How many of them wait for a lock.
    locks: usize,
    serial: u64,
    /// The session is over: nobody may wait any more.
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    end: oneshot::Sender<Errno>,
    cause: Cause,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Lock,
    Answer,
}

impl Cause {
    /// What a request is answered when its wait ends without it. EINTR would be wrong for a lock: a guest's kernel makes
    /// it "restart the call", which without a signal reaches the program as an errno that it does not know.
    fn without_interrupt(self) -> Errno {
        match self {
            // As if the lock had only been tried.
            Self::Lock => Errno::AGAIN,
            Self::Answer => Errno::IO,
        }
    }
}

/// A request that waits. Leaves the list when it is dropped.
#[derive(Debug)]
pub(crate) struct Wait {
    waits: Arc<Waits>,
    key: (Unique, u64),
    cause: Cause,
    ended: oneshot::Receiver<Errno>,
    /// What is left of the wait since it was interrupted.
    rest: Option<Pin<Box<Sleep>>>,
}

/// A request that waits for a lock.
#[derive(Debug)]
pub(crate) struct LockWait {
    wait: Wait,
    _uncounted: Uncounted,
}

impl Waits {
    /// With so many that may wait for a lock at a time.
    pub(crate) fn new(limit: usize, admission: Arc<Admission>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limit,
            admission,
        })
    }

    /// Enters a request that waits for a lock.
    ///
    /// # Errors
    /// ENOLCK when too many wait already; EAGAIN when the session has ended.
    pub(crate) fn for_lock(self: &Arc<Self>, unique: Unique) -> Result<LockWait, Errno> {
        Ok(LockWait {
            wait: self.enter(unique, Cause::Lock)?,
            _uncounted: self.admission.wait_for_lock(),
        })
    }

    /// The answer to a request, unless the request is interrupted or its session ends before it is there: then it is
    /// dropped. For one that changes nothing.
    pub(crate) fn interruptible<'w, 'a, T>(
        self: &'w Arc<Self>,
        unique: Unique,
        answer: Answer<'a, T>,
    ) -> Interruptible<'w, 'a, T> {
        Interruptible {
            answer,
            waits: self,
            unique,
            wait: None,
            is_sync: false,
        }
    }

    /// As [`interruptible`](Self::interruptible), for one that makes durable what was changed: the storage goes on with that, and
    /// the wait ends only if it takes long after the interrupt.
    pub(crate) fn interruptible_sync<'w, 'a>(
        self: &'w Arc<Self>,
        unique: Unique,
        answer: Answer<'a, ()>,
    ) -> Interruptible<'w, 'a, ()> {
        Interruptible {
            is_sync: true,
            ..self.interruptible(unique, answer)
        }
    }

    fn enter(self: &Arc<Self>, unique: Unique, cause: Cause) -> Result<Wait, Errno> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(cause.without_interrupt());
        }
        if cause == Cause::Lock {
            if state.locks >= self.limit {
                return Err(Errno::NOLCK);
            }
            state.locks = state.locks.saturating_add(1);
        }
        state.serial = state.serial.wrapping_add(1);
        let key = (unique, state.serial);
        let (end, ended) = oneshot::channel();
        state.waiting.insert(key, Waiting { end, cause });
        Ok(Wait {
            waits: Arc::clone(self),
            key,
            cause,
            ended,
            rest: None,
        })
    }

    /// Ends the waits of one request with EINTR. Says whether there was one.
    pub(crate) fn interrupt(&self, unique: Unique) -> bool {
        let mut state = self.state.lock();
        let range = (unique, 0)..=(unique, u64::MAX);
        let keys: Vec<_> = state.waiting.range(range).map(|(key, _)| *key).collect();
        for key in &keys {
            if let Some(waiting) = state.waiting.remove(key) {
                let _ = waiting.end.send(Errno::INTR);
            }
        }
        !keys.is_empty()
    }

    /// Ends all waits for locks with EAGAIN.
    pub(crate) fn end_lock_waits(&self) {
        self.end(|cause| cause == Cause::Lock);
    }

    /// Ends all waits, and those to come: a request that began before the session ended must not wait after it, when
    /// nobody ends its wait any more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.end(|_| true);
    }

    fn end(&self, which: impl Fn(Cause) -> bool) {
        let mut state = self.state.lock();
        let (ended, others): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|(_, waiting)| which(waiting.cause));
        state.waiting = others;
        for (_, Waiting { end, cause }) in ended {
            let _ = end.send(cause.without_interrupt());
        }
    }

    /// How many requests wait for a lock.
    pub(crate) fn lock_waits(&self) -> usize {
        self.state.lock().locks
    }
}

impl Wait {
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Errno> {
        if let Some(rest) = &mut self.rest
            && rest.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Errno::INTR);
        }
        let ended = ready!(Pin::new(&mut self.ended).poll(context));
        Poll::Ready(ended.unwrap_or(self.cause.without_interrupt()))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.waits.state.lock();
        state.waiting.remove(&self.key);
        if self.cause == Cause::Lock {
            state.locks = state.locks.saturating_sub(1);
        }
    }
}

impl LockWait {
    /// Ready when the wait was ended from outside, with the errno for the guest.
    pub(crate) async fn ended(&mut self) -> Errno {
        std::future::poll_fn(|context| self.wait.poll_ended(context)).await
    }
}

/// An answer whose wait may be ended from outside.
#[must_use = "an answer does nothing until it is awaited"]
pub(crate) struct Interruptible<'w, 'a, T> {
    answer: Answer<'a, T>,
    waits: &'w Arc<Waits>,
    unique: Unique,
    /// Since it was not ready at once.
    wait: Option<Box<Wait>>,
    /// An interrupt does not end the wait at once.
    is_sync: bool,
}

impl<T> Interruptible<'_, '_, T> {
    /// Ready when the wait was ended from outside.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Errno> {
        let Some(wait) = &mut self.wait else {
            return Poll::Pending;
        };
        let errno = ready!(wait.poll_ended(context));
        if errno != Errno::INTR || !self.is_sync || wait.rest.is_some() {
            return Poll::Ready(errno);
        }
        self.begin_to_wait(Some(Box::pin(tokio::time::sleep(PATIENCE))), context)
    }

    /// As [`poll_ended`](Self::poll_ended), of a wait that begins now.
    fn begin_to_wait(
        &mut self,
        rest: Option<Pin<Box<Sleep>>>,
        context: &mut Context<'_>,
    ) -> Poll<Errno> {
        match self.waits.enter(self.unique, Cause::Answer) {
            Ok(mut wait) => {
                wait.rest = rest;
                self.wait.insert(Box::new(wait)).poll_ended(context)
            }
            Err(errno) => Poll::Ready(errno),
        }
    }
}

impl<T> Future for Interruptible<'_, '_, T> {
    type Output = vfsd_backend::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(errno) = this.poll_ended(context) {
            return Poll::Ready(Err(errno.into()));
        }
        if let Poll::Ready(result) = Pin::new(&mut this.answer).poll(context) {
            return Poll::Ready(result);
        }
        if this.wait.is_none()
            && let Poll::Ready(errno) = this.begin_to_wait(None, context)
        {
            return Poll::Ready(Err(errno.into()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_in_a_session_that_has_ended() {
        let waits = Waits::new(2, Admission::new(1));
        let mut before = waits.for_lock(Unique(1)).unwrap();
        waits.end_lock_waits();
        assert_eq!(before.ended().await, Errno::AGAIN);
        let mut between = waits
            .for_lock(Unique(2))
            .expect("only those that waited were ended");
        let never = || Answer::<()>::later(std::future::pending());
        let mut answer = waits.interruptible(Unique(3), never());
        assert!(poll_once(&mut answer).is_pending());
        waits.close();
        assert_eq!(between.ended().await, Errno::AGAIN);
        assert!(answer.await.unwrap_err().is(Errno::IO));
        assert_eq!(waits.for_lock(Unique(4)).err(), Some(Errno::AGAIN));
        let late = waits.interruptible(Unique(5), never());
        assert!(late.await.unwrap_err().is(Errno::IO));
        drop((before, between));
        assert_eq!(waits.lock_waits(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_is_interrupted_is_not_waited_for_and_no_other_is() {
        let waits = Waits::new(2, Admission::new(1));
        let ready = waits.interruptible(Unique(1), Answer::ok(7));
        assert!(matches!(ready.await, Ok(7)));
        assert!(!waits.interrupt(Unique(1)), "it has not waited");
        let never = || Answer::<()>::later(std::future::pending());
        let mut first = waits.interruptible(Unique(2), never());
        let mut second = waits.interruptible(Unique(3), never());
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
        // For a lock alone is not waited while a ring is drained.
        waits.end_lock_waits();
        assert!(poll_once(&mut first).is_pending());
        assert!(waits.interrupt(Unique(2)) && !waits.interrupt(Unique(2)));
        assert!(first.await.unwrap_err().is(Errno::INTR));
        assert!(poll_once(&mut second).is_pending());
        drop(second);
        assert!(!waits.interrupt(Unique(3)), "it is gone");
    }

    #[tokio::test]
    async fn blocking_work_whose_request_is_interrupted_before_it_begins_is_not_done() {
        let waits = Waits::new(2, Admission::new(1));
        let work = || -> vfsd_backend::Result<()> { panic!("not now") };
        let mut answer = waits.interruptible(Unique(1), Answer::blocking(work));
        assert!(poll_once(&mut answer).is_pending());
        assert!(waits.interrupt(Unique(1)));
        assert!(answer.await.unwrap_err().is(Errno::INTR));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_is_interrupted_is_waited_for_a_little_longer() {
        let waits = Waits::new(2, Admission::new(1));
        let (done, answer) = oneshot::channel::<()>();
        let done_soon = Answer::later(async { answer.await.map_err(|_| Errno::IO.into()) });
        let mut soon = waits.interruptible_sync(Unique(1), done_soon);
        let never = || Answer::<()>::later(std::future::pending());
        let mut out_of_reach = waits.interruptible_sync(Unique(2), never());
        assert!(poll_once(&mut soon).is_pending() && poll_once(&mut out_of_reach).is_pending());
        assert!(waits.interrupt(Unique(1)) && waits.interrupt(Unique(2)));
        assert!(poll_once(&mut soon).is_pending() && poll_once(&mut out_of_reach).is_pending());
        tokio::time::advance(PATIENCE / 2).await;
        assert!(poll_once(&mut out_of_reach).is_pending());
        done.send(()).unwrap();
        soon.await.unwrap();
        assert!(out_of_reach.await.unwrap_err().is(Errno::INTR));
        assert!(!waits.interrupt(Unique(1)) && !waits.interrupt(Unique(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_was_interrupted_ends_with_its_session() {
        let waits = Waits::new(2, Admission::new(1));
        let never = Answer::<()>::later(std::future::pending());
        let mut sync = waits.interruptible_sync(Unique(1), never);
        assert!(poll_once(&mut sync).is_pending());
        assert!(waits.interrupt(Unique(1)));
        assert!(poll_once(&mut sync).is_pending());
        waits.close();
        let ended = poll_once(&mut sync).map(|result| result.unwrap_err().is(Errno::IO));
        assert_eq!(ended, Poll::Ready(true));
    }

    fn poll_once<T>(answer: &mut Interruptible<'_, '_, T>) -> Poll<vfsd_backend::Result<T>> {
        Pin::new(answer).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
