//! A guest that uses up its descriptors takes none that the daemon needs.

use std::os::fd::AsFd;
use std::process::Command;

use vfsd_testkit::frontend::connection::{region_fields, request};
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::memory::{Extent, Region, USER_OFFSET};

use crate::daemon::Launch;
use crate::scene::{Ground, guest_on};

/// Descriptors that are left to the guest.
const LEFT: u64 = 150;
/// Regions that a front end can share, of which one is there from the start.
const REGIONS: u64 = 509;

/// What a daemon says that it needs itself.
fn needed(ground: &Ground, arguments: &[&str]) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_vfsd"))
        .args(["serve", "--rlimit-nofile=100", "--socket-path"])
        .arg(ground.path().join("never"))
        .args(arguments)
        .arg(ground.share())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let number = text
        .split_once("the daemon itself needs ")
        .and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number is told: {text}"))
}

#[test]
fn what_the_daemon_needs_is_left_to_it_however_many_queues_there_are() {
    for (queues, pool) in [(1, 0), (1, 4), (100, 0), (100, 1)] {
        let row = format!("{queues} queues, pool of {pool}");
        let ground = Ground::new();
        let [queue_option, pool_option] = [
            format!("--queues={queues}"),
            format!("--thread-pool-size={pool}"),
        ];
        let arguments = ["--reconnect", &queue_option, &pool_option];
        let limit = needed(&ground, &arguments) + LEFT;
        let launch = Launch {
            descriptors: Some(limit),
            ..Launch::with(&arguments)
        };
        let mut daemon = ground.start(&launch);
        let options = Options {
            request_queues: queues,
            queue_size: 16,
            ..Options::default()
        };
        // Another guest finds all of it again.
        for _ in 0..2 {
            let mut device = Device::prepare(
                vfsd_testkit::frontend::connection::Connection::open(daemon.socket()).unwrap(),
                &options,
            )
            .unwrap();
            device.start_ring(1).unwrap();
            let mut guest = guest_on(&device, 1);
            guest.init().unwrap();
            let file = guest.lookup(1, "file").unwrap().node;
            let mut handles = Vec::new();
            let refused = loop {
                match guest.open(file, 0) {
                    Ok(opened) => handles.push(opened.fh),
                    Err(error) => break error.errno(),
                }
                assert!(handles.len() < 10_000, "{row}: no end");
            };
            assert_eq!(refused, Some(libc::ENFILE), "{row}");
            assert!(handles.len() > 100, "{row}: {}", handles.len());

            let size = 0x1000;
            let start = 1 << 32;
            let shared = Region::new(Extent { start, size }, 0).unwrap();
            for index in 0..REGIONS - 1 {
                let at = start + index * size;
                let fields = region_fields(at, size, USER_OFFSET + at, 0);
                device
                    .connection
                    .set(
                        request::ADD_MEM_REG,
                        &[&[0; 8][..], &fields].concat(),
                        &[shared.file.as_fd()],
                    )
                    .unwrap_or_else(|error| panic!("{row}: region {index}: {error}"));
            }
            for index in (0..=queues).filter(|index| *index != 1) {
                device
                    .start_ring(index)
                    .unwrap_or_else(|error| panic!("{row}: ring {index}: {error}"));
            }
            for index in 2..=queues {
                let mut other = guest_on(&device, index);
                other
                    .getattr(file)
                    .unwrap_or_else(|error| panic!("{row}: queue {index}: {error}"));
            }
            assert_eq!(
                guest.read(file, handles[0], 0, 64).unwrap(),
                b"inside",
                "{row}"
            );
            let held = u64::try_from(daemon.census().descriptor_count()).unwrap();
            assert!(held < limit, "{row}: {held} of {limit}");
        }
        daemon.terminate();
        assert!(daemon.wait().success(), "{row}: {}", daemon.log());
        let log = daemon.log();
        assert!(!log.contains("os error 24"), "{row}: {log}");
    }
}
