//! How often drivers of different behaviour are interrupted.

use std::fs::File;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::super::{Call, Interrupt, Ring};
use super::{AVAILABLE, Driver, SIZE, USED};

/// Requests that the driver keeps in flight.
const DEPTH: u16 = 8;

/// Batches until a driver is known, and batches that count.
const LEARNED: usize = 200;
const COUNTED: usize = 100;

/// What a driver does that asks for an interrupt whenever it has nothing to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// Sleeps on another processor: runs two replies after its interrupt.
    SleepsElsewhere,
    /// Sleeps on the device's processor, and gets it as soon as it is interrupted.
    Displaces,
    /// Sleeps on the device's processor, and gets it when the device sleeps.
    WaitsForItsTurn,
    /// Looks: takes each reply before the next one.
    Looks,
}

struct Stage {
    driver: Driver,
    ring: Ring,
    behaviour: Behaviour,
    /// The used index up to which the driver took replies.
    taken: u16,
    /// Replies until the driver, which was interrupted, runs.
    wakes_in: Option<u16>,
    interrupts: usize,
    /// Replies given back.
    replies: usize,
}

impl Stage {
    fn new(behaviour: Behaviour, event_idx: bool) -> Self {
        let event = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let mut driver = Driver::new();
        let ring = driver.ring(event_idx, Some(Arc::new(Call::new(event).unwrap())));
        ring.begin_batches();
        (0..DEPTH).for_each(|head| driver.offer(head));
        Self {
            driver,
            ring,
            behaviour,
            taken: 0,
            wakes_in: None,
            interrupts: 0,
            replies: 0,
        }
    }

    /// The driver takes all replies, sends each request again, and asks for an interrupt.
    fn run_driver(&mut self) {
        self.wakes_in = None;
        let used = self.driver.read_u16(USED + 2);
        while self.taken != used {
            let entry = USED + 4 + 8 * u64::from(self.taken % SIZE);
            let head = self.driver.read_u16(entry);
            self.driver.offer(head);
            self.taken = self.taken.wrapping_add(1);
        }
        let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
        self.driver.write(used_event, &used.to_le_bytes());
    }

    /// The device signals, and the driver does meanwhile what it does.
    fn signal(&mut self, interrupt: &Interrupt) {
        self.interrupts += 1;
        match self.behaviour {
            Behaviour::SleepsElsewhere => self.wakes_in = Some(2),
            Behaviour::Displaces => self.run_driver(),
            Behaviour::WaitsForItsTurn | Behaviour::Looks => {}
        }
        self.ring.used.lock().signalled(interrupt);
    }

    /// The device answers so many requests and looks whether there are more.
    fn batch(&mut self, requests: u16) {
        for _ in 0..requests {
            if self.behaviour == Behaviour::Looks {
                self.run_driver();
            }
            let taken = self.ring.take(&mut self.ring.available()).unwrap();
            let Some(head) = taken else { break };
            let (seen, interrupt) = self.ring.put_back(head, 0, 0);
            assert!(seen);
            self.replies += 1;
            if let Some(interrupt) = interrupt {
                self.signal(&interrupt);
            }
            self.wakes_in = self.wakes_in.map(|replies| replies.saturating_sub(1));
            if self.wakes_in == Some(0) {
                self.run_driver();
            }
        }
        let interrupt = self.ring.used.lock().announce();
        if let Some(interrupt) = interrupt {
            self.signal(&interrupt);
        }
        // The device sleeps until there is something to take.
        if self.ring.available().is_ahead() {
            return;
        }
        self.run_driver();
    }

    /// Interrupts for a hundred replies, of a driver that is known by now.
    fn percentage(&mut self) -> usize {
        (0..LEARNED).for_each(|_| self.batch(DEPTH));
        (self.interrupts, self.replies) = (0, 0);
        (0..COUNTED).for_each(|_| self.batch(DEPTH));
        self.interrupts * 100 / self.replies
    }
}

#[test]
fn a_driver_that_sleeps_elsewhere_is_interrupted_whenever_it_fell_asleep() {
    // It is awake again after two replies.
    let percentage = Stage::new(Behaviour::SleepsElsewhere, true).percentage();
    assert!((45..=50).contains(&percentage), "{percentage} %");
}

#[test]
fn a_driver_that_takes_the_processor_away_is_interrupted_once_a_batch() {
    let percentage = Stage::new(Behaviour::Displaces, true).percentage();
    assert_eq!(percentage, 100 / usize::from(DEPTH));
}

#[test]
fn a_driver_that_runs_when_the_device_sleeps_is_interrupted_once_a_batch() {
    let percentage = Stage::new(Behaviour::WaitsForItsTurn, true).percentage();
    assert_eq!(percentage, 100 / usize::from(DEPTH));
}

#[test]
fn a_driver_that_looks_is_interrupted_once_a_batch() {
    let percentage = Stage::new(Behaviour::Looks, true).percentage();
    assert_eq!(percentage, 100 / usize::from(DEPTH));
}

#[test]
fn a_driver_is_interrupted_once_a_batch_if_it_does_not_say_when_it_fell_asleep() {
    let percentage = Stage::new(Behaviour::SleepsElsewhere, false).percentage();
    assert_eq!(percentage, 100 / usize::from(DEPTH));
}

#[test]
fn a_driver_that_sleeps_elsewhere_is_not_woken_at_once_while_there_is_plenty_to_do() {
    for (outstanding, at_once) in [(4, true), (40, false)] {
        let mut stage = Stage::new(Behaviour::SleepsElsewhere, true);
        (0..LEARNED).for_each(|_| stage.batch(DEPTH));
        stage.run_driver();
        let head = stage.ring.take(&mut stage.ring.available()).unwrap();
        let used = stage.driver.read_u16(USED + 2);
        stage.driver.set_index(used.wrapping_add(outstanding));
        let (_, interrupt) = stage.ring.put_back(head.unwrap(), 0, 0);
        assert_eq!(interrupt.is_some(), at_once, "{outstanding}");
    }
}

#[test]
fn a_driver_that_moves_to_another_processor_and_back_is_interrupted_as_suits_it() {
    let mut stage = Stage::new(Behaviour::Displaces, true);
    for (behaviour, expected) in [
        (Behaviour::SleepsElsewhere, 45..=50),
        (Behaviour::Displaces, 12..=12),
        (Behaviour::SleepsElsewhere, 45..=50),
        (Behaviour::Looks, 12..=12),
        (Behaviour::SleepsElsewhere, 45..=50),
    ] {
        stage.behaviour = behaviour;
        let percentage = stage.percentage();
        assert!(
            expected.contains(&percentage),
            "{behaviour:?}: {percentage} %"
        );
    }
}
