//! What other hosts find.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use vfsd_backend::{Backend, Errno, OpenFlags};
use vfsd_volume::Volume;

use crate::bench::{
    Hosts, PREFIX, check, make_volume, open, options, oracle, root, seed, store, sync, try_open,
};
use crate::work::{Look, Work, look};

/// At any moment, synced or not, the bucket has the state after one of the operations: none before the last
/// sync.
#[test]
fn the_bucket_always_has_a_state_after_some_operation() {
    let seed = seed();
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open(&bucket, &hosts.fresh());
    let mut work = Work::new(root(&volume), seed);
    let oracle = oracle();
    let mut expected = Work::new(oracle.clone(), seed);
    let mut states = vec![look(&oracle)];
    for step in 1..=1200_u32 {
        work.step();
        expected.step();
        states.push(look(&oracle));
        if step % 40 == 0 {
            if step % 120 == 0 {
                sync(&volume);
                states = vec![look(&oracle)];
            }
            let fork = store(Arc::new(objects.fork()));
            check(&fork, &hosts.fresh());
            let other = open(&fork, &hosts.fresh());
            let found = look(&root(&other));
            let last = states.last();
            assert!(
                states.contains(&found),
                "VFSD_SEED={seed}: after {step} operations another host finds none of {} states; of the last one differ: {:?}",
                states.len(),
                differences(&found, last.unwrap())
            );
        }
    }
    let here = look(&root(&volume));
    assert!(here == *states.last().unwrap(), "VFSD_SEED={seed}");
}

/// Small files that were written together are read with few requests, by a host that has nothing of them.
#[test]
fn small_files_that_lie_together_come_together() {
    const FILES: usize = 300;
    let content = |number: usize| -> Vec<u8> {
        let mut random = 0x9e37_79b9_u32.wrapping_mul(u32::try_from(number).unwrap() + 1) | 1;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            u8::try_from(random >> 24).unwrap()
        };
        (0..4000 + number).map(|_| next()).collect()
    };
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    // One round, so that they lie in one segment.
    let mut options = options();
    options.lag = Duration::from_secs(3600);
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &options).unwrap();
    for number in 0..FILES {
        let (_, file) = root(&volume).create(&format!("{number:03}")).unwrap();
        file.write(0, &content(number)).unwrap();
    }
    sync(&volume);
    drop(volume);

    let bucket = store(objects);
    let other = open(&bucket, &hosts.fresh());
    let before = bucket.counters().requests().gets;
    for number in 0..FILES {
        let file = root(&other).lookup(&format!("{number:03}")).unwrap();
        let found = file.open(OpenFlags::READ).unwrap().content().unwrap();
        assert!(found == content(number), "{number}");
    }
    let gets = bucket.counters().requests().gets - before;
    assert!(gets <= 20, "{gets}");
}

/// What is different at which paths.
fn differences(found: &BTreeMap<String, Look>, expected: &BTreeMap<String, Look>) -> Vec<String> {
    let missing = expected.keys().filter(|path| !found.contains_key(*path));
    let differs = |path: &String| {
        let (is, should) = (found.get(path), expected.get(path));
        let (Some(is), Some(should)) = (is, should) else {
            return Some(format!(
                "{path}: is there {}, should be {}",
                is.is_some(),
                should.is_some()
            ));
        };
        let at = is
            .content
            .iter()
            .zip(&should.content)
            .position(|(is, should)| is != should);
        let bytes = |look: &Look| {
            at.and_then(|at| {
                look.content
                    .get(at..look.content.len().min(at + 4))
                    .map(<[u8]>::to_vec)
            })
        };
        (is != should).then(|| {
            format!(
                "{path}: {} / {} at {at:?}: {:?} / {:?}",
                is.attributes,
                should.attributes,
                bytes(is),
                bytes(should)
            )
        })
    };
    found.keys().chain(missing).filter_map(differs).collect()
}

/// Work goes on from host to host: content that is not here is fetched, and changed, and found again.
#[test]
fn a_volume_goes_from_host_to_host() {
    let seed = seed();
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let places = [hosts.fresh(), hosts.fresh(), hosts.fresh()];
    let oracle = oracle();
    for turn in 0..12_u64 {
        let volume = open(&bucket, &places[usize::try_from(turn * 7 % 3).unwrap()]);
        let seed = seed.wrapping_add(turn);
        let mut work = Work::new(root(&volume), seed);
        let mut expected = Work::new(oracle.clone(), seed);
        for _ in 0..150 {
            work.step();
            expected.step();
        }
        drop((work, expected));
        let (found, there) = (look(&root(&volume)), look(&oracle));
        assert!(
            found == there,
            "VFSD_SEED={seed} {turn}: {:?}",
            differences(&found, &there)
        );
    }
}

#[test]
fn a_daemon_that_was_overtaken_writes_nothing_more_and_says_so() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let (here, there) = (hosts.fresh(), hosts.fresh());
    let old = open(&bucket, &here);
    let file = root(&old).put("file", b"before").unwrap();
    sync(&old);
    let new = open(&bucket, &there);
    root(&new).put("theirs", b"theirs").unwrap();
    let handle = file.open_both().unwrap();
    // It does not know yet.
    let _ = handle.write(0, b"after!");
    assert_eq!(handle.fsync().unwrap_err(), Errno::STALE);
    assert_eq!(handle.fsync().unwrap_err(), Errno::STALE, "again");
    assert!(old.watch_lag().look().unwrap().fenced);
    assert_eq!(
        root(&old).put("more", b"x").map(drop).unwrap_err(),
        Errno::ROFS
    );
    assert_eq!(handle.content().unwrap(), b"after!", "what is here is read");
    sync(&new);
    drop((handle, file, old));
    assert_eq!(
        root(&new).lookup("file").unwrap().content().unwrap(),
        b"before"
    );
    drop(new);
    // What could not be written is set aside where it was.
    let again = open(&bucket, &here);
    assert_eq!(
        root(&again).lookup("theirs").unwrap().content().unwrap(),
        b"theirs"
    );
    assert_eq!(
        root(&again).lookup("file").unwrap().content().unwrap(),
        b"before"
    );
    assert!(here.join("aside-1/data").exists());
}

/// A second host begins with the checkpoint, and what the cache let go of is read again.
#[test]
fn checkpoints_shorten_the_way_and_the_cache_keeps_its_limit() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    let content = |number: u32| vec![u8::try_from(number).unwrap(); 60_000];
    let volume = open(&bucket, &here);
    for number in 0..20 {
        root(&volume)
            .put(&format!("file{number}"), &content(number))
            .unwrap();
        sync(&volume);
    }
    let allocated = || -> u64 {
        use std::os::unix::fs::MetadataExt;
        let data = here.join("data/00");
        let files = std::fs::read_dir(data).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().blocks() * 512)
            .sum()
    };
    assert!(allocated() <= 260_000, "{}", allocated());
    let read = |root: &vfsd_testkit::place::Place| {
        for number in 0..20 {
            let file = root.lookup(&format!("file{number}")).unwrap();
            assert!(file.content().unwrap() == content(number), "{number}");
            assert_eq!(file.attributes().unwrap().blocks, 120);
        }
    };
    read(&root(&volume));
    volume.close().unwrap();
    drop(volume);
    let status = vfsd_testkit::block_on(vfsd_volume::Volume::stat_remote(
        &bucket,
        crate::bench::PREFIX,
    ))
    .unwrap();
    assert!(
        status.stored.checkpoints.objects > 0 && status.owner.is_none(),
        "{status:?}"
    );
    assert!(status.stored.log.objects < 20, "{status:?}");
    read(&root(&open(&bucket, &hosts.fresh())));
    check(&bucket, &hosts.fresh());
}

#[test]
fn a_volume_in_use_elsewhere_is_refused_unless_it_is_taken_over() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let (here, there) = (hosts.fresh(), hosts.fresh());
    let volume = open(&bucket, &here);
    let options = vfsd_volume::RemoteOptions {
        takeover: false,
        ..crate::bench::options()
    };
    let refused = vfsd_volume::Volume::open_remote(&bucket, crate::bench::PREFIX, &there, &options);
    let told = refused.unwrap_err().to_string();
    assert!(
        told.contains("--takeover") && !told.contains('\n'),
        "{told}"
    );
    // The same directory twice.
    assert!(try_open(&bucket, &here).is_err());
    drop(volume);
    vfsd_volume::Volume::open_remote(&bucket, crate::bench::PREFIX, &there, &options).unwrap();
}

/// What is not in the data file after a kill is as the bucket has it, also in a file that was written to.
#[test]
fn after_a_kill_what_is_not_here_stays_as_it_is_in_the_bucket() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let mut content: Vec<u8> = (0..1_000_001_u32)
        .map(|at| u8::try_from(at % 251 + 1).unwrap())
        .collect();
    root(&open(&bucket, &hosts.fresh()))
        .put("file", &content)
        .unwrap();
    let here = hosts.fresh();
    let options = vfsd_volume::RemoteOptions {
        lag: std::time::Duration::from_secs(3600),
        cache_size: None,
        ..crate::bench::options()
    };
    let volume =
        vfsd_volume::Volume::open_remote(&bucket, crate::bench::PREFIX, &here, &options).unwrap();
    let handle = root(&volume).lookup("file").unwrap().open_both().unwrap();
    handle.write_all(300_000, b"changed").unwrap();
    content[300_000..300_007].copy_from_slice(b"changed");
    // As a kill leaves it.
    let killed = hosts.fresh();
    let copied = std::process::Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([&here, &killed])
        .status();
    assert!(copied.unwrap().success());
    let fork = store(Arc::new(objects.fork()));
    let again = open(&fork, &killed);
    assert!(root(&again).lookup("file").unwrap().content().unwrap() == content);
    sync(&again);
    drop(again);
    assert!(
        root(&open(&fork, &hosts.fresh()))
            .lookup("file")
            .unwrap()
            .content()
            .unwrap()
            == content
    );
}
