//! The device, by its socket: messages that no front end sends, and rings that no driver makes.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vfsd_testkit::frontend::connection::{Connection, header};
use vfsd_testkit::frontend::device::{Device as FrontEnd, Options};
use vfsd_virtio::{Device, DeviceOptions};

use crate::reader::Reader;
use crate::session::on_memory;

/// How long a device may take to end when its front end is gone.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Serves a front end that `act`s, and expects the device to end with it.
fn with_device(act: impl FnOnce(Connection)) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let options = DeviceOptions {
        max_request_queues: 2,
        ..DeviceOptions::default()
    };
    let device = Device::new(listener, Arc::new(on_memory()), &options).unwrap();
    let (ended, end) = channel();
    let server = spawn(move || {
        // A front end that is no correct one ends it with an error, which is right.
        let _ = device.serve();
        let _ = ended.send(());
    });
    act(Connection::open(&path).unwrap());
    end.recv_timeout(TIME_LIMIT).expect("the device ends");
    server.join().expect("without a panic");
}

/// Messages: a number, a length that may be a lie, a body, and descriptors.
pub(crate) fn connection(data: &[u8]) {
    with_device(|connection| {
        let mut script = Reader::new(data);
        while !script.is_empty() {
            let (request, shape) = (script.byte(), script.byte());
            let length = usize::from(shape % 64);
            let body = script.bytes(length);
            let claimed = match shape {
                192.. => u32::from(script.word()),
                _ => u32::try_from(body.len()).unwrap(),
            };
            let flags = match script.byte() {
                flags @ 128.. => u32::from(flags),
                _ => 1 | 8,
            };
            let descriptors: Vec<_> = (0..script.byte() % 4)
                .map(|_| {
                    let file = memfd_create(c"fuzz", MemfdFlags::CLOEXEC).unwrap();
                    ftruncate(&file, 65_536).unwrap();
                    file
                })
                .collect();
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let message = [&header(u32::from(request), flags, claimed)[..], body].concat();
            if connection.send_raw(&message, &borrowed).is_err() {
                break;
            }
        }
    });
}

pub(crate) fn connection_seeds() -> Vec<Vec<u8>> {
    // GET_FEATURES to SET_STATUS, with bodies of the lengths that they have.
    let step = |request: u8, length: u8, descriptors: u8| {
        let mut step = vec![request, length];
        step.resize(2 + usize::from(length), 0);
        step.extend([0, descriptors]);
        step
    };
    let begin = [
        step(1, 0, 0),
        step(2, 8, 0),
        step(3, 0, 0),
        step(15, 0, 0),
        step(16, 8, 0),
    ]
    .concat();
    let mut all = vec![begin.clone()];
    for (request, length, descriptors) in [
        (5, 40, 1),
        (37, 40, 1),
        (38, 40, 0),
        (8, 8, 0),
        (9, 40, 0),
        (10, 8, 0),
        (11, 8, 0),
        (12, 8, 1),
        (13, 8, 1),
        (18, 8, 0),
        (24, 20, 0),
        (31, 24, 0),
        (32, 24, 1),
    ] {
        all.push([begin.clone(), step(request, length, descriptors)].concat());
    }
    all
}

/// A ring whose descriptors, available ring and indexes the input writes, in any order.
pub(crate) fn ring(data: &[u8]) {
    with_device(|connection| {
        let options = Options {
            request_queues: 2,
            queue_size: 16,
            ..Options::default()
        };
        let mut device = FrontEnd::negotiate(connection, &options).unwrap();
        let (layout, events) = device.ring_parts(1).unwrap();
        let memory = Arc::clone(device.memory());
        let kick = || rustix::io::write(&events.kick, &1_u64.to_ne_bytes()).unwrap();
        let mut script = Reader::new(data);
        while !script.is_empty() {
            let what = script.byte();
            match what % 4 {
                0 => {
                    let slot = u64::from(script.byte() % 16);
                    let mut descriptor = script.array::<16>();
                    if what < 128 {
                        // An address in guest memory, and a length that may fit.
                        descriptor[2..8].copy_from_slice(&[0x10, 0, 0, 0, 0, 0]);
                        descriptor[10..12].fill(0);
                    }
                    memory
                        .write(layout.descriptors + slot * 16, &descriptor)
                        .unwrap();
                }
                1 => {
                    let slot = u64::from(script.byte() % 16);
                    let head = script.word();
                    let head = if what < 128 { head % 16 } else { head };
                    memory
                        .store_u16(layout.available + 4 + slot * 2, head)
                        .unwrap();
                }
                2 => {
                    let index = script.word();
                    let index = if what < 128 { index % 8 } else { index };
                    memory.store_u16(layout.available + 2, index).unwrap();
                    kick();
                }
                _ => {
                    let offset = u64::from(script.byte());
                    let bytes = script.bytes(48);
                    memory.write(0x10_0000 + offset * 16, bytes).unwrap();
                }
            }
        }
        kick();
        // Whatever became of this ring, the device and its other rings go on.
        device.synchronise().unwrap();
        device.stop_ring(2).unwrap();
        device.stop_ring(1).unwrap();
    });
}

pub(crate) fn ring_seeds() -> Vec<Vec<u8>> {
    // A FUSE request's header at the beginning of memory; a descriptor to read it, one to write to.
    let mut request = vec![3, 0];
    request.extend(40_u32.to_le_bytes());
    request.extend(3_u32.to_le_bytes());
    request.resize(2 + 48, 0);
    let descriptor = |slot: u8, length: u32, flags: u16, next: u16| {
        let mut step = vec![0, slot];
        step.extend(0_u64.to_le_bytes());
        step.extend(length.to_le_bytes());
        step.extend(flags.to_le_bytes());
        step.extend(next.to_le_bytes());
        step
    };
    let chain = [descriptor(0, 40, 1, 1), descriptor(1, 200, 2, 0)].concat();
    let go = vec![1, 0, 0, 0, 2, 1, 0];
    vec![
        [request.clone(), chain.clone(), go.clone()].concat(),
        [request.clone(), descriptor(0, 40, 1, 0), go.clone()].concat(),
        [request, descriptor(0, 40, 4, 0), chain, go].concat(),
    ]
}
