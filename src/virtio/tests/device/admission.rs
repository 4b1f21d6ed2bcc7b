//! A session that has enough to do is given nothing more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vfsd_testkit::frontend::device::Options;

use crate::stage::{ECHO, KEEP, Served, channel, request};

#[test]
fn a_ring_is_left_alone_while_the_session_has_no_room_and_then_goes_on() {
    let served = Served::patient();
    served.play.leave_room(2);
    let front_end = served.connect(&Options::default());
    let mut queue = channel(&front_end, 1);
    for _ in 0..6 {
        queue.submit(&request(KEEP, b"kept")).unwrap();
    }
    queue.submit(&request(ECHO, b"last")).unwrap();
    for _ in 0..3 {
        served.play.wait_kept(2);
        served.play.release();
    }
    for expected in [&b"kept"[..]; 6].into_iter().chain([&b"last"[..]]) {
        assert_eq!(queue.wait_any().unwrap().reply().unwrap(), expected);
    }
    assert_eq!(served.play.most_kept(), 2);
}

#[test]
fn a_ring_whose_session_has_no_room_can_be_stopped_and_goes_on_where_it_was() {
    let served = Served::patient();
    served.play.leave_room(1);
    let mut front_end = served.connect(&Options::default());
    let mut queue = channel(&front_end, 1);
    for body in [b"1", b"2"] {
        queue.submit(&request(KEEP, body)).unwrap();
    }
    served.play.wait_kept(1);
    let play = Arc::clone(&served.play);
    let releaser = std::thread::spawn(move || {
        // Waits are cancelled when the thread of the queue has ended.
        while play.cancels.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        play.release();
    });
    assert_eq!(front_end.stop_ring(1).unwrap(), 1);
    releaser.join().unwrap();
    assert_eq!(queue.wait_any().unwrap().reply().unwrap(), b"1");
    front_end.start_ring_at(1, 1).unwrap();
    served.play.wait_kept(1);
    served.play.release();
    assert_eq!(queue.wait_any().unwrap().reply().unwrap(), b"2");
    assert_eq!(served.play.most_kept(), 1);
}

#[test]
fn a_device_that_has_no_room_ends_when_it_is_told_to() {
    let served = Served::new(&vfsd_virtio::DeviceOptions::default());
    served.play.leave_room(0);
    let front_end = served.connect(&Options::default());
    channel(&front_end, 1)
        .submit(&request(ECHO, b"never"))
        .unwrap();
    served.handle.shut_down();
    assert_eq!(served.join().unwrap(), vfsd_virtio::End::ShutDown);
}
