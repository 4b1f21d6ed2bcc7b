//! The available ring (virtio 1.3, section 2.7.6): what the driver hands over.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{Parts, RingFault, USED_FLAGS_AT};
use crate::memory::MemoryMap;

const INDEX_AT: usize = 2;
const ENTRIES_AT: usize = 4;
const ENTRY_LENGTH: usize = 2;

/// In the used ring's flags: the driver need not kick.
const NO_NOTIFY: u16 = 1;

/// The device's end of the available ring. Locked by the thread of the queue while it takes a chain.
#[derive(Debug)]
pub(crate) struct Available {
    pub(crate) memory: Arc<MemoryMap>,
    pub(crate) parts: Arc<Parts>,
    size: u16,
    event_idx: bool,
    /// Index of the next entry to take, counted without end.
    next: u16,
    /// The driver's index as last seen.
    end: u16,
}

impl Available {
    /// From the entry with index `next`.
    pub(crate) fn new(
        memory: Arc<MemoryMap>,
        parts: Arc<Parts>,
        size: u16,
        event_idx: bool,
        next: u16,
    ) -> Self {
        Self {
            memory,
            parts,
            size,
            event_idx,
            next,
            end: next,
        }
    }

    /// Index of the next entry to take.
    pub(crate) fn next(&self) -> u16 {
        self.next
    }

    /// Takes the next head, if there is one.
    ///
    /// # Errors
    /// When the driver claims more entries than the ring has, or a head beyond it.
    pub(crate) fn pop(&mut self) -> Result<Option<u16>, RingFault> {
        if self.next == self.end && !self.look()? {
            return Ok(None);
        }
        let slot = self.next.checked_rem(self.size).unwrap_or_default();
        let at = usize::from(slot)
            .saturating_mul(ENTRY_LENGTH)
            .saturating_add(ENTRIES_AT);
        let head = self.parts.available.load_u16(at, Ordering::Relaxed);
        if head >= self.size {
            return Err(RingFault::HeadOutOfRange);
        }
        self.next = self.next.wrapping_add(1);
        Ok(Some(head))
    }

    /// Reads the driver's index and says whether there is anything to take.
    fn look(&mut self) -> Result<bool, RingFault> {
        // Acquire: the entries and descriptors up to the index are read after it.
        let end = self.parts.available.load_u16(INDEX_AT, Ordering::Acquire);
        if end.wrapping_sub(self.next) > self.size {
            return Err(RingFault::IndexJump);
        }
        self.end = end;
        Ok(end != self.next)
    }

    /// Whether the driver seems to have added something.
    pub(crate) fn is_ahead(&self) -> bool {
        self.parts.available.load_u16(INDEX_AT, Ordering::Relaxed) != self.next
    }

    /// Asks the driver for a kick when it adds something, and says whether it did so before it
    /// could see that.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub(crate) fn ask_for_kicks(&mut self) -> Result<bool, RingFault> {
        if self.event_idx {
            // avail_event, behind the entries of the used ring.
            self.parts
                .used
                .store_u16(self.parts.avail_event_at, self.next, Ordering::Relaxed);
        } else {
            self.parts
                .used
                .store_u16(USED_FLAGS_AT, 0, Ordering::Relaxed);
        }
        // The driver stores its index, then reads what was stored here: the mirror image.
        fence(Ordering::SeqCst);
        self.look()
    }

    /// Lets the driver save kicks while the device is at work. With EVENT_IDX nothing need be done:
    /// the index at which a kick is wanted lies behind.
    pub(crate) fn spare_kicks(&self) {
        if !self.event_idx {
            self.parts
                .used
                .store_u16(USED_FLAGS_AT, NO_NOTIFY, Ordering::Relaxed);
        }
    }

    /// Goes on in another map of memory.
    pub(crate) fn rebind(&mut self, memory: Arc<MemoryMap>, parts: Arc<Parts>) {
        self.memory = memory;
        self.parts = parts;
    }
}
