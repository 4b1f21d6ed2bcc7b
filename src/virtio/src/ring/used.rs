//! The used ring (virtio 1.3, section 2.7.8): what the device gives back.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread::ThreadId;

use super::Parts;
use crate::notifier::Call;

const INDEX_AT: usize = 2;
const ENTRIES_AT: usize = 4;
const ENTRY_LENGTH: usize = 8;
const AVAILABLE_FLAGS_AT: usize = 0;

/// In the available ring's flags: the device need not interrupt.
const NO_INTERRUPT: u16 = 1;

/// Heads that are held back at most to be published, and announced, together.
const BATCH: u16 = 16;

/// The device's end of the used ring.
#[derive(Debug)]
pub(crate) struct Used {
    parts: Arc<Parts>,
    size: u16,
    event_idx: bool,
    /// Index of the next entry to write, counted without end.
    next: u16,
    /// The index that the driver sees.
    published: u16,
    /// The index at the last decision whether to interrupt; none before the first.
    decided: Option<u16>,
    call: Option<Arc<Call>>,
    /// The thread that publishes what it gives back at the end of its batch.
    batching: Option<ThreadId>,
    /// Whether the driver must not see anything of the device any more.
    detached: bool,
}

impl Used {
    /// Goes on where the used ring in memory ends: the front end of a device that was connected
    /// before tells only the available index (as in QEMU's libvhost-user).
    pub(crate) fn new(
        parts: Arc<Parts>,
        size: u16,
        event_idx: bool,
        call: Option<Arc<Call>>,
    ) -> Self {
        let next = parts.used.load_u16(INDEX_AT, Ordering::Relaxed);
        Self {
            parts,
            size,
            event_idx,
            next,
            published: next,
            decided: None,
            call,
            batching: None,
            detached: false,
        }
    }

    /// Writes an entry; the driver sees it with [`publish`](Self::publish). False if it must not.
    pub(crate) fn put(&mut self, head: u16, written: u32) -> bool {
        if self.detached || self.parts.used.lost() {
            return false;
        }
        let slot = self.next.checked_rem(self.size).unwrap_or_default();
        let at = usize::from(slot)
            .saturating_mul(ENTRY_LENGTH)
            .saturating_add(ENTRIES_AT);
        let [h0, h1, h2, h3] = u32::from(head).to_le_bytes();
        let [w0, w1, w2, w3] = written.to_le_bytes();
        let fits = self.parts.used.write(at, &[h0, h1, h2, h3, w0, w1, w2, w3]);
        if fits {
            self.next = self.next.wrapping_add(1);
        }
        fits
    }

    /// Whether this thread can leave the last entry to the end of its batch.
    pub(crate) fn may_wait(&self, thread: ThreadId) -> bool {
        self.batching == Some(thread) && self.next.wrapping_sub(self.published) < BATCH
    }

    /// Lets `thread` publish in batches, or nobody.
    pub(crate) fn set_batching(&mut self, thread: Option<ThreadId>) {
        self.batching = thread;
    }

    /// Shows the driver all entries, and returns what to signal if it wants to be interrupted.
    pub(crate) fn publish(&mut self) -> Option<Arc<Call>> {
        if self.detached || self.next == self.published {
            return None;
        }
        // Release: the entries, and the replies, are visible before the index is.
        self.parts
            .used
            .store_u16(INDEX_AT, self.next, Ordering::Release);
        self.published = self.next;
        // The driver stores what it wants, then reads the index: the mirror image.
        fence(Ordering::SeqCst);
        if self.wants_interrupt() {
            self.call.clone()
        } else {
            None
        }
    }

    fn wants_interrupt(&mut self) -> bool {
        if !self.event_idx {
            let flags = self
                .parts
                .available
                .load_u16(AVAILABLE_FLAGS_AT, Ordering::Relaxed);
            return flags & NO_INTERRUPT == 0;
        }
        let Some(before) = self.decided.replace(self.published) else {
            return true;
        };
        let event = self
            .parts
            .available
            .load_u16(self.parts.used_event_at, Ordering::Relaxed);
        is_passed(event, before, self.published)
    }

    /// Signals something else from now on. Returns it to be signalled once: an interrupt may just
    /// have gone to the old one, which nobody listens to any more.
    pub(crate) fn set_call(&mut self, call: Option<Arc<Call>>) -> Option<Arc<Call>> {
        self.call = call;
        self.call.clone()
    }

    /// From now on the driver sees nothing of the device: the ring is someone else's.
    pub(crate) fn detach(&mut self) {
        self.detached = true;
    }

    /// Goes on in another map of memory.
    pub(crate) fn rebind(&mut self, parts: Arc<Parts>) {
        self.parts = parts;
    }
}

/// Whether an index that went from `before` to `now` passed the one the other side waits for
/// (`vring_need_event`, virtio 1.3, section 2.7.7.2).
fn is_passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_is_due_when_the_index_passes_the_one_waited_for() {
        for (event, before, now, due) in [
            (0, 0, 1, true),
            (1, 0, 1, false),
            (4, 0, 5, true),
            (5, 0, 5, false),
            (3, 4, 5, false),
            (0xffff, 0xffff, 0, true),
            (0xfffe, 0xffff, 1, false),
            (0, 0xfffe, 2, true),
        ] {
            assert_eq!(
                is_passed(event, before, now),
                due,
                "{event} {before}..{now}"
            );
        }
    }
}
