//! Buckets that have been put back to an earlier state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{Hosts, PREFIX, check, make_volume, open, options, root, store, sync, try_open};

/// Writes a file on a host, in a log object of its own at least.
fn write(objects: &Arc<InMemory>, host: &Path, name: &str) {
    let volume = open(&store(objects.clone()), host);
    root(&volume).put(name, name.as_bytes()).unwrap();
    sync(&volume);
}

/// What a volume has on a host.
fn names(objects: &Arc<InMemory>, host: &Path) -> Vec<String> {
    let volume = open(&store(objects.clone()), host);
    let place = root(&volume);
    let there = |name: &&str| place.has(name);
    let known = ["one", "two", "three", "other"];
    known
        .iter()
        .filter(|name| there(name))
        .map(|name| (*name).to_owned())
        .collect()
}

fn fork(objects: &Arc<InMemory>) -> Arc<InMemory> {
    Arc::new(objects.fork())
}

fn all(objects: &Arc<InMemory>) -> BTreeMap<String, Bytes> {
    vfsd_testkit::block_on(async {
        let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
        let mut all = BTreeMap::new();
        for object in listed {
            let got = objects.get(&object.location).await.unwrap();
            all.insert(object.location.to_string(), got.bytes().await.unwrap());
        }
        all
    })
}

/// The volume is refused in one line that says what to do, and nothing is written to the bucket.
fn assert_refused(objects: &Arc<InMemory>, host: &Path) {
    let before = all(objects);
    let told = try_open(&store(objects.clone()), host)
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("earlier state") && told.contains(&format!("move {} away", host.display())),
        "{told}"
    );
    assert!(!told.contains('\n'), "{told}");
    assert!(all(objects) == before);
}

#[test]
fn a_bucket_that_was_put_back_is_refused_where_more_was_seen_and_left_as_it_is() {
    let objects = Arc::new(InMemory::new());
    make_volume(&store(objects.clone()));
    let mut hosts = Hosts::new();
    let (here, there) = (hosts.fresh(), hosts.fresh());
    write(&objects, &here, "one");
    let earlier = fork(&objects);
    write(&objects, &here, "two");

    assert_refused(&earlier, &here);
    assert_refused(&earlier, &here);
    assert_eq!(
        names(&objects, &here),
        ["one", "two"],
        "the newer one is served still"
    );
    // Who has seen nothing of the volume cannot know.
    assert_eq!(names(&earlier, &there), ["one"]);

    // The operator wants it so.
    std::fs::rename(&here, hosts.fresh()).unwrap();
    assert_eq!(names(&earlier, &here), ["one"]);
}

#[test]
fn a_bucket_that_went_another_way_is_refused() {
    let objects = Arc::new(InMemory::new());
    make_volume(&store(objects.clone()));
    let mut hosts = Hosts::new();
    let (here, there) = (hosts.fresh(), hosts.fresh());
    write(&objects, &here, "one");
    let other = fork(&objects);
    write(&objects, &here, "two");
    // Further than the chain that was seen, and of later epochs.
    let still = RemoteOptions {
        checkpoint_after: u64::MAX,
        ..options()
    };
    for name in ["other", "more", "and more"] {
        let bucket = store(other.clone());
        let volume = Volume::open_remote(&bucket, PREFIX, &there, &still).unwrap();
        root(&volume).put(name, b"other").unwrap();
        sync(&volume);
    }
    assert_refused(&other, &here);
}

#[test]
fn a_log_whose_end_was_cut_off_is_refused() {
    let objects = Arc::new(InMemory::new());
    make_volume(&store(objects.clone()));
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    write(&objects, &here, "one");
    let last = all(&objects).into_keys().rfind(|key| key.contains("/log/"));
    let last = object_store::path::Path::from(last.unwrap());
    vfsd_testkit::block_on(objects.delete(&last)).unwrap();
    assert_refused(&objects, &here);
}

/// Another host wrote more, and removed the log that was seen here.
#[test]
fn what_other_hosts_did_since_is_not_taken_for_an_earlier_state() {
    let objects = Arc::new(InMemory::new());
    make_volume(&store(objects.clone()));
    let mut hosts = Hosts::new();
    let (here, there) = (hosts.fresh(), hosts.fresh());
    write(&objects, &here, "one");
    let seen = all(&objects);
    write(&objects, &there, "two");
    assert_eq!(names(&objects, &here), ["one", "two"]);

    write(&objects, &there, "three");
    let bucket = store(objects.clone());
    let scratch = hosts.fresh();
    std::fs::create_dir(&scratch).unwrap();
    let runtime = vfsd_testkit::runtime().handle();
    Volume::clean_remote(&bucket, PREFIX, &scratch, Duration::ZERO, false, runtime).unwrap();
    let now = all(&objects);
    let log = |key: &&String| key.contains("/log/");
    assert!(seen.keys().filter(log).all(|key| !now.contains_key(key)));
    assert_eq!(names(&objects, &here), ["one", "two", "three"]);
    check(&bucket, &hosts.fresh());
}

/// The way back that is offered: a snapshot becomes a volume elsewhere.
#[test]
fn a_snapshot_is_restored_as_another_volume_on_the_same_host() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let (here, restored) = (hosts.fresh(), hosts.fresh());
    let runtime = vfsd_testkit::runtime().handle();
    let scratch = |hosts: &mut Hosts| {
        let scratch = hosts.fresh();
        std::fs::create_dir(&scratch).unwrap();
        scratch
    };
    write(&objects, &here, "one");
    Volume::snapshot_remote(&bucket, PREFIX, "kept", &scratch(&mut hosts), runtime).unwrap();
    write(&objects, &here, "two");
    let (from, to) = ((&bucket, PREFIX), (&bucket, "restored"));
    Volume::copy_remote(from, Some("kept"), to, &scratch(&mut hosts), runtime).unwrap();
    for name in ["three", "four"] {
        let volume = Volume::open_remote(&bucket, "restored", &restored, &options()).unwrap();
        assert!(root(&volume).has("one") && !root(&volume).has("two"));
        root(&volume).put(name, b"new").unwrap();
    }
    assert_eq!(names(&objects, &here), ["one", "two"]);
}

#[test]
fn what_was_seen_of_a_volume_is_known_after_another_one_was_in_its_place() {
    let objects = Arc::new(InMemory::new());
    make_volume(&store(objects.clone()));
    let another = Arc::new(InMemory::new());
    make_volume(&store(another.clone()));
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    write(&objects, &here, "one");
    let earlier = fork(&objects);
    write(&objects, &here, "two");
    write(&another, &here, "other");
    assert_refused(&earlier, &here);
    assert_eq!(names(&another, &here), ["other"]);
    assert_eq!(names(&objects, &here), ["one", "two"]);
    assert_refused(&earlier, &here);
}
