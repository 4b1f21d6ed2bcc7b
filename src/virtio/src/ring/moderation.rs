//! When to interrupt: at the first reply that the driver waits for, or once a batch.
//!
//! A driver that sleeps on another processor is to be woken by the first reply, so that it works
//! beside us. One that shares our processor would take it away from us for each reply; it is better
//! woken once a batch. One that looks at the ring needs no interrupt at all. Which one it is shows
//! in where it asks for its next interrupt (used_event):
//!
//! - it moved on before it was interrupted: it looks;
//! - it moved on while we signalled, which is much shorter than waking another processor takes: we
//!   were put aside for it;
//! - it did not: it was only just woken, elsewhere, or does not run before we sleep. Either way an
//!   interrupt at once takes nothing away.
//!
//! With many requests outstanding it does not matter where the driver runs: we have enough to do until it
//! is awake, and it is woken once a batch in any case.
//!
//! A driver moves to another processor now and then, and may look at its ring at times, so this is
//! judged all the time. With EVENT_IDX there is one interrupt at most each time the driver falls
//! asleep; without it there would be one for each reply until the driver runs, so that it always
//! gets one a batch.

/// So many signs in a row change the mind: one alone may be chance.
const SIGNS: u8 = 3;

/// After so many interrupts at once one is held back, to see whether the driver needs it.
const PROBE_AFTER: u8 = 64;

/// Learns when a driver with EVENT_IDX is best interrupted.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    at_once: bool,
    /// Signs in a row for the other way.
    contrary: u8,
    /// Interrupts at once since the last probe.
    since_probe: u8,
}

impl Moderation {
    /// Whether to interrupt at the first reply.
    pub(super) fn at_once(&self) -> bool {
        self.at_once
    }

    /// Learns from an interrupt: whether the driver moved on while it was signalled.
    pub(super) fn signalled(&mut self, moved_on: bool) {
        if moved_on == self.at_once {
            self.contrary = self.contrary.saturating_add(1);
        } else {
            self.contrary = 0;
        }
        if self.contrary >= SIGNS {
            self.at_once = !self.at_once;
            self.contrary = 0;
            self.since_probe = 0;
        } else if self.at_once {
            self.since_probe = self.since_probe.saturating_add(1);
            if self.since_probe >= PROBE_AFTER {
                self.at_once = false;
                // If the driver waits for the interrupt that is held back, this was the last.
                self.contrary = SIGNS.saturating_sub(1);
            }
        }
    }

    /// The driver moved on without the interrupt that was held back.
    pub(super) fn unaided(&mut self) {
        self.at_once = false;
        self.contrary = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(signs: &[bool]) -> Moderation {
        let mut moderation = Moderation::default();
        for &moved_on in signs {
            moderation.signalled(moved_on);
        }
        moderation
    }

    #[test]
    fn some_signs_in_a_row_change_the_mind_and_one_alone_does_not() {
        for (signs, at_once) in [
            (&[][..], false),
            (&[false, false], false),
            (&[false, true, false, false], false),
            (&[false, false, false], true),
            (&[false, false, false, true, true, false, true], true),
            (&[false, false, false, true, true, true], false),
        ] {
            assert_eq!(after(signs).at_once(), at_once, "{signs:?}");
        }
    }

    #[test]
    fn one_interrupt_in_many_is_held_back_to_see_whether_it_is_needed() {
        let mut sleeps = after(&[false; 3]);
        let held = (0..1000).filter(|_| {
            let held = !sleeps.at_once();
            sleeps.signalled(false);
            held
        });
        assert_eq!(held.count(), 1000 / (usize::from(PROBE_AFTER) + 1));
        let mut looks = after(&[false; 3]);
        while looks.at_once() {
            looks.signalled(false);
        }
        looks.unaided();
        looks.signalled(false);
        assert!(!looks.at_once(), "it was not needed");
    }
}
