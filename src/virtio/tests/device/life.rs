//! Front ends that come, stop and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vfsd_testkit::frontend::connection::{Connection, request as message};
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::memory::Memory;
use vfsd_virtio::{DeviceOptions, End, Error};

use crate::stage::{BLOCK, ECHO, HOLD, KEEP, Served, channel, request};

#[test]
fn the_device_ends_when_its_front_end_leaves_and_the_session_is_reset() {
    let served = Served::new(&DeviceOptions::default());
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
    let play = std::sync::Arc::clone(&served.play);
    drop((channel, front_end));
    assert_eq!(served.join().unwrap(), End::FrontEndLeft);
    assert_eq!(play.resets.load(Ordering::SeqCst), 1);
}

#[test]
fn a_front_end_can_leave_and_return_a_hundred_times() {
    let served = Served::patient();
    for round in 1..=100 {
        let front_end = served.connect(&Options::default());
        let mut channel = channel(&front_end, 1);
        assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
        assert_eq!(served.device.counters().connections, round);
    }
}

#[test]
fn shutting_down_ends_a_device_that_waits_for_a_front_end() {
    let served = Served::patient();
    served.handle.shut_down();
    served.handle.shut_down();
    assert_eq!(served.join().unwrap(), End::ShutDown);
}

#[test]
fn shutting_down_ends_a_device_that_serves_and_answers_what_it_has() {
    let served = Served::new(&DeviceOptions::default());
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    channel.submit(&request(HOLD, b"held")).unwrap();
    // Once this is back, the other has been taken too.
    let echoed = channel.submit(&request(ECHO, b"x")).unwrap();
    assert_eq!(channel.wait_any().unwrap().unique, echoed);
    served.handle.shut_down();
    assert_eq!(channel.wait_any().unwrap().reply().unwrap(), b"held");
    assert_eq!(served.join().unwrap(), End::ShutDown);
}

#[test]
fn shutting_down_ends_a_device_that_waits_for_the_rest_of_a_message() {
    let served = Served::patient();
    let connection = Connection::open(&served.socket).unwrap();
    connection.send_raw(&[1, 0, 0, 0, 1], &[]).unwrap();
    served.handle.shut_down();
    assert_eq!(served.join().unwrap(), End::ShutDown);
}

#[test]
fn a_stopped_ring_has_given_everything_back_and_goes_on_where_it_was() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    for round in 0..5_u16 {
        let held = channel.submit(&request(HOLD, b"held")).unwrap();
        assert_eq!(
            channel.submit(&request(ECHO, b"x")).unwrap(),
            channel.wait_any().unwrap().unique
        );
        let base = front_end.stop_ring(1).unwrap();
        assert_eq!(base, 2 * (round + 1));
        assert_eq!(served.popped_less_pushed(), 0);
        let returned = channel.wait_any().unwrap();
        assert_eq!(
            (returned.unique, returned.reply().unwrap()),
            (held, &b"held"[..])
        );
        front_end.start_ring_at(1, base).unwrap();
    }
    assert!(served.play.cancels.load(Ordering::SeqCst) >= 5);
    assert_eq!(
        served.play.resets.load(Ordering::SeqCst),
        0,
        "the session goes on"
    );
}

#[test]
fn stopping_a_ring_waits_for_a_request_that_still_runs() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    channel.submit(&request(KEEP, b"kept")).unwrap();
    served.play.wait_kept(1);
    let play = std::sync::Arc::clone(&served.play);
    front_end
        .connection
        .send(message::GET_VRING_BASE, 0, &[1, 0, 0, 0, 0, 0, 0, 0], &[])
        .unwrap();
    // The device is at it when it has cancelled waits.
    while play.cancels.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    assert_eq!(served.popped_less_pushed(), 1);
    let releaser = std::thread::spawn(move || play.release());
    front_end
        .connection
        .receive(message::GET_VRING_BASE)
        .unwrap();
    assert_eq!(served.popped_less_pushed(), 0);
    releaser.join().unwrap();
    assert_eq!(channel.wait_any().unwrap().reply().unwrap(), b"kept");
}

#[test]
fn a_disabled_ring_is_left_alone_until_it_is_enabled() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let enable = |connection: &mut Connection, on| {
        connection
            .set_vring_state(message::SET_VRING_ENABLE, 1, on)
            .unwrap();
    };
    assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
    enable(&mut front_end.connection, 0);
    channel.submit(&request(ECHO, b"later")).unwrap();
    channel.ring.kick().unwrap();
    front_end.synchronise().unwrap();
    assert_eq!(served.device.counters().chains_popped, 1);
    enable(&mut front_end.connection, 1);
    enable(&mut front_end.connection, 1);
    assert_eq!(channel.wait_any().unwrap().reply().unwrap(), b"later");
}

#[test]
fn a_reset_device_can_be_set_up_again_with_a_fresh_session() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    channel.submit(&request(HOLD, b"held")).unwrap();
    assert_eq!(
        channel.submit(&request(ECHO, b"x")).unwrap(),
        channel.wait_any().unwrap().unique
    );
    front_end
        .connection
        .set(message::RESET_DEVICE, &[], &[])
        .unwrap();
    assert_eq!(served.play.resets.load(Ordering::SeqCst), 1);
    assert_eq!(channel.wait_any().unwrap().reply().unwrap(), b"held");
    let features = front_end.features();
    front_end
        .connection
        .set(message::SET_FEATURES, &features.to_le_bytes(), &[])
        .unwrap();
    channel.reset().unwrap();
    front_end.start_ring(1).unwrap();
    assert_eq!(channel.call(&request(ECHO, b"again")).unwrap(), b"again");
}

#[test]
fn a_front_end_that_leaves_with_requests_in_flight_is_not_waited_for_by_the_next() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel_1 = channel(&front_end, 1);
    channel_1.submit(&request(KEEP, b"kept")).unwrap();
    served.play.wait_kept(1);
    let memory = Arc::clone(front_end.memory());
    drop((channel_1, front_end));
    let front_end = served.connect(&Options::default());
    assert_eq!(
        channel(&front_end, 1).call(&request(ECHO, b"x")).unwrap(),
        b"x"
    );
    served.play.release();
    assert_eq!(
        served.play.lost.load(Ordering::SeqCst),
        1,
        "its reply goes nowhere"
    );
    assert_eq!(served.device.counters().chains_lost, 1);
    let reply = [20, 0, 0, 0, 0, 0, 0, 0];
    assert!(!holds(&memory, &reply), "the memory may be another's");
}

/// Whether a reply begins like that, anywhere in the memory of a front end.
fn holds(memory: &Memory, reply: &[u8]) -> bool {
    let whole = memory.read(0x10_0000, 16 << 20).unwrap();
    whole.chunks_exact(16).any(|chunk| chunk.starts_with(reply))
}

#[test]
fn a_thread_that_comes_back_to_an_abandoned_ring_takes_nothing_more() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel_1 = channel(&front_end, 1);
    channel_1.submit(&request(BLOCK, b"")).unwrap();
    served.play.wait_stuck(1);
    for _ in 0..10 {
        channel_1.submit(&request(ECHO, b"")).unwrap();
    }
    drop((channel_1, front_end));
    let front_end = served.connect(&Options::default());
    let mut channel_1 = channel(&front_end, 1);
    channel_1.call(&request(ECHO, b"")).unwrap();
    served.play.free();
    while served.play.lost.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    channel_1.call(&request(ECHO, b"")).unwrap();
    assert_eq!(served.device.counters().chains_popped, 3);
    assert_eq!(served.play.lost.load(Ordering::SeqCst), 1);
}

#[test]
fn more_queues_than_there_are_are_refused_with_the_number_to_use() {
    let served = Served::new(&DeviceOptions {
        max_request_queues: 2,
        ..DeviceOptions::default()
    });
    let mut front_end = served.connect(&Options {
        request_queues: 2,
        ..Options::default()
    });
    let refused = front_end
        .connection
        .set_vring_state(message::SET_VRING_NUM, 5, 128);
    assert!(refused.is_err());
    let Err(Error::Protocol(reason)) = served.join() else {
        panic!("served")
    };
    assert!(reason.starts_with("the front end uses queue 5"), "{reason}");
    assert!(reason.contains("at most 2 request queues"), "{reason}");
    assert!(reason.contains("--queues 5"), "{reason}");
}

#[test]
fn a_queue_has_a_named_thread_while_it_runs_and_no_longer() {
    let names = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .filter(|name| name.trim() == "vfsd-queue-13")
            .count()
    };
    let served = Served::patient();
    let mut front_end = served.connect(&Options {
        request_queues: 14,
        ..Options::default()
    });
    assert_eq!(
        channel(&front_end, 14).call(&request(ECHO, b"x")).unwrap(),
        b"x"
    );
    let running = names();
    assert!(running >= 1);
    front_end.stop_ring(14).unwrap();
    assert!(names() <= running);
    front_end.start_ring_at(14, 1).unwrap();
    front_end.synchronise().unwrap();
}

#[test]
fn options_out_of_range_are_refused() {
    for (queues, tag) in [
        (0, None),
        (256, None),
        (1, Some("")),
        (1, Some(&*"x".repeat(37))),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let listener =
            std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        let options = DeviceOptions {
            max_request_queues: queues,
            tag: tag.map(str::to_owned),
            ..DeviceOptions::default()
        };
        let play = Served::patient();
        let actor = std::sync::Arc::new(crate::stage::Actor(play.play.clone()));
        assert!(
            vfsd_virtio::Device::new(listener, actor, &options).is_err(),
            "{options:?}"
        );
    }
}
