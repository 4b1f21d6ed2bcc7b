//! The thread of a queue: takes chains as they come and submits what they ask for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vfsd_exec::{
    BlockingSection, HandOff, InFlightCount, Monitor, MonitoredQueue, MonitoredWorker,
};
use vfsd_server::{Incoming, RequestWorker, Submitted};

use crate::ChainExchange;
use crate::guest_session::GuestSession;
use crate::notifier::{Bell, Kick, Wake};
use crate::polling::RingPoller;
use crate::ring::{Ring, RingFault};

/// Chains that are taken at most before the thread looks whether it is to stop. Queues do not
/// starve each other: each has a thread.
const BUDGET: usize = 64;

/// Where a thread submits what it takes from its ring.
type Requests<'a> = dyn RequestWorker<ChainExchange> + 'a;

/// What the threads of a device's queues have in common.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) session: Arc<dyn GuestSession>,
    pub(crate) monitor: Arc<Monitor>,
    /// How long a thread looks at its ring at most before it sleeps.
    pub(crate) poll_limit: Duration,
}

/// What serves a queue, as seen from outside: a thread, and those that handed the queue off and
/// still wait.
#[derive(Debug)]
pub(crate) struct QueueThread {
    queue: Arc<ServedQueue>,
}

/// The thread that serves a queue.
type Worker = MonitoredWorker<ServedQueue>;

/// What a thread needs to serve a queue.
#[derive(Debug)]
struct ServedQueue {
    ring: Arc<Ring>,
    kick: Arc<Kick>,
    service: Service,
    state: HandOff,
    stop: AtomicBool,
    /// Ends a wait of the thread that serves the queue.
    bell: Arc<Bell>,
    /// The thread that serves the queue, as long as there is one.
    running: InFlightCount,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    /// Of those that were started, at least those that have not ended.
    handles: Vec<JoinHandle<()>>,
    /// Which of them serves the queue, or did so to its end.
    serving: Option<ThreadId>,
}

/// Why a thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was asked to.
    Stopped,
    /// Another thread serves the queue.
    HandedOff,
}

impl QueueThread {
    /// Starts to serve `ring`.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors to give.
    pub(crate) fn start(ring: Arc<Ring>, kick: Arc<Kick>, service: Service) -> io::Result<Self> {
        let queue = Arc::new(ServedQueue {
            ring,
            kick,
            service,
            state: HandOff::default(),
            stop: AtomicBool::new(false),
            bell: Arc::new(Bell::new()?),
            running: InFlightCount::default(),
            threads: Mutex::default(),
        });
        let watched: Weak<ServedQueue> = Arc::downgrade(&queue);
        queue.service.monitor.include(watched);
        queue.running.begin();
        queue.spawn(|_| true)?;
        Ok(Self { queue })
    }

    /// Asks the thread to end when it has submitted what it took. One that is held up by a request
    /// counts as ended: it does nothing more with the ring than to give that request back.
    pub(crate) fn ask_to_stop(&self) {
        self.queue.stop.store(true, Ordering::SeqCst);
        self.queue.bell.ring();
        self.dismiss();
    }

    /// Ends the service of a thread that is held up now, after it was asked to stop.
    pub(crate) fn dismiss(&self) {
        if let Some(section) = self.queue.state.section()
            && self.queue.state.claim(section)
        {
            self.queue.threads.lock().serving = None;
            // From now on the driver is interrupted at once for what it gives back.
            self.queue.ring.end_batches();
            self.queue.running.end();
        }
    }

    /// Waits until the thread, which does not run any more, is gone with all it had. One that was
    /// dismissed is not waited for.
    pub(crate) fn join(self) {
        let handle = {
            let mut threads = self.queue.threads.lock();
            let serving = threads.serving;
            let found = threads
                .handles
                .iter()
                .position(|handle| Some(handle.thread().id()) == serving);
            found.map(|at| threads.handles.swap_remove(at))
        };
        if handle.is_some_and(|handle| handle.join().is_err()) {
            tracing::error!(
                queue = self.queue.ring.name(),
                "the thread of a queue panicked"
            );
        }
    }

    /// The thread that serves the ring, while it does anything.
    pub(crate) fn running(&self) -> &InFlightCount {
        &self.queue.running
    }
}

impl MonitoredQueue for ServedQueue {
    fn state(&self) -> &HandOff {
        &self.state
    }

    fn hand_off(self: Arc<Self>, section: BlockingSection) {
        if let Err(error) = self.spawn(move |queue| queue.state.claim(section)) {
            tracing::warn!(
                queue = self.ring.name(),
                "no thread takes the queue over from one that waits for the storage: {error}"
            );
        }
    }
}

impl ServedQueue {
    /// Starts a thread that serves the queue if it can claim it.
    fn spawn(
        self: &Arc<Self>,
        claim: impl FnOnce(&Self) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        let body = move || {
            if claim(&queue) {
                queue.serve();
            }
        };
        let handle = std::thread::Builder::new()
            .name(format!("vfsd-{}", self.ring.name()))
            .spawn(body)?;
        let mut threads = self.threads.lock();
        threads.handles.retain(|handle| !handle.is_finished());
        threads.handles.push(handle);
        Ok(())
    }

    fn serve(self: &Arc<Self>) {
        let monitor = Arc::clone(&self.service.monitor);
        let worker = Rc::new(Worker::new(Arc::clone(self), monitor));
        vfsd_exec::register(Rc::clone(&worker) as Rc<dyn vfsd_exec::Worker>);
        self.threads.lock().serving = Some(std::thread::current().id());
        let _running = Running {
            queue: self,
            worker: &worker,
        };
        self.ring.begin_batches();
        let mut requests = self.service.session.worker();
        let ended = self.work(&worker, requests.as_mut());
        drop(requests);
        match ended {
            Ok(Outcome::HandedOff) => return,
            Ok(Outcome::Stopped) => {}
            // Memory that was taken away reads as zeros, which look like another fault.
            Err(_) if self.ring.available().memory.lost() => {
                self.ring.break_down(RingFault::MemoryLost);
            }
            Err(fault) => self.ring.break_down(fault),
        }
        self.ring.end_batches();
    }

    fn work(&self, worker: &Worker, requests: &mut Requests<'_>) -> Result<Outcome, RingFault> {
        let mut poller = RingPoller::new(self.service.poll_limit);
        while !self.is_to_stop() {
            if !requests.has_room() {
                self.wait_for_room(requests);
                continue;
            }
            self.ring.available().spare_kicks();
            let emptied = self.take_batch(worker, requests);
            if worker.is_handed_off() {
                return Ok(Outcome::HandedOff);
            }
            if self.is_to_stop() {
                // The ring may be abandoned, and its memory gone.
                emptied?;
                break;
            }
            self.ring.announce();
            let mut available = self.ring.available();
            if available.memory.lost() {
                return Err(RingFault::MemoryLost);
            }
            if !emptied?
                || poller.poll(|| available.is_ahead() || self.is_to_stop())
                || available.ask_for_kicks()?
            {
                continue;
            }
            drop(available);
            requests.pause();
            let asleep = Instant::now();
            match self.kick.wait(self.bell.as_ref()) {
                Wake::Dead => return Err(RingFault::DeadKick),
                Wake::Called => self.bell.silence(),
                Wake::Kicked => {}
            }
            poller.slept(asleep, Instant::now());
        }
        Ok(Outcome::Stopped)
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until the session takes more requests, or the thread is to stop. What the driver makes
    /// available meanwhile stays in the ring, and the driver need not kick for it.
    fn wait_for_room(&self, requests: &mut Requests<'_>) {
        self.ring.announce();
        requests.pause();
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut context = Context::from_waker(&waker);
        let mut room = requests.room();
        while !self.is_to_stop() && Pin::new(&mut room).poll(&mut context).is_pending() {
            self.bell.wait();
        }
    }

    /// Submits what the driver made available, up to the budget, and says whether that was all.
    /// A thread that handed the queue off, or is to stop, takes nothing more, nor does one whose session has no
    /// room for it.
    fn take_batch(&self, worker: &Worker, requests: &mut Requests<'_>) -> Result<bool, RingFault> {
        for _ in 0..BUDGET {
            if worker.is_handed_off() || self.is_to_stop() {
                break;
            }
            // Locked for each chain: whoever takes over while one is served must get at the rest.
            let taken = {
                let mut available = self.ring.available();
                self.ring
                    .take(&mut available)?
                    .map(|head| (head, self.ring.walk(&available, head)))
            };
            let Some((head, chain)) = taken else {
                return Ok(true);
            };
            let ring = Arc::clone(&self.ring);
            if let Some(request) = ChainExchange::open(ring, head, chain, requests.buffer())
                && self.submit(requests, request) == Submitted::Deferred
                && !requests.has_room()
            {
                break;
            }
        }
        Ok(false)
    }

    /// Submits a request. One that panics has been answered by its exchange, and harms no other.
    fn submit(&self, requests: &mut Requests<'_>, request: Incoming<ChainExchange>) -> Submitted {
        catch_unwind(AssertUnwindSafe(|| requests.submit(request))).unwrap_or_else(|_| {
            tracing::error!(queue = self.ring.name(), "a request panicked on its queue");
            Submitted::Ended
        })
    }
}

/// Makes the thread that serves the queue count as running until it ends, whichever way that is.
struct Running<'a> {
    queue: &'a ServedQueue,
    worker: &'a Worker,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Who claimed the queue counts instead.
        if !self.worker.is_handed_off() {
            self.queue.running.end();
        }
    }
}
