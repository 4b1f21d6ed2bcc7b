//! Data of writes in memory that the daemon shares with the plugin: where they are, how long they stay there, and what a plugin cannot
//! do to them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test"
)]

#[allow(dead_code, reason = "other tests use more of it")]
mod scripted;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::io::Errno;
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{WriteIn, WriteOut};
use vfsd_plugin_host::{Options, Plugin};
use vfsd_plugin_protocol::{AreaIn, Features, WRITE_AREA};
use vfsd_testkit::place::Place;
use zerocopy::{FromBytes, IntoBytes};

use scripted::{Asked, Script, Then, reply, root};

/// As many bytes as one WRITE has.
const MIB: usize = 1 << 20;

/// The area of the first connection.
type Kept = Arc<Mutex<Option<OwnedFd>>>;

/// A WRITE: its arguments, and where in the area its data are if they are not behind them.
fn write_of(asked: &Asked) -> (WriteIn, Option<u64>, &[u8]) {
    let (arg, rest) = WriteIn::read_from_prefix(&asked.body).unwrap();
    let place = (arg.write_flags & WRITE_AREA != 0).then(|| {
        let place = AreaIn::read_from_bytes(rest).unwrap();
        place.offset
    });
    (arg, place, rest)
}

fn data_of(asked: &Asked, area: &Kept) -> Vec<u8> {
    match write_of(asked) {
        (_, None, rest) => rest.to_vec(),
        (arg, Some(offset), _) => {
            let mut data = vec![0; arg.size.try_into().unwrap()];
            let area = area.lock().unwrap();
            let read = rustix::io::pread(area.as_ref().unwrap(), &mut data, offset).unwrap();
            assert_eq!(read, data.len());
            data
        }
    }
}

fn written(asked: &Asked) -> Vec<u8> {
    let (arg, _, _) = write_of(asked);
    let out = WriteOut {
        size: arg.size,
        padding: 0,
    };
    reply(asked, out.as_bytes())
}

/// A plugin that keeps the area, and answers WRITEs by a rule.
fn plugin(
    features: Features,
    area: &Kept,
    rule: impl Fn(&Asked) -> Then + Send + Sync + 'static,
) -> Plugin {
    let area = Arc::clone(area);
    let script = Script::new(move |asked: &Asked| match asked.opcode {
        Opcode::Init => {
            let descriptor = asked.descriptor.as_ref();
            *area.lock().unwrap() = descriptor.map(|found| found.try_clone().unwrap());
            Then::Well
        }
        Opcode::Write => rule(asked),
        _ => Then::Well,
    });
    Plugin::new(script.with(features), Options::default()).unwrap()
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..MIB)
        .map(|at| ((at + seed) % 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn data_are_in_the_area_unless_they_are_few_or_the_plugin_does_not_use_it() {
    for (features, area_used) in [(Features::all(), true), (Features::empty(), false)] {
        let (area, seen) = (Kept::default(), Arc::new(Mutex::new(Vec::new())));
        let (keep, collect) = (Arc::clone(&area), Arc::clone(&seen));
        let plugin = plugin(features, &area, move |asked| {
            let (_, place, _) = write_of(asked);
            let data = data_of(asked, &keep);
            collect.lock().unwrap().push((place.is_some(), data));
            Then::Send(written(asked), None)
        });
        let handle = root(&plugin).lookup("file").unwrap().open_both().unwrap();
        for data in [&pattern(1)[..], b"few", &pattern(2)[..20_000]] {
            assert_eq!(handle.write(0, data), Ok(data.len()));
        }
        let expected = [
            (area_used, pattern(1)),
            (false, b"few".to_vec()),
            (area_used, pattern(2)[..20_000].to_vec()),
        ];
        assert!(*seen.lock().unwrap() == expected, "{features:?}");
        assert_eq!(area.lock().unwrap().is_some(), area_used);
    }
}

#[test]
fn no_range_is_used_again_before_its_write_is_answered() {
    const RANGES: usize = 16;
    const WRITES: usize = RANGES + 4;
    let (area, waiting) = (Kept::default(), Arc::new(Mutex::new(Vec::new())));
    let keep = Arc::clone(&area);
    let plugin = plugin(Features::all(), &area, move |asked| {
        let (_, place, _) = write_of(asked);
        let mut waiting = waiting.lock().unwrap();
        waiting.push((place, written(asked), data_of(asked, &keep)));
        if waiting.len() < WRITES {
            return Then::Nothing;
        }
        // All that there is room for at once, each in a range of its own; the rest have their data with them.
        let places: Vec<u64> = waiting.iter().filter_map(|(place, ..)| *place).collect();
        let distinct: BTreeSet<u64> = places.iter().copied().collect();
        assert_eq!((places.len(), distinct.len()), (RANGES, RANGES));
        let again: Vec<u8> = waiting
            .drain(..)
            .flat_map(|(place, reply, data)| {
                if let Some(place) = place {
                    let mut now = vec![0; data.len()];
                    let area = keep.lock().unwrap();
                    rustix::io::pread(area.as_ref().unwrap(), &mut now, place).unwrap();
                    assert!(now == data, "it has changed");
                }
                reply
            })
            .collect();
        Then::Send(again, None)
    });
    let handle = root(&plugin).lookup("file").unwrap().open_both().unwrap();
    std::thread::scope(|scope| {
        for seed in 0..WRITES {
            let handle = &handle;
            scope.spawn(move || assert_eq!(handle.write(0, &pattern(seed)), Ok(MIB)));
        }
    });
}

#[test]
fn what_a_plugin_does_to_the_area_harms_nobody() {
    let area = Kept::default();
    let keep = Arc::clone(&area);
    let plugin = plugin(Features::all(), &area, move |asked| {
        let area = keep.lock().unwrap();
        let area = area.as_ref().unwrap();
        assert_eq!(ftruncate(area, 0), Err(Errno::PERM));
        assert_eq!(ftruncate(area, 1 << 40), Err(Errno::PERM));
        assert_eq!(
            fallocate(area, FallocateFlags::empty(), 1 << 30, 4096),
            Err(Errno::PERM)
        );
        assert_eq!(fcntl_add_seals(area, SealFlags::WRITE), Err(Errno::PERM));
        let all = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(area, all, 0, 16 << 20).unwrap();
        rustix::io::pwrite(area, b"other data", 0).unwrap();
        Then::Send(written(asked), None)
    });
    let handle = root(&plugin).lookup("file").unwrap().open_both().unwrap();
    for seed in 0..3 {
        assert_eq!(handle.write(0, &pattern(seed)), Ok(MIB));
    }
}

#[test]
fn a_plugin_that_comes_back_gets_an_area_of_its_own() {
    let area = Kept::default();
    let plugin = plugin(Features::all(), &area, |_| Then::Send(vec![0; 16], None));
    let place: Place = root(&plugin);
    let handle = place.lookup("file").unwrap().open_both().unwrap();
    assert!(
        handle.write(0, &pattern(0)).is_err(),
        "a reply that breaks the connection"
    );
    // A memory file system of the SDK.
    scripted::patiently("back", || place.attributes().is_ok());
    let file = place.put("another", &pattern(5)).unwrap();
    assert!(file.content().unwrap() == pattern(5));
    let mut old = vec![0; MIB];
    let area = area.lock().unwrap();
    rustix::io::pread(area.as_ref().unwrap(), &mut old, 0).unwrap();
    assert!(old == pattern(0), "the first one sees nothing of it");
}
