//! What a volume does while its bucket fails.

use std::sync::Arc;

use object_store::memory::InMemory;
use vfsd_backend::Errno;
use vfsd_object_store::store::{Fault, FaultStore, Faults};

use crate::bench::{Hosts, impatient_store, make_volume, open, oracle, root, seed, store, sync};
use crate::work::{Work, look};

#[test]
fn in_an_outage_fsync_fails_nothing_is_lost_and_it_heals() {
    let objects = Arc::new(InMemory::new());
    let faulty = Arc::new(FaultStore::new(objects.clone(), Faults::default()));
    make_volume(&store(objects.clone()));
    let bucket = impatient_store(faulty.clone());
    let mut hosts = Hosts::new();
    let volume = open(&bucket, &hosts.fresh());
    let (file, handle) = root(&volume).create("file").unwrap();
    handle.write_all(0, b"one").unwrap();
    handle.fsync().unwrap();
    faulty.outage(true);
    handle.write_all(0, b"two").unwrap();
    assert_eq!(handle.fsync().unwrap_err(), Errno::IO);
    assert_eq!(
        handle.fsync().unwrap_err(),
        Errno::IO,
        "as long as it lasts"
    );
    handle.write_all(10, &[3; 300_000]).unwrap();
    root(&volume).put("other", b"other").unwrap();
    assert_eq!(
        handle.content().unwrap()[..3],
        *b"two",
        "what is here is read"
    );
    faulty.outage(false);
    // Whether an attempt fails that was on its way.
    let synced = (0..50).any(|_| handle.fsync().is_ok());
    assert!(synced, "it heals");
    let fork = store(Arc::new(objects.fork()));
    let other = open(&fork, &hosts.fresh());
    assert!(look(&root(&other)) == look(&root(&volume)));
    drop(file);
}

/// Lost replies, refusals and broken bodies: whatever fsync said is in the bucket is there.
#[test]
fn with_faults_at_random_no_sync_lies() {
    let seed = seed();
    let objects = Arc::new(InMemory::new());
    let plain = store(objects.clone());
    make_volume(&plain);
    let per_mille = vec![
        (Fault::LostReply, 60),
        (Fault::Unavailable, 60),
        (Fault::Conflict, 30),
        (Fault::ShortBody, 30),
        (Fault::BrokenBody, 30),
    ];
    let faulty = Arc::new(FaultStore::new(objects.clone(), Faults { per_mille, seed }));
    let bucket = store(faulty.clone());
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    let volume = (0..20)
        .find_map(|_| crate::bench::try_open(&bucket, &here).ok())
        .unwrap();
    let mut work = Work::new(root(&volume), seed);
    let oracle = oracle();
    let mut expected = Work::new(oracle.clone(), seed);
    for round in 0..12 {
        for _ in 0..50 {
            work.step();
            expected.step();
        }
        let synced = (0..50).any(|_| {
            vfsd_testkit::place::wait(vfsd_backend::Backend::root(&volume).syncfs()).is_ok()
        });
        assert!(synced, "VFSD_SEED={seed}");
        let fork = store(Arc::new(objects.fork()));
        let other = open(&fork, &hosts.fresh());
        assert!(
            look(&root(&other)) == look(&oracle),
            "VFSD_SEED={seed}, round {round}"
        );
    }
    assert!(faulty.met() > 0);
    sync_quietly(&volume);
}

fn sync_quietly(volume: &vfsd_volume::Volume) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sync(volume))).is_err() {
        // A fault at the end: the close tries again.
    }
}
