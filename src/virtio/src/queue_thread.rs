//! The thread of a queue: takes chains as they come and submits what they ask for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vfsd_backend::take_seat;
use vfsd_server::{Incoming, Intake, Submitted};

use crate::ChainExchange;
use crate::consumer::Consumer;
use crate::lookout::Lookout;
use crate::notifier::{Bell, Kick, Wake};
use crate::polling::Poller;
use crate::ring::{Ring, RingFault};
use crate::seat::{Absence, Seat, Sitter};
use crate::users::Users;

/// Chains that are taken at most before the thread looks whether it is to stop. Queues do not
/// starve each other: each has a thread.
const BUDGET: usize = 64;

/// Where a thread submits what it takes from its ring.
type Requests<'a> = dyn Intake<ChainExchange> + 'a;

/// What the threads of a device's queues have in common.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) lookout: Arc<Lookout>,
    /// How long a thread looks at its ring at most before it sleeps.
    pub(crate) poll_limit: Duration,
}

/// What serves a queue, as seen from outside: a thread, and those that it was relieved of while
/// they wait.
#[derive(Debug)]
pub(crate) struct QueueThread {
    post: Arc<Post>,
}

/// What a thread needs to serve a queue.
#[derive(Debug)]
pub(crate) struct Post {
    ring: Arc<Ring>,
    kick: Arc<Kick>,
    service: Service,
    seat: Arc<Seat>,
    stop: AtomicBool,
    /// Ends a wait of the thread that has the seat.
    bell: Arc<Bell>,
    /// The thread that has the seat, as long as there is one.
    running: Users,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    /// Of those that were started, at least those that have not ended.
    handles: Vec<JoinHandle<()>>,
    /// Which of them has the seat, or had it to its end.
    seated: Option<ThreadId>,
}

/// Why a thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It was asked to.
    Stopped,
    /// Another thread serves the queue.
    Relieved,
}

impl QueueThread {
    /// Starts to serve `ring`.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors to give.
    pub(crate) fn start(ring: Arc<Ring>, kick: Arc<Kick>, service: Service) -> io::Result<Self> {
        let post = Arc::new(Post {
            ring,
            kick,
            service,
            seat: Arc::default(),
            stop: AtomicBool::new(false),
            bell: Arc::new(Bell::new()?),
            running: Users::default(),
            threads: Mutex::default(),
        });
        post.service.lookout.include(&post);
        post.running.enter();
        post.spawn(|_| true)?;
        Ok(Self { post })
    }

    /// Asks the thread to end when it has submitted what it took. One that is held up by a request
    /// counts as ended: it does nothing more with the ring than to give that request back.
    pub(crate) fn ask_to_stop(&self) {
        self.post.stop.store(true, Ordering::SeqCst);
        self.post.bell.ring();
        self.dismiss();
    }

    /// Ends the service of a thread that is held up now, after it was asked to stop.
    pub(crate) fn dismiss(&self) {
        if let Some(absence) = self.post.seat.absence()
            && self.post.seat.take_over(absence)
        {
            self.post.threads.lock().seated = None;
            // From now on the driver is interrupted at once for what it gives back.
            self.post.ring.end_batches();
            self.post.running.leave();
        }
    }

    /// Waits until the thread, which does not run any more, is gone with all it had. One that was
    /// dismissed is not waited for.
    pub(crate) fn join(self) {
        let handle = {
            let mut threads = self.post.threads.lock();
            let seated = threads.seated;
            let found = threads
                .handles
                .iter()
                .position(|handle| Some(handle.thread().id()) == seated);
            found.map(|at| threads.handles.swap_remove(at))
        };
        if handle.is_some_and(|handle| handle.join().is_err()) {
            tracing::error!(
                queue = self.post.ring.name(),
                "the thread of a queue panicked"
            );
        }
    }

    /// The thread that serves the ring, while it does anything.
    pub(crate) fn running(&self) -> &Users {
        &self.post.running
    }
}

impl Post {
    /// The absence of the thread that has the seat.
    pub(crate) fn absence(&self) -> Option<Absence> {
        self.seat.absence()
    }

    /// Lets a new thread take over from the one that is away, unless that comes back before.
    pub(crate) fn relieve(self: &Arc<Self>, absence: Absence) {
        if let Err(error) = self.spawn(move |post| post.seat.take_over(absence)) {
            tracing::warn!(
                queue = self.ring.name(),
                "no thread relieves the one that waits for the storage: {error}"
            );
        }
    }

    /// Starts a thread that serves the queue if it gets the seat.
    fn spawn(
        self: &Arc<Self>,
        claim: impl FnOnce(&Self) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let post = Arc::clone(self);
        let body = move || {
            if claim(&post) {
                post.serve();
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

    fn serve(&self) {
        let sitter = Rc::new(Sitter::new(
            Arc::clone(&self.seat),
            Arc::clone(&self.service.lookout),
        ));
        take_seat(Rc::clone(&sitter) as Rc<dyn vfsd_backend::Seat>);
        self.threads.lock().seated = Some(std::thread::current().id());
        let _presence = Presence {
            post: self,
            sitter: &sitter,
        };
        self.ring.begin_batches();
        let mut left = Ok(Leave::Stopped);
        let consumer = &self.service.consumer;
        consumer.attend(&mut |intake| left = self.work(&sitter, intake));
        match left {
            Ok(Leave::Relieved) => return,
            Ok(Leave::Stopped) => {}
            // Memory that was taken away reads as zeros, which look like another fault.
            Err(_) if self.ring.available().memory.lost() => {
                self.ring.break_down(RingFault::MemoryLost);
            }
            Err(fault) => self.ring.break_down(fault),
        }
        self.ring.end_batches();
    }

    fn work(&self, sitter: &Sitter, intake: &mut Requests<'_>) -> Result<Leave, RingFault> {
        let mut poller = Poller::new(self.service.poll_limit);
        while !self.is_to_stop() {
            if !intake.has_room() {
                self.wait_for_room(intake);
                continue;
            }
            self.ring.available().spare_kicks();
            let emptied = self.take_batch(sitter, intake);
            if sitter.is_relieved() {
                return Ok(Leave::Relieved);
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
            intake.pause();
            let asleep = Instant::now();
            match self.kick.wait(self.bell.as_ref()) {
                Wake::Dead => return Err(RingFault::DeadKick),
                Wake::Called => self.bell.silence(),
                Wake::Kicked => {}
            }
            poller.slept(asleep, Instant::now());
        }
        Ok(Leave::Stopped)
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until the session takes more requests, or the thread is to stop. What the driver makes
    /// available meanwhile stays in the ring, and the driver need not kick for it.
    fn wait_for_room(&self, intake: &mut Requests<'_>) {
        self.ring.announce();
        intake.pause();
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut context = Context::from_waker(&waker);
        let mut room = intake.room();
        while !self.is_to_stop() && Pin::new(&mut room).poll(&mut context).is_pending() {
            self.bell.wait();
        }
    }

    /// Submits what the driver made available, up to the budget, and says whether that was all.
    /// A thread that was relieved, or is to stop, takes nothing more, nor does one whose session has no
    /// room for it.
    fn take_batch(&self, sitter: &Sitter, intake: &mut Requests<'_>) -> Result<bool, RingFault> {
        for _ in 0..BUDGET {
            if sitter.is_relieved() || self.is_to_stop() {
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
            if let Some(request) = ChainExchange::open(ring, head, chain, intake.buffer())
                && self.submit(intake, request) == Submitted::Deferred
                && !intake.has_room()
            {
                break;
            }
        }
        Ok(false)
    }

    /// Submits a request. One that panics has been answered by its exchange, and harms no other.
    fn submit(&self, intake: &mut Requests<'_>, request: Incoming<ChainExchange>) -> Submitted {
        catch_unwind(AssertUnwindSafe(|| intake.submit(request))).unwrap_or_else(|_| {
            tracing::error!(queue = self.ring.name(), "a request panicked on its queue");
            Submitted::Ended
        })
    }
}

/// Makes the thread that has the seat count as running until it ends, whichever way that is.
struct Presence<'a> {
    post: &'a Post,
    sitter: &'a Sitter,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        // Who took the seat over counts instead.
        if !self.sitter.is_relieved() {
            self.post.running.leave();
        }
    }
}
