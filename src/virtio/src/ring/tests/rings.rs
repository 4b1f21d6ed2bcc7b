//! The available and the used ring.

use std::fs::File;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::super::{Addresses, Call, Ring, RingFault, Setup};
use super::{AVAILABLE, DESCRIPTORS, Driver, END, SEAM, SIZE, USED, USER};

fn call() -> (Arc<Call>, File) {
    let event = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    (
        Arc::new(Call::new(event.try_clone().unwrap()).unwrap()),
        event,
    )
}

/// Whether it was signalled since the last look.
fn signalled(event: &File) -> bool {
    rustix::io::read(event, &mut [0_u8; 8]).is_ok()
}

#[test]
fn heads_come_in_order_and_go_back_with_their_lengths() {
    let mut driver = Driver::new();
    driver.next = 0xfffe;
    driver.set_index(0xfffe);
    let ring = driver.ring(false, None);
    for head in [3, 0, 15] {
        driver.offer(head);
    }
    let mut available = ring.available();
    for head in [3, 0, 15] {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
    }
    assert_eq!(ring.take(&mut available), Ok(None));
    assert_eq!(ring.requests().count(), 3);
    for (head, length) in [(0, 16), (15, 0), (3, 4_112)] {
        assert!(ring.give_back(head, length, 0));
    }
    assert_eq!(ring.requests().count(), 0);
    assert_eq!(driver.read_u16(USED + 2), 3);
    for (slot, (head, length)) in [(0_u32, 16_u32), (15, 0), (3, 4_112)]
        .into_iter()
        .enumerate()
    {
        let at = USED + 4 + 8 * slot as u64;
        assert_eq!(u32::from_le_bytes(driver.read(at)), head);
        assert_eq!(u32::from_le_bytes(driver.read(at + 4)), length);
    }
}

#[test]
fn what_makes_no_sense_in_the_available_ring_is_a_fault() {
    let cases: [(&str, &[u16], Option<u16>, RingFault); 4] = [
        ("index jump", &[], Some(SIZE + 1), RingFault::IndexJump),
        (
            "index before ours",
            &[],
            Some(u16::MAX),
            RingFault::IndexJump,
        ),
        (
            "head beyond the ring",
            &[SIZE],
            None,
            RingFault::HeadOutOfRange,
        ),
        ("head twice", &[2, 2], None, RingFault::HeadInFlight),
    ];
    for (name, heads, index, expected) in cases {
        let mut driver = Driver::new();
        let ring = driver.ring(true, None);
        for &head in heads {
            driver.offer(head);
        }
        if let Some(index) = index {
            driver.set_index(index);
        }
        let mut available = ring.available();
        let fault = loop {
            match ring.take(&mut available) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{name}: accepted"),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, expected, "{name}");
    }
}

#[test]
fn a_full_ring_is_no_fault() {
    let mut driver = Driver::new();
    let ring = driver.ring(true, None);
    for head in 0..SIZE {
        driver.offer(head);
    }
    let mut available = ring.available();
    for head in 0..SIZE {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
    }
}

#[test]
fn the_batch_of_a_thread_is_shown_at_once_and_interrupts_once_at_its_end() {
    let mut driver = Driver::new();
    let (call, event) = call();
    let ring = driver.ring(false, Some(call));
    for head in 0..3 {
        driver.offer(head);
    }
    let mut available = ring.available();
    ring.begin_batches();
    for head in 0..3 {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
        assert!(ring.give_back(head, 0, 0));
        assert_eq!(driver.read_u16(USED + 2), head + 1);
    }
    assert!(!signalled(&event));
    ring.announce();
    assert!(signalled(&event));
    ring.announce();
    assert!(!signalled(&event), "nothing new, no interrupt");
}

#[test]
fn a_batch_that_moves_much_data_does_not_let_the_driver_wait_for_its_end() {
    let mut driver = Driver::new();
    let (call, event) = call();
    let ring = driver.ring(false, Some(call));
    driver.offer(0);
    driver.offer(1);
    let mut available = ring.available();
    ring.begin_batches();
    for (head, moved, interrupts) in [(0, 4096, false), (1, 1 << 20, true)] {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
        assert!(ring.give_back(head, 0, moved));
        assert_eq!(signalled(&event), interrupts, "{moved} bytes");
    }
}

#[test]
fn a_head_given_back_by_another_thread_interrupts_at_once() {
    let mut driver = Driver::new();
    let (call, event) = call();
    let ring = driver.ring(false, Some(call));
    driver.offer(7);
    assert_eq!(ring.take(&mut ring.available()), Ok(Some(7)));
    ring.begin_batches();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(ring.give_back(7, 16, 0)));
    });
    assert_eq!((driver.read_u16(USED + 2), signalled(&event)), (1, true));
}

#[test]
fn the_driver_says_with_a_flag_or_an_index_when_it_wants_no_interrupt() {
    let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
    for (event_idx, at, refuse, accept) in
        [(false, AVAILABLE, 1_u16, 0_u16), (true, used_event, 100, 2)]
    {
        let mut driver = Driver::new();
        let (call, event) = call();
        let ring = driver.ring(event_idx, Some(call));
        driver.round_trip(&ring, 0);
        assert!(signalled(&event), "the first is always told");
        driver.write(at, &refuse.to_le_bytes());
        driver.round_trip(&ring, 1);
        assert!(!signalled(&event), "event_idx {event_idx}");
        driver.write(at, &accept.to_le_bytes());
        driver.round_trip(&ring, 2);
        assert!(signalled(&event), "event_idx {event_idx}");
    }
}

#[test]
fn the_used_index_goes_on_where_memory_says() {
    let mut driver = Driver::new();
    driver.write(USED + 2, &5_u16.to_le_bytes());
    driver.set_index(5);
    let ring = driver.ring(false, None);
    driver.offer(1);
    assert_eq!(ring.take(&mut ring.available()), Ok(Some(1)));
    assert!(ring.give_back(1, 20, 0));
    assert_eq!(driver.read_u16(USED + 2), 6);
    assert_eq!(
        driver.read::<8>(USED + 4 + 8 * 5),
        [1, 0, 0, 0, 20, 0, 0, 0]
    );
}

#[test]
fn a_detached_ring_is_not_written_to() {
    let mut driver = Driver::new();
    let ring = driver.ring(false, None);
    driver.offer(1);
    assert_eq!(ring.take(&mut ring.available()), Ok(Some(1)));
    ring.detach();
    assert!(!ring.give_back(1, 16, 0));
    assert_eq!(driver.read_u16(USED + 2), 0);
    assert_eq!(ring.requests().count(), 0);
}

#[test]
fn a_ring_must_lie_in_memory_and_aligned() {
    let driver = Driver::new();
    let good = Addresses {
        descriptors: USER + DESCRIPTORS,
        available: USER + AVAILABLE,
        used: USER + USED,
    };
    let setup = |addresses| Setup {
        size: SIZE,
        addresses,
        event_idx: true,
        indirect: true,
        next_available: 0,
    };
    assert!(Ring::fits(&driver.memory, &setup(good)));
    for bad in [
        Addresses {
            descriptors: USER - 16,
            ..good
        },
        Addresses {
            descriptors: USER + END - 16,
            ..good
        },
        Addresses {
            descriptors: USER + SEAM - 16,
            ..good
        },
        Addresses {
            descriptors: USER + 8,
            ..good
        },
        Addresses {
            available: USER + 1,
            ..good
        },
        Addresses {
            used: USER + END - 130,
            ..good
        },
        Addresses {
            used: u64::MAX - 3,
            ..good
        },
        Addresses {
            used: USER + 2,
            ..good
        },
        Addresses {
            available: DESCRIPTORS,
            ..good
        },
    ] {
        assert!(!Ring::fits(&driver.memory, &setup(bad)), "{bad:x?}");
    }
}
