//! Messages of the front end that are cut off, lie or come at the wrong time.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use vfsd_testkit::frontend::connection::{
    Connection, FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, header, region_bytes, region_fields,
    request, vring_addr, vring_state,
};
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::memory::{Extent, Region, USER_OFFSET};
use vfsd_testkit::frontend::ring::Layout;
use vfsd_testkit::frontend::{Error, Result};

use crate::daemon::{Census, Daemon, Launch};
use crate::scene::{Ground, HOSTILE, MEMORY_SLACK, Scene, Setting, assert_holds, guest_on};

/// A daemon with `--reconnect` and, between rows, no front end.
#[derive(Debug)]
struct Listener {
    daemon: Daemon,
    ground: Ground,
    pid: u32,
    idle: Census,
}

impl Listener {
    fn new() -> Self {
        let ground = Ground::new();
        let daemon = ground.start(&Launch::with(&["--reconnect"]));
        serve(&daemon);
        serve(&daemon);
        // Whatever the daemon closes after the second front end left is closed by the third.
        serve(&daemon);
        let idle = daemon.census();
        Self {
            pid: daemon.pid(),
            daemon,
            ground,
            idle,
        }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.daemon.socket()).unwrap()
    }

    fn device(&self) -> Device {
        Device::connect(self.daemon.socket(), &Options::default()).unwrap()
    }

    /// Asserts that the daemon lives, serves the next front end, and kept nothing of the last.
    fn check(&mut self, row: &str) {
        self.daemon.assert_alive(self.pid, row);
        serve(&self.daemon);
        assert_holds(&self.daemon, &self.idle, MEMORY_SLACK, row);
        self.ground.assert_outside_unchanged(row);
    }
}

/// Plays a well-behaved front end that comes, asks and leaves.
fn serve(daemon: &Daemon) {
    let device = Device::connect(daemon.socket(), &Options::default()).unwrap();
    let mut guest = guest_on(&device, 1);
    guest.init().unwrap();
    let file = guest.lookup(1, "file").unwrap().node;
    assert_eq!(guest.get(file, 64).unwrap(), b"inside");
}

/// What a refusal looks like: an acknowledgement that is not zero, or a closed connection.
fn assert_refused(row: &str, outcome: Result<()>) {
    let refused = matches!(outcome, Err(Error::Refused { .. } | Error::Closed));
    assert!(refused, "{row}: {outcome:?}");
}

#[test]
fn any_message_with_any_descriptors_leaves_none_behind() {
    let mut listener = Listener::new();
    let files: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    for number in (0..48).chain([100, 1000, u32::MAX]) {
        for count in [0, 1, 8] {
            let fds: Vec<BorrowedFd<'_>> = files[..count].iter().map(AsFd::as_fd).collect();
            for len in [0, 8, 40, 400] {
                for flags in [0, FLAG_NEED_REPLY] {
                    let connection = listener.connect();
                    // The device may have closed the connection on the first of these.
                    for _ in 0..2 {
                        let _ = connection.send(number, flags, &vec![0xff; len], &fds);
                    }
                }
            }
        }
        listener.check(&format!("message {number}"));
    }
}

#[test]
fn any_message_to_a_running_device_leaves_no_descriptor_behind() {
    let mut listener = Listener::new();
    let files: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    for number in (0..48).chain([u32::MAX]) {
        for count in [0, 1, 8] {
            let fds: Vec<BorrowedFd<'_>> = files[..count].iter().map(AsFd::as_fd).collect();
            for len in [0, 8, 32, 40] {
                let device = listener.device();
                let _ = device
                    .connection
                    .send(number, FLAG_NEED_REPLY, &vec![0; len], &fds);
                let _ = device.connection.send(request::GET_FEATURES, 0, &[], &[]);
            }
        }
        listener.check(&format!("message {number} to a running device"));
    }
}

#[test]
fn messages_cut_off_anywhere_end_only_their_connection() {
    let mut listener = Listener::new();
    let mut whole = header(request::SET_VRING_ADDR, FLAG_VERSION, 40).to_vec();
    whole.extend_from_slice(&[0; 40]);
    for len in 0..whole.len() {
        let connection = listener.connect();
        connection.send_raw(&whole[..len.max(1)], &[]).unwrap();
    }
    listener.check("messages cut off");
    // In two writes it is a whole message.
    for at in [1, 11, 12, 13, 30] {
        let mut connection = listener.connect();
        let message = header(request::GET_FEATURES, FLAG_VERSION, 0);
        let at = at.min(11);
        connection.send_raw(&message[..at], &[]).unwrap();
        connection.socket().write_all(&message[at..]).unwrap();
        let outcome = connection.receive(request::GET_FEATURES);
        assert!(matches!(outcome, Ok(_) | Err(Error::Closed)), "{outcome:?}");
    }
    listener.check("messages in two writes");
}

#[test]
fn headers_that_lie_end_only_their_connection() {
    let mut listener = Listener::new();
    for (what, flags, size) in [
        ("version 0", 0, 0),
        ("version 2", 2, 0),
        ("version 3", 3, 0),
        ("a reply", FLAG_VERSION | FLAG_REPLY, 0),
        ("all flags", u32::MAX, 0),
        ("8 bytes that do not come", FLAG_VERSION, 8),
        ("4096 bytes", FLAG_VERSION, 4096),
        ("4097 bytes", FLAG_VERSION, 4097),
        ("2 GiB", FLAG_VERSION, i32::MAX as u32),
        ("4 GiB", FLAG_VERSION, u32::MAX),
    ] {
        for number in [
            request::GET_FEATURES,
            request::SET_MEM_TABLE,
            request::SET_VRING_KICK,
        ] {
            let connection = listener.connect();
            connection
                .send_raw(&header(number, flags, size), &[])
                .unwrap();
            let _ = connection.send_raw(&[0; 64], &[]);
        }
        listener.check(what);
    }
}

#[test]
fn a_second_front_end_waits_or_is_refused_and_the_first_is_served() {
    let mut listener = Listener::new();
    let device = listener.device();
    let mut guest = guest_on(&device, 1);
    guest.init().unwrap();
    let others: Vec<Connection> = (0..5).map(|_| listener.connect()).collect();
    for other in &others {
        let _ = other.send(request::GET_FEATURES, 0, &[], &[]);
        guest.getattr(1).unwrap();
    }
    drop(others);
    guest.getattr(1).unwrap();
    drop((guest, device));
    listener.check("a second front end");
}

#[test]
fn regions_that_cannot_be_are_refused() {
    let mut listener = Listener::new();
    let region = Region::new(
        Extent {
            start: 1 << 32,
            size: 1 << 20,
        },
        0,
    )
    .unwrap();
    let fd = region.file.as_fd();
    let (size, user) = (1 << 20, USER_OFFSET + (1 << 32));
    let rows = [
        (
            "overlaps another from below",
            region_fields(0xf_f000, 0x2000, user, 0),
        ),
        (
            "lies within another",
            region_fields(0x20_0000, 0x1000, user, 0),
        ),
        (
            "is another",
            region_fields(0x10_0000, 16 << 20, USER_OFFSET + 0x10_0000, 0),
        ),
        ("is empty", region_fields(1 << 32, 0, user, 0)),
        ("wraps", region_fields(u64::MAX - 0xfff, 0x2000, user, 0)),
        (
            "ends at 2^64",
            region_fields(u64::MAX - 0xfff, 0x1000, user, 0),
        ),
        (
            "wraps in the front end",
            region_fields(1 << 32, size, u64::MAX - 0xfff, 0),
        ),
        ("has 2^63 bytes", region_fields(1 << 32, 1 << 63, user, 0)),
        (
            "has 2^64 - 1 bytes",
            region_fields(1 << 32, u64::MAX, user, 0),
        ),
        (
            "has an unaligned offset",
            region_fields(1 << 32, size, user, 1),
        ),
        (
            "has an offset that wraps",
            region_fields(1 << 32, size, user, u64::MAX - 0xfff),
        ),
    ];
    for (what, fields) in rows {
        let mut device = listener.device();
        let body = [&[0; 8][..], &fields].concat();
        let outcome = device.connection.set(request::ADD_MEM_REG, &body, &[fd]);
        assert_refused(&format!("a region that {what}"), outcome);
        drop(device);
        listener.check(what);
    }
    for (what, fds) in [("no descriptor", vec![]), ("two descriptors", vec![fd, fd])] {
        let mut device = listener.device();
        let body = [&[0; 8][..], &region_bytes(&region)].concat();
        let outcome = device.connection.set(request::ADD_MEM_REG, &body, &fds);
        assert_refused(what, outcome);
        drop(device);
        listener.check(what);
    }
    let mut device = listener.device();
    assert_refused(
        "an unknown region",
        device.connection.remove_mem_region(&region),
    );
    drop(device);
    listener.check("an unknown region removed");
}

#[test]
fn tables_of_regions_that_cannot_be_are_refused() {
    let mut listener = Listener::new();
    let region = |start: u64| {
        Region::new(
            Extent {
                start,
                size: 1 << 20,
            },
            0,
        )
        .unwrap()
    };
    let (low, high) = (region(1 << 20), region(1 << 32));
    let table = |count: u32, regions: &[&Region]| {
        let mut body = count.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 4]);
        for region in regions {
            body.extend_from_slice(&region_bytes(region));
        }
        body
    };
    let rows = [
        ("no regions", table(0, &[]), 0),
        ("more than there are", table(2, &[&low]), 1),
        ("fewer than there are", table(1, &[&low, &high]), 2),
        ("u32::MAX regions", table(u32::MAX, &[&low]), 1),
        ("the same twice", table(2, &[&low, &low]), 2),
        ("too few descriptors", table(2, &[&low, &high]), 1),
        ("too many descriptors", table(1, &[&low]), 2),
        ("33 regions", table(33, &[&low; 33]), 33),
    ];
    let files = [&low.file, &high.file];
    for (what, body, count) in rows {
        let mut device = listener.device();
        let fds: Vec<BorrowedFd<'_>> = (0..count).map(|at| files[at % 2].as_fd()).collect();
        let outcome = device.connection.set(request::SET_MEM_TABLE, &body, &fds);
        assert_refused(what, outcome);
        drop(device);
        listener.check(what);
    }
}

#[test]
fn the_config_space_is_the_tag_and_the_number_of_queues() {
    let mut scene = Scene::new();
    let config = scene.device.connection.get_config(0, 40).unwrap();
    assert_eq!(&config[..8], b"hostile\0");
    assert!(config[8..36].iter().all(|byte| *byte == 0));
    let queues = u32::from_le_bytes(config[36..].try_into().unwrap());
    assert!(queues >= 1, "{queues} request queues");
    for (offset, size) in [(0, 1), (0, 36), (36, 4), (39, 1), (20, 20)] {
        let part = scene.device.connection.get_config(offset, size).unwrap();
        assert_eq!(part, config[offset as usize..(offset + size) as usize]);
    }
    scene.finish();
}

#[test]
fn config_space_that_is_not_there_is_refused_or_zero() {
    let mut listener = Listener::new();
    for (offset, size) in [
        (0, 0),
        (0, 41),
        (0, 256),
        (0, 257),
        (40, 1),
        (39, 2),
        (u32::MAX, 1),
        (1, u32::MAX),
    ] {
        let row = format!("config {offset}+{size}");
        let mut device = listener.device();
        let mut body = Vec::new();
        for word in [offset, size, 0] {
            body.extend_from_slice(&u32::to_le_bytes(word));
        }
        body.resize(12 + size.min(1000) as usize, 0);
        device
            .connection
            .send(request::GET_CONFIG, 0, &body, &[])
            .unwrap();
        match device.connection.receive(request::GET_CONFIG) {
            // An empty payload says that there is nothing; otherwise what is not there is zero.
            Ok(reply) if reply.len() <= 12 => {}
            Ok(reply) => {
                let from = 12 + 40_usize.saturating_sub(offset as usize);
                assert!(
                    reply[from.min(reply.len())..].iter().all(|byte| *byte == 0),
                    "{row}"
                );
            }
            Err(error) => assert!(matches!(error, Error::Closed), "{row}: {error}"),
        }
        drop(device);
        listener.check(&row);
    }
    let mut device = listener.device();
    let body = [&[0; 4][..], &4_u32.to_le_bytes(), &[0; 8]].concat();
    let outcome = device.connection.set(request::SET_CONFIG, &body, &[]);
    assert_refused("SET_CONFIG", outcome);
    drop(device);
    listener.check("SET_CONFIG");
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let mut listener = Listener::new();
    let set = |listener: &mut Listener, row: &str, number: u32, body: &[u8]| {
        let mut connection = listener.connect();
        connection.acknowledged = false;
        let options = Options::default();
        let mut device = Device::prepare(connection, &options).unwrap();
        let outcome = device.connection.set(number, body, &[]);
        assert_refused(row, outcome);
        drop(device);
        listener.check(row);
    };
    for size in [0, 3, 100, 32_769, 65_536, u32::MAX] {
        let row = format!("a ring of {size}");
        set(
            &mut listener,
            &row,
            request::SET_VRING_NUM,
            &vring_state(1, size),
        );
    }
    for index in [255, 256, 1000, u32::MAX] {
        for number in [
            request::SET_VRING_NUM,
            request::SET_VRING_BASE,
            request::SET_VRING_ENABLE,
        ] {
            let row = format!("message {number} for ring {index}");
            set(&mut listener, &row, number, &vring_state(index, 1));
        }
    }
    let layout = Layout {
        size: 128,
        descriptors: 0x10_0000,
        available: 0x10_2000,
        used: 0x10_3000,
    };
    for (what, layout) in [
        (
            "descriptors outside",
            Layout {
                descriptors: 1 << 40,
                ..layout
            },
        ),
        (
            "available outside",
            Layout {
                available: 1 << 40,
                ..layout
            },
        ),
        (
            "used outside",
            Layout {
                used: 1 << 40,
                ..layout
            },
        ),
        (
            "descriptors at the end",
            Layout {
                descriptors: 0x110_0000 - 16,
                ..layout
            },
        ),
        (
            "descriptors unaligned",
            Layout {
                descriptors: 0x10_0008,
                ..layout
            },
        ),
        (
            "available unaligned",
            Layout {
                available: 0x10_2001,
                ..layout
            },
        ),
        (
            "used unaligned",
            Layout {
                used: 0x10_3002,
                ..layout
            },
        ),
        (
            "everything at 2^64",
            Layout {
                descriptors: u64::MAX - 15,
                ..layout
            },
        ),
    ] {
        let mut device = Device::prepare(listener.connect(), &Options::default()).unwrap();
        let outcome = start_with(&mut device, &layout);
        // The fault may be seen with the address, or with the kick that completes the ring. A
        // device that takes it all the same serves nothing on that ring.
        if outcome.is_ok() {
            let guest = guest_on(&device, 1);
            let _ = guest.channel.ring.kick();
            device
                .synchronise()
                .unwrap_or_else(|error| assert!(matches!(error, Error::Closed)));
        }
        drop(device);
        listener.check(what);
    }
}

fn start_with(device: &mut Device, layout: &Layout) -> Result<()> {
    let (_, events) = device.ring_parts(1)?;
    let connection = &mut device.connection;
    connection.set_vring_state(request::SET_VRING_NUM, 1, 128)?;
    connection.set_vring_state(request::SET_VRING_BASE, 1, 0)?;
    connection.set(request::SET_VRING_ADDR, &vring_addr(1, layout), &[])?;
    connection.set_vring_fd(request::SET_VRING_CALL, 1, events.call.as_fd())?;
    connection.set_vring_fd(request::SET_VRING_KICK, 1, events.kick.as_fd())?;
    connection.set_vring_state(request::SET_VRING_ENABLE, 1, 1)
}

#[test]
fn a_running_ring_is_not_moved_under_its_requests() {
    let mut scene = Scene::set(Setting::launched_with(&["--reconnect"]));
    let other = Layout::allocate(scene.device.memory(), 256).unwrap();
    let layout = scene.guest.channel.ring.layout();
    let messages: [(&str, u32, Vec<u8>); 6] = [
        (
            "SET_VRING_NUM",
            request::SET_VRING_NUM,
            vring_state(1, 256).to_vec(),
        ),
        (
            "SET_VRING_NUM of 0",
            request::SET_VRING_NUM,
            vring_state(1, 0).to_vec(),
        ),
        (
            "SET_VRING_BASE",
            request::SET_VRING_BASE,
            vring_state(1, 77).to_vec(),
        ),
        (
            "SET_VRING_ADDR elsewhere",
            request::SET_VRING_ADDR,
            vring_addr(1, &other).to_vec(),
        ),
        (
            "SET_VRING_ADDR in place",
            request::SET_VRING_ADDR,
            vring_addr(1, &layout).to_vec(),
        ),
        ("SET_VRING_ADDR nowhere", request::SET_VRING_ADDR, {
            vring_addr(
                1,
                &Layout {
                    descriptors: 1 << 50,
                    ..layout
                },
            )
            .to_vec()
        }),
    ];
    for (row, number, body) in messages {
        // The neighbour would lose its device with a connection that is closed.
        drop(scene.pause_neighbour());
        let outcome = scene.device.connection.set(number, &body, &[]);
        let allowed = matches!(outcome, Ok(()) | Err(Error::Refused { .. } | Error::Closed));
        assert!(allowed, "{row}: {outcome:?}");
        scene.check(row);
        scene.reconnect();
        scene.check_served(row);
    }
    scene.finish();
}

#[test]
fn a_ring_that_is_disabled_is_not_served_until_it_is_enabled() {
    let mut scene = Scene::new();
    let ring = u32::from(HOSTILE);
    for _ in 0..20 {
        scene
            .device
            .connection
            .set_vring_state(request::SET_VRING_ENABLE, ring, 0)
            .unwrap();
        scene.device.synchronise().unwrap();
        let used = scene.guest.channel.ring.used_index().unwrap();
        let getattr = scene.guest.request(3, 1, vec![0; 16]);
        scene.guest.channel.submit(&getattr).unwrap();
        scene.guest.channel.ring.kick().unwrap();
        scene.check("a ring disabled");
        assert_eq!(
            scene.guest.channel.ring.used_index().unwrap(),
            used,
            "served all the same"
        );
        scene
            .device
            .connection
            .set_vring_state(request::SET_VRING_ENABLE, ring, 1)
            .unwrap();
        scene.guest.channel.wait_any().unwrap().reply().unwrap();
        scene.check_served("a ring enabled");
    }
    scene.finish();
}

#[test]
fn descriptors_that_are_no_eventfds_do_no_harm() {
    let mut listener = Listener::new();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let regular = tempfile::tempfile().unwrap();
    for (what, fd) in [
        ("/dev/null", null.as_fd()),
        ("a file", regular.as_fd()),
        ("the reading end of a pipe", read.as_fd()),
        ("the writing end of a pipe", write.as_fd()),
    ] {
        for number in [
            request::SET_VRING_KICK,
            request::SET_VRING_CALL,
            request::SET_VRING_ERR,
        ] {
            let mut device = listener.device();
            let outcome = device.connection.set_vring_fd(number, 1, fd);
            let allowed = matches!(outcome, Ok(()) | Err(Error::Refused { .. } | Error::Closed));
            assert!(allowed, "{what}: {outcome:?}");
            let guest = guest_on(&device, 1);
            guest.channel.ring.kick().unwrap();
            let _ = device.synchronise();
        }
        listener.check(what);
    }
    // Without a descriptor a ring is polled, or the message refused.
    for number in [
        request::SET_VRING_KICK,
        request::SET_VRING_CALL,
        request::SET_VRING_ERR,
    ] {
        let mut device = listener.device();
        let body = (vfsd_testkit::frontend::connection::VRING_NO_FD | 1).to_le_bytes();
        let outcome = device.connection.set(number, &body, &[]);
        let allowed = matches!(outcome, Ok(()) | Err(Error::Refused { .. } | Error::Closed));
        assert!(allowed, "message {number} without descriptor: {outcome:?}");
        drop(device);
        listener.check("no descriptor");
    }
}

#[test]
fn a_log_of_dirty_pages_that_does_not_fit_is_refused() {
    let mut listener = Listener::new();
    let log = tempfile::tempfile().unwrap();
    log.set_len(4096).unwrap();
    for (size, offset) in [
        (0, 0),
        (1, 0),
        (4096, 1),
        (4097, 0),
        (u64::MAX, 0),
        (4096, u64::MAX),
        (1 << 63, 1 << 63),
    ] {
        let device = listener.device();
        let body = [u64::to_le_bytes(size), u64::to_le_bytes(offset)].concat();
        let row = format!("SET_LOG_BASE {size}+{offset}");
        // Refused, closed, or not negotiated and ignored: nothing may be written through it.
        let _ = device
            .connection
            .send(request::SET_LOG_BASE, 0, &body, &[log.as_fd()]);
        let mut guest = guest_on(&device, 1);
        let _ = guest.channel.submit(&guest.request(3, 1, vec![0; 16]));
        drop(device);
        listener.check(&row);
    }
}
