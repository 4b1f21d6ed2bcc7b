//! Where content is, without a bucket.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::pwrite;

use super::dirty::{ContentMap, Dirty, Frozen};

struct Bench {
    dirty: Dirty,
    map: Arc<ContentMap>,
    live: OwnedFd,
}

fn file() -> OwnedFd {
    tempfile::tempfile_in("/var/tmp").unwrap().into()
}

fn bench() -> Bench {
    let dirty = Dirty::default();
    let map = dirty.map(7);
    map.made();
    Bench {
        dirty,
        map,
        live: file(),
    }
}

impl Bench {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let range = offset..offset + bytes.len() as u64;
        self.map
            .change(&self.dirty, &self.live, &range, true, || Ok(file()))
            .unwrap();
        pwrite(&self.live, bytes, offset).unwrap();
    }

    fn cut(&self, range: Range<u64>) {
        self.map
            .change(&self.dirty, &self.live, &range, false, || Ok(file()))
            .unwrap();
    }

    /// The frozen content, holes as zeros, and its size.
    fn frozen(&self, size: u64) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(frozen) = self
            .map
            .read_frozen(Some(&self.live), size, 1 << 20)
            .unwrap()
        {
            all.push(match frozen {
                Frozen::Data { offset, bytes } => (offset, bytes),
                Frozen::Hole { offset, length } => {
                    (offset, vec![0; usize::try_from(length).unwrap()])
                }
            });
        }
        all
    }
}

#[test]
fn what_is_shipped_is_the_content_at_the_cut() {
    let bench = bench();
    bench.write(0, &[1; 5000]);
    assert!(bench.map.freeze());
    bench.write(100, &[2; 10]);
    bench.cut(4096..8192);
    ftruncate(&bench.live, 4096).unwrap();
    assert_eq!(bench.dirty.bytes(), 8192 + 4096);
    let told = bench.frozen(5000);
    let content: Vec<u8> = told.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(content[..5000], [1; 5000]);
    assert!(content[5000..].iter().all(|&byte| byte == 0));
    assert_eq!(content.len(), 8192, "a hole up to the end of the block");
    bench.map.shipped(&bench.dirty);
    assert_eq!(bench.dirty.bytes(), 4096);
    assert!(bench.dirty.is_dirty(7), "the second write");
    assert!(bench.map.freeze());
    let again = bench.frozen(4096);
    assert_eq!(again[0].1[99..111], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    assert_eq!(again[1], (4096, vec![0; 4096]));
    bench.map.shipped(&bench.dirty);
    assert!(!bench.dirty.is_dirty(7) && !bench.map.freeze());
    assert_eq!(bench.dirty.bytes(), 0);
}

#[test]
fn holes_stay_holes_aside_and_on_their_way() {
    let bench = bench();
    bench.write(0, &[1; 4096]);
    bench.cut(4096..1 << 30);
    bench.write(1 << 30, &[3; 1]);
    bench.map.freeze();
    bench.write(8192, &[9; 4096]);
    fallocate(
        &bench.live,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        4096,
    )
    .unwrap();
    let mut told = Vec::new();
    while let Some(frozen) = bench
        .map
        .read_frozen(Some(&bench.live), (1 << 30) + 1, 4096)
        .unwrap()
    {
        told.push(frozen);
    }
    // The punch did not ask first, so that it is seen.
    let hole = |offset, length| Frozen::Hole { offset, length };
    let byte = Frozen::Data {
        offset: 1 << 30,
        bytes: vec![3],
    };
    let expected = [
        hole(0, 8192),
        hole(8192, 4096),
        hole(12_288, (1 << 30) - 12_288),
        byte,
        hole((1 << 30) + 1, 4095),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_the_bucket_has_is_missing_unless_it_is_here_or_newer() {
    let bench = bench();
    bench.write(4096, &[1; 4096]);
    bench.map.closed();
    assert!(bench.map.misses(&(0..1)), "not known");
    let here: Vec<_> = std::iter::once(16_384..16_385).collect();
    bench
        .map
        .opened(|| Ok(std::iter::once(0..20_000).collect()), &here)
        .unwrap();
    assert_eq!(bench.map.missing(&(0..u64::MAX)), [0..4096, 8192..16_384]);
    assert_eq!(bench.map.missing_bytes(), 12_288);
    assert!(!bench.map.misses(&(4096..8192)) && bench.map.misses(&(0..4097)));
    bench.write(0, &[1; 4096]);
    let mut ranges = bench.map.lock();
    bench.map.arrived(&mut ranges, &(8192..16_384));
    drop(ranges);
    assert!(bench.map.is_whole());
}

/// Random writes, holes, cuts and reads, against copies of the whole file.
#[test]
fn every_cut_is_shipped_as_it_was_whatever_goes_on() {
    const SIZE: usize = 1 << 16;
    let bench = bench();
    let mut random = 1_u64;
    let mut next = |bound: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % bound
    };
    let (mut live, mut bucket, mut at_cut) = (vec![0_u8; SIZE], vec![0_u8; SIZE], None);
    ftruncate(&bench.live, SIZE as u64).unwrap();
    for step in 0..4000_usize {
        let start = next(SIZE - 1);
        let length = (next(20_000) + 1).min(SIZE - start);
        let range = start as u64..(start + length) as u64;
        match next(10) {
            0..5 => {
                let byte = u8::try_from(step % 255 + 1).unwrap();
                bench.write(range.start, &vec![byte; length]);
                live[start..start + length].fill(byte);
            }
            5 => {
                bench.cut(range.clone());
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&bench.live, flags, range.start, length as u64).unwrap();
                live[start..start + length].fill(0);
            }
            6 if at_cut.is_none() && bench.map.freeze() => at_cut = Some(live.clone()),
            _ => {
                let Some(cut) = &at_cut else { continue };
                match bench
                    .map
                    .read_frozen(Some(&bench.live), SIZE as u64, 8192)
                    .unwrap()
                {
                    Some(Frozen::Data { offset, bytes }) => {
                        let at = usize::try_from(offset).unwrap();
                        bucket[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    Some(Frozen::Hole { offset, length }) => {
                        let (at, length) = (
                            usize::try_from(offset).unwrap(),
                            usize::try_from(length).unwrap(),
                        );
                        bucket[at..at + length].fill(0);
                    }
                    None => {
                        assert!(bucket == *cut, "step {step}");
                        bench.map.shipped(&bench.dirty);
                        at_cut = None;
                    }
                }
            }
        }
    }
}
