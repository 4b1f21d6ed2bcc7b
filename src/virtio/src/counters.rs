//! What a device counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_server::LogThrottle;

use crate::ring::{ChainFault, RingFault};

/// What one queue counts, over all its starts. One thread pops and few push, so queues do not
/// share these.
#[derive(Debug, Default)]
pub(crate) struct QueueCounters {
    popped: AtomicU64,
    pushed: AtomicU64,
    lost: AtomicU64,
    faults: Arc<FaultCounters>,
}

#[derive(Debug, Default)]
struct FaultCounters {
    chains: [LogThrottle; ChainFault::ALL.len()],
    rings: [LogThrottle; RingFault::ALL.len()],
    replies: LogThrottle,
    refused: LogThrottle,
}

impl QueueCounters {
    /// A chain was taken.
    pub(crate) fn popped(&self) {
        self.popped.fetch_add(1, Ordering::Relaxed);
    }

    /// A chain was given back.
    pub(crate) fn pushed(&self) {
        self.pushed.fetch_add(1, Ordering::Relaxed);
    }

    /// A chain could not be given back: its ring is gone.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// A chain made no sense.
    pub(crate) fn bad_chain(&self, queue: &str, fault: ChainFault) {
        for (throttle, (kind, reason)) in self.faults.chains.iter().zip(ChainFault::ALL) {
            if kind == fault
                && let Some(suppressed) = throttle.admit()
            {
                tracing::warn!(queue, reason, suppressed, "the guest made an invalid chain");
            }
        }
    }

    /// A ring made no sense, and was stopped.
    pub(crate) fn broken(&self, queue: &str, fault: RingFault) {
        for (throttle, (kind, reason)) in self.faults.rings.iter().zip(RingFault::ALL) {
            if kind == fault
                && let Some(suppressed) = throttle.admit()
            {
                tracing::error!(
                    queue,
                    reason,
                    suppressed,
                    "a ring is broken, and stopped until the device is reset"
                );
            }
        }
    }

    /// A request was refused, because those before it hold too much memory.
    pub(crate) fn refused(&self, queue: &str) {
        if let Some(suppressed) = self.faults.refused.admit() {
            tracing::warn!(
                queue,
                suppressed,
                "a request was refused: too much of others is waiting"
            );
        }
    }

    /// The server's reply did not have the length it claimed, or did not fit.
    pub(crate) fn wrong_reply(&self, queue: &str, claimed: u32, length: usize, room: usize) {
        if let Some(suppressed) = self.faults.replies.admit() {
            tracing::error!(
                queue,
                claimed,
                length,
                room,
                suppressed,
                "a reply has the wrong length"
            );
        }
    }
}

/// What the queues of a device count.
#[derive(Debug)]
pub(crate) struct Counters {
    queues: Vec<Arc<QueueCounters>>,
    faults: Arc<FaultCounters>,
    connections: AtomicU64,
}

impl Counters {
    /// For that many queues, the high-priority one included.
    pub(crate) fn new(queues: usize) -> Self {
        let faults = Arc::new(FaultCounters::default());
        let queue = || {
            Arc::new(QueueCounters {
                faults: Arc::clone(&faults),
                ..QueueCounters::default()
            })
        };
        let queues = std::iter::repeat_with(queue).take(queues).collect();
        Self {
            queues,
            faults,
            connections: AtomicU64::new(0),
        }
    }

    /// One for each queue, in their order.
    pub(crate) fn queues(&self) -> &[Arc<QueueCounters>] {
        &self.queues
    }

    /// A front end connected.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        let sum = |counter: fn(&QueueCounters) -> &AtomicU64| {
            self.queues.iter().fold(0_u64, |sum, queue| {
                sum.saturating_add(counter(queue).load(Ordering::Relaxed))
            })
        };
        let names = |throttles: &[LogThrottle], all: Vec<&'static str>| {
            all.into_iter()
                .zip(throttles.iter().map(LogThrottle::count))
                .collect()
        };
        CountersSnapshot {
            connections: self.connections.load(Ordering::Relaxed),
            // In this order: what is pushed meanwhile was popped before.
            chains_lost: sum(|queue| &queue.lost),
            chains_pushed: sum(|queue| &queue.pushed),
            chains_popped: sum(|queue| &queue.popped),
            requests_refused: self.faults.refused.count(),
            wrong_replies: self.faults.replies.count(),
            bad_chains: names(
                &self.faults.chains,
                ChainFault::ALL.map(|(_, name)| name).into(),
            ),
            broken_rings: names(
                &self.faults.rings,
                RingFault::ALL.map(|(_, name)| name).into(),
            ),
        }
    }
}

/// What a device counted since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Front ends that connected.
    pub connections: u64,
    /// Chains taken from rings. Less those pushed and lost, it is what is in flight.
    pub chains_popped: u64,
    /// Chains given back.
    pub chains_pushed: u64,
    /// Chains that were finished only after their ring was gone.
    pub chains_lost: u64,
    /// Requests refused with ENOMEM, because those before them hold too much memory.
    pub requests_refused: u64,
    /// Replies of the server whose length was wrong: always zero but for a defect of ours.
    pub wrong_replies: u64,
    /// Invalid chains, by reason.
    pub bad_chains: Vec<(&'static str, u64)>,
    /// Rings stopped because they made no sense, by reason.
    pub broken_rings: Vec<(&'static str, u64)>,
}
