//! A queue as the front end sets it up, and when its ring runs.
//!
//! A ring runs while it has a size, addresses and a kick, and is enabled. It is stopped by
//! GET_VRING_BASE, by being disabled, and by a reset; each drains it: the thread ends, and every
//! request that was taken is given back, before the front end gets its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vfsd_exec::InFlightCount;

use crate::connection::{FrontEnd, Refusal};
use crate::counters::QueueCounters;
use crate::memory::MemoryMap;
use crate::notifier::{Call, Kick};
use crate::queue_thread::{QueueThread, Service};
use crate::ring::{Addresses, Ring, RingFault, Setup};

/// How often a wait looks whether it still makes sense.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// After how long a wait is worth a line in the log.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// What a queue shares with the others of its connection.
pub(crate) struct Surroundings<'a> {
    pub(crate) memory: &'a Arc<MemoryMap>,
    pub(crate) service: &'a Service,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    pub(crate) event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    pub(crate) indirect: bool,
    /// For whom a wait goes on.
    pub(crate) front_end: &'a FrontEnd,
}

/// One of the device's queues.
#[derive(Debug)]
pub(crate) struct Queue {
    name: String,
    counters: Arc<QueueCounters>,
    size: Option<u16>,
    addresses: Option<Addresses>,
    next_available: u16,
    kick: Option<Arc<Kick>>,
    call: Option<Arc<Call>>,
    error: Option<Arc<Call>>,
    enabled: bool,
    run: Option<Run>,
}

/// A ring that was started and not yet drained.
#[derive(Debug)]
struct Run {
    ring: Arc<Ring>,
    thread: Option<QueueThread>,
}

impl Queue {
    /// The queue with this index, not set up.
    pub(crate) fn new(index: usize, counters: Arc<QueueCounters>) -> Self {
        let name = match index.checked_sub(1) {
            None => "hiprio".to_owned(),
            Some(number) => format!("queue-{number}"),
        };
        Self {
            name,
            counters,
            size: None,
            addresses: None,
            next_available: 0,
            kick: None,
            call: None,
            error: None,
            enabled: false,
            run: None,
        }
    }

    fn must_not_run(&self) -> Result<(), Refusal> {
        match &self.run {
            Some(_) => Err(Refusal::Running(self.name.clone())),
            None => Ok(()),
        }
    }

    /// SET_VRING_NUM.
    pub(crate) fn set_size(&mut self, size: u32) -> Result<(), Refusal> {
        self.must_not_run()?;
        let fits = size.is_power_of_two() && size <= crate::ring::MAX_SIZE;
        self.size = Some(
            u16::try_from(size)
                .ok()
                .filter(|_| fits)
                .ok_or(Refusal::QueueSize(size))?,
        );
        Ok(())
    }

    /// SET_VRING_ADDR.
    pub(crate) fn set_addresses(
        &mut self,
        addresses: Addresses,
        around: &Surroundings<'_>,
    ) -> Result<(), Refusal> {
        self.must_not_run()?;
        if let Some(size) = self.size
            && !Ring::fits(around.memory, &self.setup(size, addresses, around))
        {
            return Err(Refusal::RingOutsideMemory(self.name.clone()));
        }
        self.addresses = Some(addresses);
        self.refresh(around)
    }

    fn setup(&self, size: u16, addresses: Addresses, around: &Surroundings<'_>) -> Setup {
        Setup {
            size,
            addresses,
            event_idx: around.event_idx,
            indirect: around.indirect,
            next_available: self.next_available,
        }
    }

    /// SET_VRING_BASE.
    pub(crate) fn set_base(&mut self, base: u32) -> Result<(), Refusal> {
        self.must_not_run()?;
        self.next_available = u16::try_from(base).map_err(|_| Refusal::Base(base))?;
        Ok(())
    }

    /// SET_VRING_KICK: from now on the queue is started.
    pub(crate) fn set_kick(
        &mut self,
        kick: Kick,
        around: &Surroundings<'_>,
    ) -> Result<(), Refusal> {
        self.pause(around)?;
        self.kick = Some(Arc::new(kick));
        self.refresh(around)
    }

    /// SET_VRING_CALL.
    pub(crate) fn set_call(&mut self, call: Option<Call>) {
        self.call = call.map(Arc::new);
        if let Some(run) = &self.run {
            run.ring.set_call(self.call.clone());
        }
    }

    /// SET_VRING_ERR; counts from the next start.
    pub(crate) fn set_error(&mut self, error: Option<Call>) {
        self.error = error.map(Arc::new);
    }

    /// SET_VRING_ENABLE.
    pub(crate) fn set_enabled(
        &mut self,
        enabled: bool,
        around: &Surroundings<'_>,
    ) -> Result<(), Refusal> {
        self.enabled = enabled;
        if enabled {
            self.refresh(around)
        } else {
            self.drain(around)
        }
    }

    /// GET_VRING_BASE: drains and stops the queue, and says which available entry is next.
    pub(crate) fn stop(&mut self, around: &Surroundings<'_>) -> Result<u16, Refusal> {
        self.drain(around)?;
        self.kick = None;
        self.call = None;
        Ok(self.next_available)
    }

    /// Drains the queue and forgets its set-up; where to signal stays known.
    pub(crate) fn reset(&mut self, around: &Surroundings<'_>) -> Result<(), Refusal> {
        self.enabled = false;
        self.drain(around)?;
        self.size = None;
        self.addresses = None;
        self.next_available = 0;
        self.kick = None;
        Ok(())
    }

    /// Starts the ring, or its thread, if everything is there that it needs.
    pub(crate) fn refresh(&mut self, around: &Surroundings<'_>) -> Result<(), Refusal> {
        let (true, Some(kick), Some(size), Some(addresses)) =
            (self.enabled, &self.kick, self.size, self.addresses)
        else {
            return Ok(());
        };
        let setup = self.setup(size, addresses, around);
        let run = match &mut self.run {
            Some(run) => run,
            none => {
                let ring = Ring::new(
                    self.name.clone(),
                    setup,
                    Arc::clone(around.memory),
                    self.call.clone(),
                    self.error.clone(),
                    Arc::clone(&self.counters),
                )
                .ok_or_else(|| Refusal::RingOutsideMemory(self.name.clone()))?;
                tracing::debug!(queue = self.name, ?setup, "ring started");
                none.insert(Run {
                    ring: Arc::new(ring),
                    thread: None,
                })
            }
        };
        if run.thread.is_none() && !run.ring.is_broken() {
            let thread = QueueThread::start(
                Arc::clone(&run.ring),
                Arc::clone(kick),
                around.service.clone(),
            )
            .map_err(Refusal::Thread)?;
            run.thread = Some(thread);
        }
        Ok(())
    }

    /// Ends the thread. Requests that it submitted go on.
    pub(crate) fn pause(&mut self, around: &Surroundings<'_>) -> Result<(), Refusal> {
        let Some(run) = &mut self.run else {
            return Ok(());
        };
        if let Some(thread) = run.thread.take() {
            thread.ask_to_stop();
            if !wait(&self.name, thread.running(), around, || thread.dismiss()) {
                run.ring.detach();
                self.run = None;
                return Err(Refusal::Abandoned);
            }
            thread.join();
        }
        Ok(())
    }

    /// Lets the ring, whose thread is paused, go on in another map of memory.
    pub(crate) fn rebind(&mut self, memory: &Arc<MemoryMap>) {
        if let Some(run) = &self.run
            && !run.ring.rebind(memory)
        {
            run.ring.break_down(RingFault::OutsideMemory);
        }
    }

    /// Stops the ring: its thread ends, and its requests are given back.
    fn drain(&mut self, around: &Surroundings<'_>) -> Result<(), Refusal> {
        let paused = self.pause(around);
        let Some(run) = self.run.take() else {
            return paused;
        };
        // A request may come to wait for a lock after the waits were cancelled, so they are
        // cancelled again and again.
        let drained = wait(&self.name, run.ring.requests(), around, || {
            around.service.session.cancel_waits()
        });
        if !drained {
            run.ring.detach();
            return Err(Refusal::Abandoned);
        }
        self.next_available = run.ring.available().next();
        tracing::debug!(
            queue = self.name,
            next = self.next_available,
            "ring stopped"
        );
        Ok(())
    }
}

/// Waits until nothing is `in_flight`, however long that takes, unless the front end is gone before.
fn wait(
    name: &str,
    in_flight: &InFlightCount,
    around: &Surroundings<'_>,
    hasten: impl Fn(),
) -> bool {
    let start = Instant::now();
    let mut warned = false;
    loop {
        if in_flight.count() > 0 {
            hasten();
        }
        if in_flight.wait_for_none(LOOK_INTERVAL) {
            return true;
        }
        if around.front_end.is_gone() {
            tracing::warn!(
                queue = name,
                running = in_flight.count(),
                "gave up waiting for requests; what they still write is discarded"
            );
            return false;
        }
        if !warned && start.elapsed() > LONG_WAIT {
            warned = true;
            tracing::warn!(
                queue = name,
                running = in_flight.count(),
                "the front end wants the queue stopped, but requests are still running"
            );
        }
    }
}
