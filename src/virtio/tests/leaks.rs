//! What front ends leave behind: nothing. In a process of its own, whose descriptors and threads
//! are all its own.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "device/stage.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod stage;

use std::os::fd::AsFd;

use vfsd_testkit::frontend::connection::{Connection, request as message};
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::memory::{Extent, Region};

use stage::{ECHO, HOLD, Served, channel, request};

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .matches("memfd:guest")
        .count()
}

/// Waits until the device is between two front ends.
fn settle(served: &Served, resets: usize) {
    while served.play.resets.load(std::sync::atomic::Ordering::SeqCst) < resets {
        std::thread::yield_now();
    }
}

#[test]
fn descriptors_threads_and_mappings_return_to_where_they_were() {
    let served = Served::patient();
    let file = std::fs::File::open("/dev/null").unwrap();
    let many = vec![file.as_fd(); 40];
    let mut start = None;
    for round in 1..=30 {
        match round % 6 {
            // A front end that leaves with requests in flight.
            0 => {
                let front_end = served.connect(&Options {
                    request_queues: 4,
                    ..Options::default()
                });
                let mut channel = channel(&front_end, 1);
                channel.submit(&request(HOLD, b"")).unwrap();
                channel.submit(&request(ECHO, b"")).unwrap();
            }
            // Descriptors where none belong, and more than are taken.
            1 => Connection::open(&served.socket)
                .unwrap()
                .send(message::GET_FEATURES, 0, &[], &many[..8])
                .unwrap(),
            2 => Connection::open(&served.socket)
                .unwrap()
                .send(message::SET_MEM_TABLE, 0, &[0; 40], &many)
                .unwrap(),
            // A table whose second region is bad, after the first was mapped.
            3 => {
                let mut front_end = served.connect(&Options::default());
                let good = Region::new(
                    Extent {
                        start: 0,
                        size: 1 << 20,
                    },
                    0,
                )
                .unwrap();
                let overlapping = Region::new(
                    Extent {
                        start: 4096,
                        size: 1 << 20,
                    },
                    0,
                )
                .unwrap();
                assert!(
                    front_end
                        .connection
                        .set_mem_table(&[good, overlapping])
                        .is_err()
                );
            }
            // A notifier for a queue that is not there.
            4 => {
                let mut front_end = served.connect(&Options::default());
                let sent =
                    front_end
                        .connection
                        .set_vring_fd(message::SET_VRING_CALL, 200, file.as_fd());
                assert!(sent.is_err());
            }
            // Memory that is added and never removed.
            _ => {
                let mut front_end = served.connect(&Options::default());
                front_end
                    .add_region(Extent {
                        start: 1 << 40,
                        size: 4096,
                    })
                    .unwrap();
            }
        }
        settle(&served, round);
        let now = (
            entries("/proc/self/fd"),
            entries("/proc/self/task"),
            mappings(),
        );
        assert_eq!(*start.get_or_insert(now), now, "round {round}");
    }
}
