//! Starting, stopping, leaving and coming back.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vfsd_testkit::frontend::LIMIT;
use vfsd_testkit::frontend::bodies::write_body;
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode};

use crate::answer::Answer;
use crate::daemon::Launch;
use crate::scene::{Ground, HOSTILE, MEMORY_SLACK, Scene, Setting, assert_holds, guest_on};

fn queues(request_queues: u16) -> Options {
    Options {
        request_queues,
        ..Options::default()
    }
}

#[test]
fn one_two_four_and_eight_request_queues_are_served() {
    for count in [1, 2, 4, 8] {
        let ground = Ground::new();
        let daemon = ground.start(&Launch::default());
        let device = Device::connect(daemon.socket(), &queues(count)).unwrap();
        let mut guests: Vec<_> = (1..=count).map(|ring| guest_on(&device, ring)).collect();
        let flags = guests[0].init().unwrap().flags;
        for (number, guest) in guests.iter_mut().enumerate() {
            guest.agreed = flags;
            let name = format!("by-queue-{number}");
            let entry = guest.put(ROOT, &name, name.as_bytes()).unwrap();
            assert_eq!(guest.get(entry.node, 64).unwrap(), name.as_bytes());
        }
        // A node is the same on every queue.
        let nodes: Vec<u64> = guests
            .iter_mut()
            .map(|guest| guest.lookup(ROOT, "file").unwrap().node)
            .collect();
        assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
        guest_on(&device, 0)
            .forget(nodes[0], u64::from(count))
            .unwrap();
    }
}

#[test]
fn more_queues_than_there_are_are_refused_with_the_number_to_use() {
    let ground = Ground::new();
    let launch = Launch::with(&["--reconnect", "--queues", "2"]);
    let mut daemon = ground.start(&launch);
    let refused = Device::connect(daemon.socket(), &queues(3));
    assert!(refused.is_err(), "3 queues of 2");
    let pid = daemon.pid();
    let device = Device::connect(daemon.socket(), &queues(2)).unwrap();
    guest_on(&device, 2).init().unwrap();
    daemon.assert_alive(pid, "too many queues");
    let log = daemon.log();
    assert!(
        log.contains("queue") && log.contains('2'),
        "the log names the number: {log}"
    );
}

#[test]
fn a_daemon_that_is_told_to_end_removes_its_socket_and_exits_with_0() {
    // Before a front end, with one that is idle, and with one that works.
    for stage in 0..3 {
        let ground = Ground::new();
        let mut daemon = ground.start(&Launch::default());
        let mut kept = None;
        if stage == 0 {
            // Connecting shows that the socket listens; leaving before a message ends nothing.
            let deadline = Instant::now() + LIMIT;
            while !daemon.socket().exists() {
                assert!(Instant::now() < deadline, "no socket\n{}", daemon.log());
                std::thread::sleep(Duration::from_millis(2));
            }
        } else {
            let device = Device::connect(daemon.socket(), &Options::default()).unwrap();
            let mut guest = guest_on(&device, 1);
            guest.init().unwrap();
            if stage == 2 {
                let (entry, opened) = guest.create(ROOT, "busy", 0o100_644, 2).unwrap();
                for offset in 0..20 {
                    let body = write_body(opened.fh, offset << 16, 1 << 16, &vec![1; 1 << 16]);
                    let write = Request::new(opcode::WRITE, entry.node, body).with_room(8);
                    guest.channel.submit(&write).unwrap();
                }
            }
            kept = Some((guest, device));
        }
        daemon.terminate();
        let status = daemon.wait();
        assert_eq!(
            status.code(),
            Some(0),
            "stage {stage}: {status:?}\n{}",
            daemon.log()
        );
        assert!(
            !daemon.socket().exists(),
            "stage {stage}: the socket is still there"
        );
        let left: Vec<_> = fs::read_dir(ground.sockets())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["first.log"], "stage {stage}");
        drop(kept);
    }
}

#[test]
fn a_daemon_whose_front_end_left_exits_with_0_and_removes_its_socket() {
    let ground = Ground::new();
    let mut daemon = ground.start(&Launch::default());
    let device = Device::connect(daemon.socket(), &Options::default()).unwrap();
    let mut guest = guest_on(&device, 1);
    guest.init().unwrap();
    guest.lookup(ROOT, "file").unwrap();
    drop((guest, device));
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    assert!(!daemon.socket().exists());
}

#[test]
fn a_socket_left_by_a_daemon_that_was_killed_is_taken_over() {
    let ground = Ground::new();
    let daemon = ground.start(&Launch::default());
    drop(Device::connect(daemon.socket(), &Options::default()).unwrap());
    let socket = daemon.socket().to_owned();
    drop(daemon);
    if !socket.exists() {
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    }
    // What served for the daemon dies with it, but perhaps a moment later.
    let deadline = Instant::now() + LIMIT;
    while UnixStream::connect(&socket).is_ok() {
        assert!(
            Instant::now() < deadline,
            "a killed daemon goes on listening"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let daemon = ground.start(&Launch::default());
    let device = Device::connect(daemon.socket(), &Options::default()).unwrap();
    guest_on(&device, 1).init().unwrap();
}

#[test]
fn a_front_end_leaves_and_returns_a_hundred_times() {
    let ground = Ground::new();
    let mut daemon = ground.start(&Launch::with(&["--reconnect"]));
    let mut start = None;
    let mut pid = None;
    for round in 0..100 {
        let device = Device::connect(daemon.socket(), &queues(4)).unwrap();
        let mut guest = guest_on(&device, 1 + round % 4);
        // A new connection begins without a session.
        assert_eq!(
            guest.getattr(ROOT).unwrap_err().errno(),
            Some(libc::EIO),
            "round {round}"
        );
        guest.init().unwrap();
        let file = guest.lookup(ROOT, "file").unwrap().node;
        let fh = guest.open(file, 0).unwrap().fh;
        assert_eq!(guest.read(file, fh, 0, 64).unwrap(), b"inside");
        match round % 3 {
            0 => guest.destroy().unwrap(),
            // Leaves in the middle of requests.
            1 => {
                for _ in 0..20 {
                    let body = Encoder::new().name(b"file").bytes();
                    guest
                        .channel
                        .submit(&Request::new(opcode::LOOKUP, ROOT, body))
                        .unwrap();
                }
            }
            _ => {}
        }
        daemon.assert_alive(*pid.get_or_insert(daemon.pid()), "a front end left");
        drop((guest, device));
        if round == 9 {
            start = Some(daemon.census());
        }
    }
    assert_holds(
        &daemon,
        &start.unwrap(),
        MEMORY_SLACK,
        "after 100 front ends",
    );
}

#[test]
fn a_front_end_that_leaves_while_a_lock_is_waited_for_is_followed_by_the_next() {
    let ground = Ground::new();
    let mut daemon = ground.start(&Launch::with(&["--reconnect"]));
    let mut pid = None;
    let mut start = None;
    for round in 0..10 {
        let device = Device::connect(daemon.socket(), &Options::default()).unwrap();
        let mut guest = guest_on(&device, 1);
        guest.init().unwrap();
        let file = guest.lookup(ROOT, "file").unwrap().node;
        let fh = guest.open(file, libc::O_RDWR as u32).unwrap().fh;
        let lock = |number, owner: u64| {
            let body = Encoder::new()
                .u64(fh)
                .u64(owner)
                .u64(0)
                .u64(9)
                .u32(1)
                .u32(1)
                .u64(0);
            Request::new(number, file, body.bytes())
        };
        // The lock of the front end before is gone with it.
        guest.channel.call(&lock(opcode::SETLK, 1)).unwrap();
        guest.channel.submit(&lock(opcode::SETLKW, 2)).unwrap();
        daemon.assert_alive(*pid.get_or_insert(daemon.pid()), "a lock waited for");
        if round == 2 {
            start = Some(daemon.census());
        }
        drop((guest, device));
    }
    assert_holds(
        &daemon,
        &start.unwrap(),
        MEMORY_SLACK,
        "after 10 front ends that waited",
    );
}

#[test]
fn no_request_runs_after_its_ring_was_stopped() {
    let mut scene = Scene::new();
    let (entry, opened) = scene.guest.create(ROOT, "slow", 0o100_644, 2).unwrap();
    for round in 0..30 {
        for at in 0..8 {
            let write = write_body(opened.fh, at << 18, 1 << 18, &vec![round; 1 << 18]);
            let write = Request::new(opcode::WRITE, entry.node, write).with_room(8);
            scene.guest.channel.submit(&write).unwrap();
            let sync = Encoder::new().u64(opened.fh).u32(0).u32(0).bytes();
            let sync = Request::new(opcode::FSYNC, entry.node, sync).with_room(0);
            scene.guest.channel.submit(&sync).unwrap();
        }
        let base = scene.device.stop_ring(HOSTILE).unwrap();
        let used = scene.guest.channel.ring.used_index().unwrap();
        assert_eq!(
            used, base,
            "round {round}: requests were running when the ring had stopped"
        );
        scene.check("a ring stopped");
        assert_eq!(
            scene.guest.channel.ring.used_index().unwrap(),
            used,
            "round {round}"
        );
        scene.device.start_ring_at(HOSTILE, base).unwrap();
        scene.guest.channel.ring.kick().unwrap();
        for _ in 0..16 {
            let returned = scene.guest.channel.wait_any().unwrap();
            Answer::Fine.judge("after the ring was started again", &returned);
        }
    }
    scene.finish();
}

#[test]
fn a_ring_with_a_lock_waited_for_can_be_stopped() {
    let mut scene = Scene::set(Setting {
        device: queues(3),
        ..Setting::default()
    });
    let mut holder = scene.guest_on(3);
    let file = holder.lookup(ROOT, "file").unwrap().node;
    let fh = holder.open(file, libc::O_RDWR as u32).unwrap().fh;
    let lock = |number, owner: u64| {
        let body = Encoder::new()
            .u64(fh)
            .u64(owner)
            .u64(0)
            .u64(9)
            .u32(1)
            .u32(1)
            .u64(0);
        Request::new(number, file, body.bytes())
    };
    holder.channel.call(&lock(opcode::SETLK, 1)).unwrap();
    scene
        .guest
        .channel
        .submit(&lock(opcode::SETLKW, 2))
        .unwrap();
    scene.check_served("a lock waited for");
    let base = scene.device.stop_ring(HOSTILE).unwrap();
    let used = scene.guest.channel.ring.used_index().unwrap();
    assert_eq!(used, base, "the waiter came back before the ring stopped");
    scene.device.start_ring_at(HOSTILE, base).unwrap();
    let returned = scene.guest.channel.wait_any().unwrap();
    const OVER: Answer = Answer::Refused(&[libc::EINTR, libc::EAGAIN, libc::EIO]);
    OVER.judge("a waiter of a stopped ring", &returned);
    scene.check_served("started again");
    scene.finish();
}

#[test]
fn files_close_at_the_limit_of_descriptors() {
    // CVE-2020-10717, and FLUSH that must not need a descriptor of its own.
    let launch = Launch {
        descriptors: Some(1024),
        ..Launch::default()
    };
    let mut scene = Scene::set(Setting {
        launch,
        ..Setting::default()
    });
    let neighbour = scene.pause_neighbour();
    let file = scene.guest.lookup(ROOT, "file").unwrap().node;
    for round in 0..3 {
        let mut handles = Vec::new();
        let refused = loop {
            match scene.guest.open(file, libc::O_RDWR as u32) {
                Ok(opened) => handles.push(opened.fh),
                Err(error) => break error.errno(),
            }
            assert!(handles.len() < 1024, "more handles than descriptors");
        };
        assert_eq!(
            refused,
            Some(libc::ENFILE),
            "round {round} after {} opens",
            handles.len()
        );
        assert!(
            handles.len() > 100,
            "only {} files could be opened",
            handles.len()
        );
        // The daemon answers, and has a reserve for itself.
        scene.guest.getattr(file).unwrap();
        assert_eq!(
            scene.guest.read(file, handles[0], 0, 64).unwrap(),
            b"inside"
        );
        assert!(
            scene.daemon.census().descriptor_count() < 1024,
            "no reserve"
        );
        for fh in handles {
            scene.guest.flush(file, fh).unwrap();
            scene.guest.release(file, fh).unwrap();
        }
        scene.guest.getattr(ROOT).unwrap();
    }
    scene.resume_neighbour(neighbour);
    scene.check_served("at the limit of descriptors");
    scene.finish();
}
