//! A thread that the storage holds up hands its queue off to another.

use vfsd_testkit::frontend::channel::Channel;
use vfsd_testkit::frontend::device::Options;

use crate::stage::{ECHO, STUCK, Served, channel, request};

/// The body of the next reply, which must be to that request.
fn reply(queue: &mut Channel, unique: u64) -> Vec<u8> {
    let returned = queue.wait_any().unwrap();
    assert_eq!(returned.unique, unique);
    returned.reply().unwrap().to_vec()
}

#[test]
fn a_queue_goes_on_while_a_request_waits_for_the_storage() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut queue = channel(&front_end, 1);
    let stuck = queue.submit(&request(STUCK, b"slow")).unwrap();
    served.play.wait_stuck(1);
    for round in 0..100_u32 {
        let body = round.to_le_bytes();
        let unique = queue.submit(&request(ECHO, &body)).unwrap();
        assert_eq!(reply(&mut queue, unique), body, "{round}");
    }
    served.play.free();
    assert_eq!(reply(&mut queue, stuck), b"slow");
}

#[test]
fn what_was_answered_before_the_wait_reaches_the_guest_during_it() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut queue = channel(&front_end, 1);
    // Taken in one batch or not: the echo must not wait for the end of the batch.
    let echo = queue.submit(&request(ECHO, b"quick")).unwrap();
    let stuck = queue.submit(&request(STUCK, b"slow")).unwrap();
    assert_eq!(reply(&mut queue, echo), b"quick");
    served.play.wait_stuck(1);
    served.play.free();
    assert_eq!(reply(&mut queue, stuck), b"slow");
}

#[test]
fn a_ring_is_stopped_only_when_the_request_that_waits_was_answered() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut queue = channel(&front_end, 1);
    let stuck = queue.submit(&request(STUCK, b"slow")).unwrap();
    served.play.wait_stuck(1);
    let play = served.play.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        play.free();
    });
    assert_eq!(front_end.stop_ring(1).unwrap(), 1);
    later.join().unwrap();
    assert_eq!(reply(&mut queue, stuck), b"slow");
    front_end.start_ring_at(1, 1).unwrap();
    let echo = queue.submit(&request(ECHO, b"on")).unwrap();
    assert_eq!(reply(&mut queue, echo), b"on");
}

#[test]
fn memory_can_be_added_while_a_request_waits() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut queue = channel(&front_end, 1);
    let stuck = queue.submit(&request(STUCK, b"slow")).unwrap();
    served.play.wait_stuck(1);
    let extent = vfsd_testkit::frontend::memory::Extent {
        start: 1 << 32,
        size: 1 << 20,
    };
    front_end.add_region(extent).unwrap();
    let echo = queue.submit(&request(ECHO, b"on")).unwrap();
    assert_eq!(reply(&mut queue, echo), b"on");
    served.play.free();
    assert_eq!(reply(&mut queue, stuck), b"slow");
}
