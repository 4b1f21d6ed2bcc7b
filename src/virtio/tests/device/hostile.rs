//! Rings and messages that no correct driver or front end makes.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::channel::Channel;
use vfsd_testkit::frontend::connection::{VRING_NO_FD, request as message};
use vfsd_testkit::frontend::device::{Device as FrontEnd, Options};
use vfsd_testkit::frontend::memory::Extent;
use vfsd_testkit::frontend::ring::Segment;

use crate::stage::{ECHO, HOLD, KEEP, SILENT, Served, channel, request};

const BUFFERS: u64 = 0x10_0000 + (15 << 20);
const OUTSIDE: u64 = 1 << 40;

/// Puts a request and hands over a chain of these segments.
fn submit(front_end: &FrontEnd, channel: &mut Channel, segments: &[Segment]) -> (u32, Vec<u8>) {
    let memory = front_end.memory();
    memory
        .write(BUFFERS, &request(ECHO, b"1234").bytes(9))
        .unwrap();
    memory.write(BUFFERS + 4096, &[0xa5; 64]).unwrap();
    channel.ring.submit(segments).unwrap();
    let used = channel.ring.wait().unwrap();
    (used.len, memory.read(BUFFERS + 4096, 16).unwrap())
}

fn error(errno: i32) -> Vec<u8> {
    let mut header = 16_u32.to_le_bytes().to_vec();
    header.extend((-errno).to_le_bytes());
    header.extend(9_u64.to_le_bytes());
    header
}

#[test]
fn a_bad_chain_gets_an_errno_if_it_can_be_told_and_nothing_otherwise() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let head = Segment::readable(BUFFERS, 44);
    let reply = Segment::writable(BUFFERS + 4096, 64);
    let untouched = vec![0xa5; 16];
    let cases: [(&str, &[Segment], u32, Vec<u8>); 8] = [
        (
            "payload outside",
            &[head, Segment::readable(OUTSIDE, 4096), reply],
            16,
            error(14),
        ),
        (
            "reply data outside",
            &[head, reply, Segment::writable(OUTSIDE, 4096)],
            16,
            error(14),
        ),
        (
            "header outside",
            &[Segment::readable(OUTSIDE, 44), reply],
            0,
            untouched.clone(),
        ),
        (
            "reply header outside",
            &[head, Segment::writable(OUTSIDE, 16), reply],
            0,
            untouched.clone(),
        ),
        (
            "readable after writable",
            &[head, reply, head],
            16,
            error(5),
        ),
        (
            "short header",
            &[Segment::readable(BUFFERS, 39), reply],
            0,
            untouched.clone(),
        ),
        ("nothing to read", &[reply], 0, untouched.clone()),
        (
            "no room for an error",
            &[
                head,
                Segment::readable(OUTSIDE, 1),
                Segment::writable(BUFFERS + 4096, 15),
            ],
            0,
            untouched,
        ),
    ];
    for (name, segments, used, bytes) in cases {
        assert_eq!(
            submit(&front_end, &mut channel, segments),
            (used, bytes),
            "{name}"
        );
    }
    assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
    assert_eq!(served.popped_less_pushed(), 0);
    let bad: u64 = served
        .device
        .counters()
        .bad_chains
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(bad, 8);
}

#[test]
fn a_broken_ring_is_stopped_alone_and_works_again_when_set_up_anew() {
    type Break = fn(&mut Channel);
    let cases: [(&str, Break); 4] = [
        ("index_jump", |channel| {
            let index = channel.ring.available_index();
            channel
                .ring
                .set_available_index(index.wrapping_add(129))
                .unwrap();
        }),
        ("index_jump", |channel| {
            let index = channel.ring.available_index();
            channel
                .ring
                .set_available_index(index.wrapping_sub(1))
                .unwrap();
        }),
        ("head_out_of_range", |channel| {
            channel.ring.offer(128).unwrap()
        }),
        ("head_in_flight", |channel| {
            let head = channel
                .ring
                .prepare(&[Segment::readable(OUTSIDE, 1)])
                .unwrap();
            channel.submit(&request(HOLD, b"")).unwrap();
            let held = channel.ring.heads_in_flight();
            let held = held.into_iter().find(|&other| other != head).unwrap();
            channel.ring.offer(held).unwrap();
        }),
    ];
    for (name, break_ring) in cases {
        let served = Served::patient();
        let mut front_end = served.connect(&Options {
            request_queues: 2,
            ..Options::default()
        });
        let mut other = channel(&front_end, 2);
        let mut channel = channel(&front_end, 1);
        assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
        let (_, events) = front_end.ring_parts(1).unwrap();
        break_ring(&mut channel);
        channel.ring.kick().unwrap();
        let mut fds = [rustix::event::PollFd::new(
            &events.error,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1, "{name}");
        assert!(
            served.device.counters().broken_rings.contains(&(name, 1)),
            "{name}"
        );
        assert_eq!(
            other.call(&request(ECHO, b"other")).unwrap(),
            b"other",
            "{name}"
        );
        front_end.stop_ring(1).unwrap();
        channel.reset().unwrap();
        front_end.start_ring(1).unwrap();
        assert_eq!(
            channel.call(&request(ECHO, b"again")).unwrap(),
            b"again",
            "{name}"
        );
    }
}

#[test]
fn requests_that_wait_hold_a_bounded_amount_of_memory() {
    let served = Served::patient();
    let regions = vec![Extent {
        start: 0x10_0000,
        size: 128 << 20,
    }];
    let options = Options {
        queue_size: 1024,
        regions,
        ..Options::default()
    };
    let mut front_end = served.connect(&options);
    let mut channel = channel(&front_end, 1);
    let body = vec![0; 100 << 10];
    let most = (32 << 20) / (body.len() + 40);
    for _ in 0..most {
        channel.submit(&request(HOLD, &body).with_room(16)).unwrap();
    }
    let answer = channel.call(&request(ECHO, &body));
    assert!(matches!(answer, Err(Error::Errno(12))), "{answer:?}");
    assert_eq!(channel.call(&request(ECHO, b"small")).unwrap(), b"small");
    assert_eq!(served.device.counters().requests_refused, 1);
    front_end.stop_ring(1).unwrap();
    for _ in 0..most {
        channel.wait_any().unwrap();
    }
}

#[test]
fn a_running_ring_cannot_be_moved() {
    for number in [
        message::SET_VRING_NUM,
        message::SET_VRING_BASE,
        message::SET_VRING_ADDR,
    ] {
        let served = Served::patient();
        let mut front_end = served.connect(&Options::default());
        let refused = if number == message::SET_VRING_ADDR {
            let (layout, _) = front_end.ring_parts(1).unwrap();
            front_end.connection.set_vring_addr(1, &layout)
        } else {
            front_end.connection.set_vring_state(number, 1, 64)
        };
        assert!(refused.is_err(), "{number}");
        let front_end = served.connect(&Options::default());
        assert_eq!(
            channel(&front_end, 1).call(&request(ECHO, b"x")).unwrap(),
            b"x"
        );
    }
}

#[test]
fn sizes_and_indices_out_of_range_are_refused() {
    for (number, value) in [
        (message::SET_VRING_NUM, 0),
        (message::SET_VRING_NUM, 3),
        (message::SET_VRING_NUM, 65_536),
        (message::SET_VRING_NUM, u32::MAX),
        (message::SET_VRING_BASE, 65_536),
        (message::SET_VRING_ENABLE, 2),
    ] {
        let served = Served::patient();
        let mut front_end = served.connect(&Options::default());
        front_end.stop_ring(1).unwrap();
        let answer = front_end.connection.set_vring_state(number, 1, value);
        assert!(answer.is_err(), "{number} {value}");
        let front_end = served.connect(&Options::default());
        assert_eq!(
            channel(&front_end, 1).call(&request(ECHO, b"x")).unwrap(),
            b"x"
        );
    }
}

#[test]
fn a_ring_outside_memory_is_refused() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    front_end.stop_ring(1).unwrap();
    let (mut layout, _) = front_end.ring_parts(1).unwrap();
    layout.used = OUTSIDE;
    assert!(front_end.connection.set_vring_addr(1, &layout).is_err());
}

#[test]
fn a_front_end_that_is_refused_something_learns_it_before_its_requests_have_ended() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    channel.submit(&request(KEEP, b"kept")).unwrap();
    served.play.wait_kept(1);
    let answer = front_end
        .connection
        .set_vring_state(message::SET_VRING_NUM, 1, 3);
    assert!(answer.is_err());
    front_end.connection.wait_closed().unwrap();
    // Nobody has given up waiting for it.
    served.play.release();
    assert_eq!(served.play.sent.load(Ordering::SeqCst), 1);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for number in [message::SET_FEATURES, message::SET_PROTOCOL_FEATURES] {
        let served = Served::patient();
        let mut front_end = served.connect(&Options::default());
        let features = 1_u64 << 34 | 1 << 26;
        assert!(
            front_end
                .connection
                .set(number, &features.to_le_bytes(), &[])
                .is_err()
        );
    }
}

#[test]
fn a_ring_works_without_a_call_descriptor_and_needs_a_kick() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let none = (1 | VRING_NO_FD).to_le_bytes();
    front_end
        .connection
        .set(message::SET_VRING_CALL, &none, &[])
        .unwrap();
    channel.submit(&request(ECHO, b"x")).unwrap();
    while channel.ring.used_index().unwrap() == 0 {
        std::thread::yield_now();
    }
    assert!(
        front_end
            .connection
            .set(message::SET_VRING_KICK, &none, &[])
            .is_err()
    );
}

#[test]
fn a_kick_that_never_blocks_or_never_comes_holds_nothing_up() {
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    for (name, kick) in [
        ("zero", zero.as_fd()),
        ("null", null.as_fd()),
        ("pipe", pipe.as_fd()),
    ] {
        let served = Served::patient();
        let mut front_end = served.connect(&Options {
            request_queues: 2,
            ..Options::default()
        });
        front_end
            .connection
            .set_vring_fd(message::SET_VRING_KICK, 1, kick)
            .unwrap();
        let mut other = channel(&front_end, 2);
        assert_eq!(other.call(&request(ECHO, b"x")).unwrap(), b"x", "{name}");
        front_end.stop_ring(1).unwrap();
    }
}

#[test]
fn a_call_that_nobody_reads_blocks_nothing() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    // Full: the device cannot write, and must not wait.
    let (_reader, writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
    front_end
        .connection
        .set_vring_fd(message::SET_VRING_CALL, 1, writer.as_fd())
        .unwrap();
    front_end
        .memory()
        .write(BUFFERS, &request(SILENT, b"").bytes(9))
        .unwrap();
    for _ in 0..100 {
        channel
            .ring
            .submit(&[Segment::readable(BUFFERS, 40)])
            .unwrap();
        while channel.ring.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
    }
    front_end.stop_ring(1).unwrap();
}

#[test]
fn a_kick_storm_on_one_queue_leaves_the_others_alone() {
    let served = Served::patient();
    let front_end = served.connect(&Options {
        request_queues: 2,
        ..Options::default()
    });
    let mut other = channel(&front_end, 2);
    let (_, events) = front_end.ring_parts(1).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = rustix::io::write(&events.kick, &1_u64.to_ne_bytes());
            }
        });
        for _ in 0..500 {
            assert_eq!(other.call(&request(ECHO, b"x")).unwrap(), b"x");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
