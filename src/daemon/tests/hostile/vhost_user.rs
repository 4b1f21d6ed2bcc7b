//! Messages of the front end that are cut off, lie or come at the wrong time.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::connection::{
    Connection, FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, header, request,
};

use crate::listener::Listener;
use crate::scene::guest_on;

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
