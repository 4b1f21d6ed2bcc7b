//! The used ring (virtio 1.3, section 2.7.8): what the device gives back.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread::ThreadId;

use super::Parts;
use super::moderation::Moderation;
use crate::notifier::Call;

const INDEX_AT: usize = 2;
const ENTRIES_AT: usize = 4;
const ENTRY_LENGTH: usize = 8;
const AVAILABLE_FLAGS_AT: usize = 0;

/// In the available ring's flags: the device need not interrupt.
const NO_INTERRUPT: u16 = 1;

/// Work for which a driver that sleeps waits at most until it is interrupted, where interrupts are
/// held back: so many requests of metadata, or fewer that move data.
const BATCH: usize = 16;

/// With so many requests to go on with, nobody waits for the driver, wherever it runs: interrupts are held
/// back.
const PLENTY: u16 = 32;

/// Bytes of data that take about as long as a request of metadata.
const BYTES_PER_REQUEST: usize = 8192;

/// An interrupt that is due.
#[derive(Debug)]
pub(crate) struct Interrupt {
    call: Arc<Call>,
    /// Where the driver asked for it, if what it does meanwhile is of interest.
    asked_at: Option<u16>,
}

impl Interrupt {
    /// Signals it.
    pub(crate) fn signal(&self) {
        self.call.signal();
    }
}

/// The device's end of the used ring.
#[derive(Debug)]
pub(crate) struct Used {
    parts: Arc<Parts>,
    size: u16,
    event_idx: bool,
    /// Index of the next entry to write, counted without end.
    next: u16,
    /// The index at the last decision whether to interrupt.
    decided: u16,
    /// Whether there was such a decision: the first is always to interrupt.
    decided_once: bool,
    /// The work since then.
    undecided: usize,
    moderation: Moderation,
    /// Where the driver asked for the interrupt that is held back, if it does so by an index.
    held_at: Option<u16>,
    call: Option<Arc<Call>>,
    /// The thread that interrupts at the end of its batch for what it gives back.
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
            decided: next,
            decided_once: false,
            undecided: 0,
            moderation: Moderation::default(),
            held_at: None,
            call,
            batching: None,
            detached: false,
        }
    }

    /// Writes an entry; the driver sees it with [`show`](Self::show). False if it must not.
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

    /// Shows the driver all entries. One that looks at them needs no interrupt to go on.
    pub(crate) fn show(&mut self) {
        if !self.detached {
            // Release: the entries, and the replies, are visible before the index is.
            self.parts
                .used
                .store_u16(INDEX_AT, self.next, Ordering::Release);
        }
    }

    /// Whether this thread leaves the interrupt for the last entry, whose request moved so many
    /// bytes of data, to the end of its batch.
    pub(crate) fn may_wait(&mut self, thread: ThreadId, moved: usize) -> bool {
        let work = moved.checked_div(BYTES_PER_REQUEST).unwrap_or_default();
        let first = self.undecided == 0;
        self.undecided = self.undecided.saturating_add(work).saturating_add(1);
        if self.batching != Some(thread) || self.undecided >= BATCH {
            return false;
        }
        if self.event_idx {
            if self.moderation.at_once() && self.outstanding() < PLENTY {
                return false;
            }
            if first {
                let event = self.event();
                self.held_at = is_passed(event, self.decided, self.next).then_some(event);
            }
        }
        true
    }

    /// Lets `thread` interrupt once a batch, or nobody.
    pub(crate) fn set_batching(&mut self, thread: Option<ThreadId>) {
        self.batching = thread;
    }

    /// The interrupt for what the driver was shown, if it wants one.
    pub(crate) fn announce(&mut self) -> Option<Interrupt> {
        self.undecided = 0;
        let held_at = self.held_at.take();
        if self.detached || self.next == self.decided {
            return None;
        }
        // The driver stores what it wants, then reads the index: the mirror image.
        fence(Ordering::SeqCst);
        let before = std::mem::replace(&mut self.decided, self.next);
        let first = !std::mem::replace(&mut self.decided_once, true);
        if !self.event_idx {
            let flags = self
                .parts
                .available
                .load_u16(AVAILABLE_FLAGS_AT, Ordering::Relaxed);
            return self.interrupt(None).filter(|_| flags & NO_INTERRUPT == 0);
        }
        let event = self.event();
        if held_at.is_some_and(|asked_at| asked_at != event) {
            self.moderation.unaided();
        }
        let due = first || is_passed(event, before, self.next);
        self.interrupt(Some(event)).filter(|_| due)
    }

    fn interrupt(&self, asked_at: Option<u16>) -> Option<Interrupt> {
        let call = self.call.clone()?;
        Some(Interrupt { call, asked_at })
    }

    /// Learns from an interrupt of the thread that batches, which was signalled just now.
    pub(crate) fn signalled(&mut self, interrupt: &Interrupt) {
        if let Some(asked_at) = interrupt.asked_at
            && self.batching == Some(std::thread::current().id())
        {
            let moved_on = self.event() != asked_at;
            self.moderation.signalled(moved_on);
        }
    }

    /// Requests that the driver has made available and not got back.
    fn outstanding(&self) -> u16 {
        let available = &self.parts.available;
        let end = available.load_u16(INDEX_AT, Ordering::Relaxed);
        end.wrapping_sub(self.next)
    }

    /// The index at which the driver wants to be interrupted.
    fn event(&self) -> u16 {
        self.parts
            .available
            .load_u16(self.parts.used_event_at, Ordering::Relaxed)
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
