//! A split virtqueue (virtio 1.3, section 2.7), from the device's side.

mod available;
mod chain;
mod inflight;
mod moderation;
mod used;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use vfsd_exec::InFlightCount;

pub(crate) use self::available::Available;
pub(crate) use self::chain::{Chain, ChainFault};
use self::inflight::InFlight;
use self::used::{Interrupt, Used};
use crate::counters::QueueCounters;
use crate::memory::{MemoryMap, Part};
use crate::notifier::Call;

/// The largest split ring there can be.
pub(crate) const MAX_SIZE: u32 = 32_768;

const USED_FLAGS_AT: usize = 0;

/// Bytes of headers and arguments, copied out of guest memory, that the requests of a ring may hold
/// at a time. Linux has some hundred bytes in each; a ring of 1024 requests that all wait and set
/// extended attributes of 32 KiB fills it.
const COPIED_BYTES: usize = 32 << 20;

/// Why a ring is stopped until it is set up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingFault {
    IndexJump,
    HeadOutOfRange,
    HeadInFlight,
    MemoryLost,
    OutsideMemory,
    DeadKick,
}

impl RingFault {
    /// All of them, with what the log and the metrics call them.
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::IndexJump, "index_jump"),
        (Self::HeadOutOfRange, "head_out_of_range"),
        (Self::HeadInFlight, "head_in_flight"),
        (Self::MemoryLost, "memory_lost"),
        (Self::OutsideMemory, "outside_memory"),
        (Self::DeadKick, "dead_kick"),
    ];
}

/// Where the front end sees the parts of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// What a ring is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Descriptors; a power of two.
    pub(crate) size: u16,
    pub(crate) addresses: Addresses,
    /// VIRTIO_F_EVENT_IDX.
    pub(crate) event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC.
    pub(crate) indirect: bool,
    /// Index of the first available entry to take.
    pub(crate) next_available: u16,
}

/// The parts of a ring in our own address space.
#[derive(Debug)]
pub(crate) struct Parts {
    descriptors: Part,
    available: Part,
    used: Part,
    /// Offset of used_event in `available`.
    used_event_at: usize,
    /// Offset of avail_event in `used`.
    avail_event_at: usize,
}

impl Parts {
    /// The parts, if each lies aligned within one region of `memory`.
    fn find(memory: &MemoryMap, setup: &Setup) -> Option<Self> {
        let size = usize::from(setup.size);
        let used_event_at = size.checked_mul(2)?.checked_add(4)?;
        let avail_event_at = size.checked_mul(8)?.checked_add(4)?;
        let event = if setup.event_idx { 2 } else { 0 };
        let part = |address, length, alignment: usize| {
            memory
                .part_at_user_address(address, length)
                .filter(|part| part.is_aligned(alignment))
        };
        let addresses = setup.addresses;
        Some(Self {
            descriptors: part(
                addresses.descriptors,
                size.checked_mul(chain::DESCRIPTOR_LENGTH)?,
                16,
            )?,
            available: part(addresses.available, used_event_at.checked_add(event)?, 2)?,
            used: part(addresses.used, avail_event_at.checked_add(event)?, 4)?,
            used_event_at,
            avail_event_at,
        })
    }
}

/// A ring that runs, or ran until a moment ago. Each start makes a new one.
#[derive(Debug)]
pub(crate) struct Ring {
    name: String,
    setup: Setup,
    available: Mutex<Available>,
    used: Mutex<Used>,
    in_flight: InFlight,
    /// Requests that were taken and not yet given back.
    requests: InFlightCount,
    /// Of [`COPIED_BYTES`], what is in use.
    copied: AtomicUsize,
    broken: AtomicBool,
    error: Option<Arc<Call>>,
    pub(crate) counters: Arc<QueueCounters>,
}

impl Ring {
    /// A ring of that setup, or none if its parts do not lie in memory as they must.
    pub(crate) fn new(
        name: String,
        setup: Setup,
        memory: Arc<MemoryMap>,
        call: Option<Arc<Call>>,
        error: Option<Arc<Call>>,
        counters: Arc<QueueCounters>,
    ) -> Option<Self> {
        let Setup {
            size,
            event_idx,
            next_available,
            ..
        } = setup;
        let parts = Arc::new(Parts::find(&memory, &setup)?);
        let used = Used::new(Arc::clone(&parts), size, event_idx, call);
        Some(Self {
            name,
            setup,
            available: Mutex::new(Available::new(
                memory,
                parts,
                size,
                event_idx,
                next_available,
            )),
            used: Mutex::new(used),
            in_flight: InFlight::new(size),
            requests: InFlightCount::default(),
            copied: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            error,
            counters,
        })
    }

    /// Whether the parts of a ring of that setup lie in memory as they must.
    pub(crate) fn fits(memory: &MemoryMap, setup: &Setup) -> bool {
        Parts::find(memory, setup).is_some()
    }

    /// What the log calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The device's end of the available ring, for the thread that serves the queue.
    pub(crate) fn available(&self) -> MutexGuard<'_, Available> {
        self.available.lock()
    }

    /// Takes the next head, which must be [given back](Self::give_back) once.
    ///
    /// # Errors
    /// A fault after which nothing more can be taken.
    pub(crate) fn take(&self, available: &mut Available) -> Result<Option<u16>, RingFault> {
        let Some(head) = available.pop()? else {
            return Ok(None);
        };
        if !self.in_flight.take(head) {
            return Err(RingFault::HeadInFlight);
        }
        self.requests.begin();
        self.counters.popped();
        Ok(Some(head))
    }

    /// Walks the chain of a head that was taken.
    pub(crate) fn walk(&self, available: &Available, head: u16) -> Chain {
        chain::walk(
            &available.memory,
            &available.parts.descriptors,
            self.setup.size,
            head,
            self.setup.indirect,
        )
    }

    /// Gives a head back with the number of bytes written for it, and says whether the driver sees
    /// it. Its request moved so many bytes of data.
    pub(crate) fn give_back(&self, head: u16, written: u32, moved: usize) -> bool {
        let (seen, interrupt) = self.put_back(head, written, moved);
        self.signal(interrupt);
        self.requests.end();
        seen
    }

    /// Shows the driver that it has its head back; whether it sees that, and how it is told.
    fn put_back(&self, head: u16, written: u32, moved: usize) -> (bool, Option<Interrupt>) {
        let mut used = self.used.lock();
        let seen = used.put(head, written);
        // Before it is shown: from then on the driver may use it again, and count.
        self.in_flight.give_back(head);
        if seen {
            self.counters.pushed();
        } else {
            self.counters.lost();
        }
        used.show();
        let interrupt = if used.may_wait(std::thread::current().id(), moved) {
            None
        } else {
            used.announce()
        };
        (seen, interrupt)
    }

    /// Reserves memory for a copy of what a guest sent. False if its requests hold too much.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let after = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= COPIED_BYTES);
        self.copied
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after)
            .is_ok()
    }

    /// Returns what was [reserved](Self::reserve).
    pub(crate) fn release(&self, bytes: usize) {
        self.copied.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Interrupts the driver, if it wants that, for what was given back since it was last decided.
    pub(crate) fn announce(&self) {
        let interrupt = self.used.lock().announce();
        self.signal(interrupt);
    }

    fn signal(&self, interrupt: Option<Interrupt>) {
        if let Some(interrupt) = interrupt {
            interrupt.signal();
            self.used.lock().signalled(&interrupt);
        }
    }

    /// Lets the calling thread interrupt once a batch; it must [`announce`](Self::announce) after
    /// each.
    pub(crate) fn begin_batches(&self) {
        self.used
            .lock()
            .set_batching(Some(std::thread::current().id()));
    }

    /// Interrupts for what is left, and holds no interrupt back any more.
    pub(crate) fn end_batches(&self) {
        self.used.lock().set_batching(None);
        self.announce();
    }

    /// Requests that were taken and not yet given back.
    pub(crate) fn requests(&self) -> &InFlightCount {
        &self.requests
    }

    /// Interrupts through something else from now on.
    pub(crate) fn set_call(&self, call: Option<Arc<Call>>) {
        let call = self.used.lock().set_call(call);
        if let Some(call) = call {
            call.signal();
        }
    }

    /// From now on the driver sees nothing of this ring.
    pub(crate) fn detach(&self) {
        self.used.lock().detach();
    }

    /// Goes on in another map of memory; nobody may be taking from it. False if it does not lie
    /// there.
    pub(crate) fn rebind(&self, memory: &Arc<MemoryMap>) -> bool {
        let Some(parts) = Parts::find(memory, &self.setup).map(Arc::new) else {
            return false;
        };
        self.available
            .lock()
            .rebind(Arc::clone(memory), Arc::clone(&parts));
        self.used.lock().rebind(parts);
        true
    }

    /// Takes nothing more: what the driver does makes no sense.
    pub(crate) fn break_down(&self, fault: RingFault) {
        self.broken.store(true, Ordering::Relaxed);
        self.counters.broken(&self.name, fault);
        if let Some(error) = &self.error {
            error.signal();
        }
    }

    /// Whether it broke down.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}
