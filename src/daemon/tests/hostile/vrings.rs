//! Messages that set a ring up wrongly, or at the wrong time.

use std::fs::File;
use std::os::fd::AsFd;

use vfsd_testkit::frontend::connection::{VRING_NO_FD, request, vring_addr, vring_state};
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::ring::Layout;
use vfsd_testkit::frontend::{Error, Result};

use crate::listener::{Listener, assert_refused};
use crate::scene::{HOSTILE, Scene, Setting, guest_on};

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
        let body = (VRING_NO_FD | 1).to_le_bytes();
        let outcome = device.connection.set(number, &body, &[]);
        let allowed = matches!(outcome, Ok(()) | Err(Error::Refused { .. } | Error::Closed));
        assert!(allowed, "message {number} without descriptor: {outcome:?}");
        drop(device);
        listener.check("no descriptor");
    }
}
