//! How much memory a volume takes whose content is far more than stays on its host.
//!
//! `VFSD_GIB` says how much content there is, of which the disk has to have room for as much again as cannot be compressed:
//! `VFSD_NOISE` says how many bytes of each page of 4096 cannot.

use std::sync::Arc;

use vfsd_testkit::place::Handle;
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{Hosts, PREFIX, make_volume, number, root, store, sync};
use crate::local_store::LocalStore;

const FILE: u64 = 1 << 30;
const PAGE: u64 = 4096;
const CHUNK: u64 = 1 << 20;
/// What stays on the host.
const CACHE: u64 = 512 << 20;
const OPERATIONS: u64 = 30_000;
const MOST_MIB: u64 = 300;

/// A figure of this process, in MiB.
fn mebibytes(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure));
    let kilobytes = line.unwrap().trim_start_matches(':').trim();
    kilobytes.trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn tell(when: &str) {
    let [most, now, own] = ["VmHWM", "VmRSS", "RssAnon"].map(mebibytes);
    println!("{when}: {now} MiB, {own} of them its own, {most} at most");
}

/// A page that says which it is, and of which so many bytes cannot be compressed.
fn page(file: usize, offset: u64, version: u64, noise: usize) -> Vec<u8> {
    let mut state = (offset + version + 1) << 4 | u64::try_from(file).unwrap();
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut page: Vec<u8> = words.take(noise / 8 + 1).flatten().collect();
    page.resize(usize::try_from(PAGE).unwrap(), 0);
    page
}

fn write_whole(file: usize, handle: &Handle, noise: usize) {
    for start in (0..FILE).step_by(usize::try_from(CHUNK).unwrap()) {
        let pages = (start..start + CHUNK).step_by(usize::try_from(PAGE).unwrap());
        let chunk: Vec<u8> = pages
            .flat_map(|offset| page(file, offset, 0, noise))
            .collect();
        handle.write_all(start, &chunk).unwrap();
    }
}

#[test]
#[ignore = "takes minutes and gigabytes; run with --ignored"]
fn a_working_set_that_is_larger_than_the_cache_takes_little_memory() {
    let mut hosts = Hosts::new();
    let bucket = store(Arc::new(LocalStore::new(&hosts.fresh())));
    make_volume(&bucket);
    let options = RemoteOptions {
        cache_size: Some(CACHE),
        ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
    };
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &options).unwrap();
    let count = usize::try_from(number("VFSD_GIB").unwrap_or(10)).unwrap();
    let noise = usize::try_from(number("VFSD_NOISE").unwrap_or(PAGE - 8)).unwrap();
    tell("opened");
    for file in 0..count {
        let (_, handle) = root(&volume).create(&format!("file-{file}")).unwrap();
        write_whole(file, &handle, noise);
    }
    sync(&volume);
    tell("written");
    let handles: Vec<Handle> = (0..count)
        .map(|file| root(&volume).lookup(&format!("file-{file}")).unwrap())
        .map(|file| file.open_both().unwrap())
        .collect();
    let mut versions = std::collections::HashMap::new();
    let mut random = 7_u64;
    let mut next = |bound: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for operation in 0..OPERATIONS {
        let file = usize::try_from(next(u64::try_from(count).unwrap())).unwrap();
        let offset = next(FILE / PAGE) * PAGE;
        let version = versions.entry((file, offset)).or_insert(0);
        if next(4) == 0 {
            *version += 1;
            handles[file]
                .write_all(offset, &page(file, offset, *version, noise))
                .unwrap();
        } else {
            let found = handles[file]
                .read(offset, usize::try_from(PAGE).unwrap())
                .unwrap();
            assert!(
                found == page(file, offset, *version, noise),
                "{file} at {offset}"
            );
        }
        if operation % 1000 == 999 {
            handles[file].fsync().unwrap();
        }
    }
    tell("read and written at random");
    assert!(mebibytes("VmHWM") < MOST_MIB);
}
