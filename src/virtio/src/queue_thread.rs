//! The thread of a queue: takes chains as they come and submits what they ask for.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use crate::ChainExchange;
use crate::consumer::Consumer;
use crate::notifier::{Kick, Wake};
use crate::ring::{Available, Ring, RingFault};
use crate::users::Users;

/// Chains that are taken at most before the thread looks whether it is to stop. Queues do not
/// starve each other: each has a thread.
const BUDGET: usize = 64;

/// A queue's thread, as seen from outside.
#[derive(Debug)]
pub(crate) struct QueueThread {
    shared: Arc<Shared>,
    handle: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    wake: OwnedFd,
    /// The thread itself, while it runs.
    running: Users,
}

impl QueueThread {
    /// Starts to serve `ring`.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors to give.
    pub(crate) fn start(
        ring: Arc<Ring>,
        kick: Arc<Kick>,
        consumer: Arc<dyn Consumer>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            running: Users::default(),
        });
        let name = format!("vfsd-{}", ring.name());
        let presence = Presence::new(Arc::clone(&shared));
        let body = move || {
            serve(&ring, &kick, consumer.as_ref(), &presence.shared);
            // Nothing of the ring is kept beyond the thread's presence.
            drop((ring, kick, consumer));
            drop(presence);
        };
        let handle = std::thread::Builder::new().name(name).spawn(body)?;
        Ok(Self { shared, handle })
    }

    /// Asks the thread to end when it has submitted what it took.
    pub(crate) fn ask_to_stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // An eventfd that is full is readable already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// The thread itself, while it does anything.
    pub(crate) fn running(&self) -> &Users {
        &self.shared.running
    }

    /// Waits until the thread, which does nothing any more, is gone with all it had.
    pub(crate) fn join(self) {
        if self.handle.join().is_err() {
            tracing::error!("the thread of a queue panicked");
        }
    }
}

/// Makes the thread count as running until it is dropped, whichever way the thread ends.
struct Presence {
    shared: Arc<Shared>,
}

impl Presence {
    fn new(shared: Arc<Shared>) -> Self {
        shared.running.enter();
        Self { shared }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shared.running.leave();
    }
}

fn serve(ring: &Arc<Ring>, kick: &Kick, consumer: &dyn Consumer, shared: &Shared) {
    let mut available = ring.available();
    ring.begin_batches();
    if let Err(fault) = work(ring, &mut available, kick, consumer, shared) {
        ring.break_down(fault);
    }
    ring.end_batches();
}

fn work(
    ring: &Arc<Ring>,
    available: &mut Available,
    kick: &Kick,
    consumer: &dyn Consumer,
    shared: &Shared,
) -> Result<(), RingFault> {
    while !shared.stop.load(Ordering::SeqCst) {
        available.spare_kicks();
        let emptied = take_batch(ring, available, consumer);
        ring.flush();
        if available.memory.lost() {
            return Err(RingFault::MemoryLost);
        }
        if !emptied? || available.ask_for_kicks()? {
            continue;
        }
        if kick.wait(&shared.wake) == Wake::Dead {
            return Err(RingFault::DeadKick);
        }
    }
    Ok(())
}

/// Submits what the driver made available, up to the budget, and says whether that was all.
fn take_batch(
    ring: &Arc<Ring>,
    available: &mut Available,
    consumer: &dyn Consumer,
) -> Result<bool, RingFault> {
    for _ in 0..BUDGET {
        let Some(head) = ring.take(available)? else {
            return Ok(true);
        };
        let chain = ring.walk(available, head);
        if let Some(request) = ChainExchange::open(Arc::clone(ring), head, chain) {
            submit(ring, consumer, request);
        }
    }
    Ok(false)
}

/// Submits a request. One that panics has been answered by its exchange, and harms no other.
fn submit(ring: &Ring, consumer: &dyn Consumer, request: vfsd_server::Incoming<ChainExchange>) {
    if catch_unwind(AssertUnwindSafe(|| consumer.submit(request))).is_err() {
        tracing::error!(queue = ring.name(), "a request panicked on its queue");
    }
}
