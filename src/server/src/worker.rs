//! Takes a thread's requests in, and ends each of them once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::runtime::EnterGuard;
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::NodeId;

use crate::admission::Deferred;
use crate::exchange::{Exchange, Incoming};
use crate::metrics::Counter;
use crate::session::Session;
use crate::threads::Threads;

/// Longer buffers are not kept for the next request.
const SPARE: usize = 4096;

/// Takes one thread's requests in. That of a session is [`Session::worker`].
pub trait RequestWorker<E: Exchange> {
    /// Takes a request in. What can be answered at once is answered before this returns; the rest
    /// moves to the runtime. Neither a request nor a panic while serving it comes back to the
    /// caller: its exchange is always ended.
    fn submit(&mut self, incoming: Incoming<E>) -> Submitted;

    /// Whether the session may be given requests: not while as many as it may have were
    /// [deferred](Submitted::Deferred). Cannot have become false but by a request that was deferred.
    fn has_room(&self) -> bool {
        true
    }

    /// Ready when the session may be given requests again. For a transport to wait for, together with
    /// whatever else may end its wait.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    /// An empty buffer for [`Incoming::inline`]: that of a request that has ended, so that none has
    /// to be allocated for each.
    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The thread is going to wait for requests: that time is none that the next one took.
    ///
    /// Requests that are submitted without a pause between them are taken to have waited for one
    /// another, which spares a look at the clock for each.
    fn pause(&mut self) {}
}

/// What became of a request that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It has ended.
    Ended,
    /// It goes on in the runtime.
    Deferred,
}

/// What is left of a request.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) session: Arc<Session>,
    /// The buffer, for another one.
    pub(crate) inline: Vec<u8>,
    /// Which kind it was, and whether it failed. None for what is not counted by kind.
    pub(crate) ended: Option<(Opcode, bool)>,
}

/// Serves requests one after the other, in the same place: the memory of one that was ready at
/// once is used for the next.
pub(crate) struct SessionWorker<'a, S, F> {
    session: &'a Arc<Session>,
    counter: Counter<'a>,
    serve: S,
    work: Pin<Box<Option<F>>>,
    /// A hold on the session that goes from request to request, so that threads do not all count
    /// theirs in one place.
    hold: Option<Arc<Session>>,
    buffer: Vec<u8>,
    /// When the last request ended, if the thread has been busy since.
    clock: Option<Instant>,
    /// Left when all else is dropped.
    _runtime: EnterGuard<'a>,
}

impl<'a, S, F> SessionWorker<'a, S, F> {
    /// One that serves each request by the future that `serve` gives.
    pub(crate) fn new(session: &'a Arc<Session>, serve: S) -> Self {
        Self {
            session,
            counter: session.metrics.counter(),
            serve,
            work: Box::pin(None),
            hold: None,
            buffer: Vec::new(),
            clock: None,
            _runtime: session.runtime.enter(),
        }
    }
}

impl<E, S, F> RequestWorker<E> for SessionWorker<'_, S, F>
where
    E: Exchange,
    S: FnMut(Arc<Session>, Incoming<E>) -> F,
    F: Future<Output = Served> + Send + 'static,
{
    fn submit(&mut self, incoming: Incoming<E>) -> Submitted {
        let started = self.clock.take().unwrap_or_else(Instant::now);
        let session = self.hold.take();
        let session = session.unwrap_or_else(|| Arc::clone(self.session));
        let node = node_of(&incoming.inline);
        self.work.set(Some((self.serve)(session, incoming)));
        let mut context = Context::from_waker(Waker::noop());
        let work = AssertUnwindSafe(|| poll(self.work.as_mut(), &mut context));
        match catch_unwind(work) {
            Ok(Poll::Ready(Some(served))) => {
                let Served {
                    session,
                    inline,
                    ended,
                } = served;
                let now = Instant::now();
                if let Some((opcode, failed)) = ended {
                    let took = now.saturating_duration_since(started);
                    self.counter.record(opcode, took, failed);
                }
                self.clock = Some(now);
                self.hold = Some(session);
                if inline.capacity() <= SPARE {
                    self.buffer = inline;
                }
            }
            Ok(Poll::Pending) => {
                self.session
                    .metrics
                    .deferred
                    .fetch_add(1, Ordering::Relaxed);
                let work = std::mem::replace(&mut self.work, Box::pin(None));
                let deferred = self.session.holdings.admission.defer();
                let threads = self.session.threads_of(node);
                let work = end_elsewhere(work, started, threads, deferred);
                self.session.runtime.spawn(work);
                return Submitted::Deferred;
            }
            // Counted and answered as it unwound.
            Ok(Poll::Ready(None)) | Err(_) => {}
        }
        Submitted::Ended
    }

    fn has_room(&self) -> bool {
        self.session.holdings.admission.has_room()
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.session.holdings.admission.room())
    }

    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer
    }

    fn pause(&mut self) {
        self.clock = None;
    }
}

fn poll<F: Future>(
    work: Pin<&mut Option<F>>,
    context: &mut Context<'_>,
) -> Poll<Option<F::Output>> {
    match work.as_pin_mut() {
        Some(work) => work.poll(context).map(Some),
        None => Poll::Ready(None),
    }
}

/// The number of the node that a request is about.
fn node_of(inline: &[u8]) -> Option<NodeId> {
    let number = inline.get(16..)?.first_chunk()?;
    Some(NodeId(u64::from_ne_bytes(*number)))
}

/// A request that was not ready at once.
async fn end_elsewhere<F>(
    mut work: Pin<Box<Option<F>>>,
    started: Instant,
    threads: Arc<Threads>,
    _deferred: Deferred,
) where
    F: Future<Output = Served>,
{
    let polled = std::future::poll_fn(|context| poll(work.as_mut(), context));
    let served = threads.run(polled).await;
    if let Some(Served {
        session,
        ended: Some((opcode, failed)),
        ..
    }) = served
    {
        session.metrics.record(opcode, started.elapsed(), failed);
    }
}
