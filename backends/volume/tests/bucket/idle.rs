//! The cache of a volume whose files stay open, as those of a guest do that opens nothing by itself.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use vfsd_backend::{Backend, OpenFlags};
use vfsd_testkit::place::Handle;
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{self, Hosts, PREFIX, check, make_volume, open, root, store, sync};

const FILES: u8 = 40;
const LENGTH: usize = 60_000;
/// A tenth of the content, and what may come before the next look at the data files.
const LIMIT: u64 = 240_000;
const SLACK: u64 = LIMIT / 16 + 2 * 61_440;

fn options() -> RemoteOptions {
    RemoteOptions {
        cache_size: Some(LIMIT),
        ..bench::options()
    }
}

/// What a host keeps of the content.
fn kept(host: &Path) -> u64 {
    let data = std::fs::read_dir(host.join("data/00")).unwrap();
    let blocks = data.map(|file| file.unwrap().metadata().map_or(0, |file| file.blocks()));
    blocks.sum::<u64>() * 512
}

fn wait_until_within(host: &Path) {
    let begun = Instant::now();
    while kept(host) > LIMIT + SLACK {
        let passed = begun.elapsed();
        assert!(
            passed < Duration::from_secs(60),
            "{} bytes stay",
            kept(host)
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn content(number: u8) -> Vec<u8> {
    vec![number + 1; LENGTH]
}

/// A host that has nothing of a volume whose files it has open.
fn opened(hosts: &mut Hosts) -> (Volume, std::path::PathBuf, Vec<Handle>) {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let volume = open(&bucket, &hosts.fresh());
    for number in 0..FILES {
        root(&volume)
            .put(&format!("file{number}"), &content(number))
            .unwrap();
    }
    volume.close().unwrap();
    drop(volume);
    check(&bucket, &hosts.fresh());
    let here = hosts.fresh();
    let volume = Volume::open_remote(&bucket, PREFIX, &here, &options()).unwrap();
    let open = |number| {
        let file = root(&volume).lookup(&format!("file{number}")).unwrap();
        file.open(OpenFlags::READ | OpenFlags::WRITE).unwrap()
    };
    let handles = (0..FILES).map(open).collect();
    (volume, here, handles)
}

#[test]
fn files_that_stay_open_make_room_and_are_read_again() {
    let mut hosts = Hosts::new();
    let (volume, here, handles) = opened(&mut hosts);
    for _ in 0..2 {
        for (number, handle) in (0..).zip(&handles) {
            assert!(handle.content().unwrap() == content(number), "{number}");
        }
        wait_until_within(&here);
    }
    let evicted = volume.watch_cache().look().unwrap().evicted;
    assert!(
        evicted >= u64::from(FILES) * LENGTH as u64 - LIMIT,
        "{evicted}"
    );
    // What is written into one of them is not lost, nor what is around it.
    for (number, handle) in (0..).zip(&handles) {
        handle.write_all(5_000, &[99; 100]).unwrap();
        assert!(handle.read(0, 4_096).unwrap() == content(number)[..4_096]);
    }
    sync(&volume);
    wait_until_within(&here);
    for (number, handle) in (0..).zip(&handles) {
        let mut expected = content(number);
        expected[5_000..5_100].fill(99);
        assert!(handle.content().unwrap() == expected, "{number}");
    }
}

/// Between its arrival and the read content may have made room again, over and over.
#[test]
fn who_reads_while_everything_makes_room_reads_what_is_in_the_bucket() {
    let mut hosts = Hosts::new();
    let (_volume, here, handles) = opened(&mut hosts);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4_usize)
            .map(|reader| {
                let handles = &handles;
                scope.spawn(move || {
                    for turn in 0..300_usize {
                        let number = (turn * 7 + reader * 11) % handles.len();
                        let offset = turn % 13 * 4_096;
                        let read = handles[number].read(offset as u64, 8_192).unwrap();
                        let byte = u8::try_from(number).unwrap() + 1;
                        assert!(!read.is_empty() && read.iter().all(|it| *it == byte));
                    }
                })
            })
            .collect();
        let copies = scope.spawn(|| {
            for turn in 0..100_usize {
                let (from, to) = (&handles[turn % 20], &handles[20 + turn % 20]);
                // The end of a file goes behind the end of another, which nobody reads.
                let copied = from.copy_range(50_000, to, 60_000, 10_000).unwrap();
                assert_eq!(copied, 10_000);
                let byte = u8::try_from(turn % 20).unwrap() + 1;
                assert!(to.read(60_000, 10_000).unwrap() == vec![byte; 10_000]);
                if turn % 10 == 9 {
                    to.truncate(60_000).unwrap();
                }
            }
        });
        for reader in readers {
            reader.join().unwrap();
        }
        copies.join().unwrap();
    });
    wait_until_within(&here);
}
