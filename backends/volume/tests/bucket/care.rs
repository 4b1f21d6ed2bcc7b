//! What is not needed any more does not stay in the bucket, and what is needed does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use vfsd_object_store::Store;
use vfsd_volume::{Cleaned, RemoteOptions, Snapshot, Volume, VolumeError};

use crate::bench::{Hosts, PREFIX, check, make_volume, open, options, root, store, sync};

/// Everything that is not needed goes, however young it is, after each checkpoint.
fn tidy() -> RemoteOptions {
    RemoteOptions {
        clean_every: Duration::ZERO,
        clean_age: Duration::ZERO,
        ..options()
    }
}

pub(crate) fn open_tidy(store: &Store, host: &Path) -> Volume {
    Volume::open_remote(store, PREFIX, host, &tidy()).unwrap()
}

/// Bytes of all objects.
fn stored(objects: &InMemory) -> u64 {
    let sizes = objects.list(None).map_ok(|object| object.size);
    let sizes: Vec<u64> = vfsd_testkit::block_on(sizes.try_collect()).unwrap();
    sizes.into_iter().sum()
}

/// Bytes that no compression makes fewer.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

/// Goes on with changes until the bucket has less than that. Never, if nobody removes anything.
pub(crate) fn change_until_below(volume: &Volume, objects: &InMemory, limit: u64) {
    for number in 0..100_000_u32 {
        if stored(objects) < limit {
            return;
        }
        let name = format!("small{}", number % 3);
        let _ = root(volume).unlink(&name);
        root(volume).put(&name, &number.to_le_bytes()).unwrap();
        sync(volume);
    }
    panic!("{} bytes stay in the bucket", stored(objects));
}

#[test]
fn a_volume_that_is_rewritten_for_ever_does_not_grow_in_the_bucket() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    let kept = noise(1, 300_000);
    root(&volume).put("kept", &kept).unwrap();
    let file = root(&volume).put("file", b"").unwrap().open_both().unwrap();
    let mut last = Vec::new();
    for seed in 2..62 {
        last = noise(seed, 300_000);
        file.write_all(0, &last).unwrap();
        sync(&volume);
    }
    // 18 MB were written, of which 0.6 are left.
    change_until_below(&volume, &objects, 1_500_000);
    let fork = store(Arc::new(objects.fork()));
    check(&fork, &hosts.fresh());
    let other = open(&fork, &hosts.fresh());
    for (name, content) in [("kept", &kept), ("file", &last)] {
        let found = root(&other).lookup(name).unwrap().content().unwrap();
        assert!(found == *content, "{name}");
    }
}

/// What was done stays in the log.
fn without_checkpoints() -> RemoteOptions {
    RemoteOptions {
        checkpoint_after: u64::MAX,
        ..options()
    }
}

/// A daemon that is killed before any checkpoint leaves its log; the one after makes a checkpoint first.
#[test]
fn many_short_lives_do_not_make_the_log_longer_for_ever() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    let rare = without_checkpoints();
    let volume = Volume::open_remote(&bucket, PREFIX, &here, &rare).unwrap();
    for _ in 0..510 {
        let _ = root(&volume).unlink("file");
        root(&volume).put("file", b"x").unwrap();
        sync(&volume);
    }
    drop(volume);
    let log = || {
        let status = vfsd_testkit::block_on(Volume::stat_remote(&bucket, PREFIX)).unwrap();
        (status.stored.log.objects, status.stored.checkpoints.objects)
    };
    assert!(log().0 > 500 && log().1 == 0, "{:?}", log());
    let volume = Volume::open_remote(&bucket, PREFIX, &here, &rare).unwrap();
    root(&volume).put("another", b"x").unwrap();
    sync(&volume);
    drop(volume);
    assert!(log().0 < 10 && log().1 == 1, "{:?}", log());
}

/// What a clean-up by hand says.
pub(crate) fn clean(bucket: &Store, host: &Path, dry: bool) -> Result<Cleaned, VolumeError> {
    std::fs::create_dir_all(host).unwrap();
    let runtime = vfsd_testkit::runtime().handle();
    Volume::clean_remote(bucket, PREFIX, host, Duration::ZERO, dry, runtime)
}

#[test]
fn a_clean_up_by_hand_removes_what_it_said_and_nothing_that_is_needed() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    let rare = without_checkpoints();
    let volume = Volume::open_remote(&bucket, PREFIX, &here, &rare).unwrap();
    for seed in 1..5 {
        let _ = root(&volume).unlink("file");
        root(&volume).put("file", &noise(seed, 300_000)).unwrap();
        sync(&volume);
    }
    let refused = clean(&bucket, &hosts.fresh(), false)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("--dry-run") && !refused.contains('\n'),
        "{refused}"
    );
    let dry = clean(&bucket, &hosts.fresh(), true).unwrap();
    drop(volume);
    let before = stored(&objects);
    let done = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert_eq!(dry.segments, done.segments);
    assert_eq!((done.segments.objects, done.failed), (3, 0), "{done:?}");
    let after = stored(&objects);
    assert!(
        before - after > 900_000 && after > 300_000,
        "{before} {after}"
    );
    check(&bucket, &hosts.fresh());
    // Also where it was open before: what is here goes on to be used.
    for host in [hosts.fresh(), here.clone()] {
        let volume = open(&bucket, &host);
        assert!(root(&volume).lookup("file").unwrap().content().unwrap() == noise(4, 300_000));
    }
    assert!(!here.join("aside-1").exists());
    let again = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert_eq!(again.segments.objects, 0, "{again:?}");
}

/// An empty directory for what works on the bucket alone.
pub(crate) fn scratch(hosts: &mut Hosts) -> PathBuf {
    let path = hosts.fresh();
    std::fs::create_dir_all(&path).unwrap();
    path
}

pub(crate) fn snapshot(
    bucket: &Store,
    name: &str,
    hosts: &mut Hosts,
) -> Result<Snapshot, VolumeError> {
    let runtime = vfsd_testkit::runtime().handle();
    Volume::snapshot_remote(bucket, PREFIX, name, &scratch(hosts), runtime)
}

pub(crate) fn copy(
    bucket: &Store,
    snapshot: Option<&str>,
    to: &str,
    hosts: &mut Hosts,
) -> Result<(), VolumeError> {
    let runtime = vfsd_testkit::runtime().handle();
    let (from, to) = ((bucket, PREFIX), (bucket, to));
    Volume::copy_remote(from, snapshot, to, &scratch(hosts), runtime).map(drop)
}

pub(crate) fn open_at(bucket: &Store, prefix: &str, host: &Path) -> Volume {
    Volume::open_remote(bucket, prefix, host, &options()).unwrap()
}

/// While a daemon has the volume, and rewrites everything, and removes what is not needed.
#[test]
fn a_snapshot_keeps_what_was_there_until_it_is_deleted() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    let (large, small) = (noise(1, 300_000), noise(2, 5_000));
    let file = root(&volume).put("large", &large).unwrap();
    root(&volume).put("small", &small).unwrap();
    sync(&volume);
    snapshot(&bucket, "before", &mut hosts).unwrap();
    let taken = snapshot(&bucket, "before", &mut hosts)
        .unwrap_err()
        .to_string();
    assert!(taken.contains("'before'"), "{taken}");

    let handle = file.open_both().unwrap();
    for seed in 3..33 {
        handle.write_all(0, &noise(seed, 300_000)).unwrap();
        sync(&volume);
    }
    root(&volume).unlink("small").unwrap();
    change_until_below(&volume, &objects, 2_000_000);
    copy(&bucket, Some("before"), "of/before", &mut hosts).unwrap();
    copy(&bucket, None, "of/now", &mut hosts).unwrap();
    let again = copy(&bucket, Some("before"), "of/before", &mut hosts).unwrap_err();
    assert!(again.to_string().contains("of/before"), "{again}");
    for (prefix, expected) in [("of/before", &large), ("of/now", &noise(32, 300_000))] {
        let copied = open_at(&bucket, prefix, &hosts.fresh());
        let found = root(&copied).lookup("large").unwrap();
        assert!(found.content().unwrap() == *expected, "{prefix}");
        assert_eq!(root(&copied).has("small"), prefix == "of/before");
        // It can be written to, and is found on other hosts.
        root(&copied).put("new", prefix.as_bytes()).unwrap();
        drop((found, copied));
        let copied = open_at(&bucket, prefix, &hosts.fresh());
        let found = root(&copied).lookup("new").unwrap().content().unwrap();
        assert_eq!(found, prefix.as_bytes());
    }
    let before = open_at(&bucket, "of/before", &hosts.fresh());
    assert!(root(&before).lookup("small").unwrap().content().unwrap() == small);
    assert!(!root(&volume).has("new"));

    let names = || -> Vec<String> {
        let listed = Volume::snapshots_remote(&bucket, PREFIX);
        let listed = vfsd_testkit::block_on(listed).unwrap();
        listed.into_iter().map(|snapshot| snapshot.name).collect()
    };
    assert_eq!(names(), ["before"]);
    let delete =
        || vfsd_testkit::block_on(Volume::delete_snapshot_remote(&bucket, PREFIX, "before"));
    delete().unwrap();
    assert!(delete().unwrap_err().to_string().contains("snapshot list"));
    assert!(copy(&bucket, Some("before"), "of/nothing", &mut hosts).is_err());
    drop((handle, file, volume));
    let cleaned = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert!(cleaned.removed().bytes > 300_000, "{cleaned:?}");
    check(&bucket, &hosts.fresh());
}

/// Unless a snapshot needs all of it.
#[test]
fn what_is_left_of_a_sparse_segment_is_moved_and_the_segment_goes() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    // Nothing is shipped but by a sync: which objects there are does not depend on how long anything takes.
    let rare = RemoteOptions {
        lag: Duration::from_secs(3600),
        ..without_checkpoints()
    };
    let volume = Volume::open_remote(&bucket, PREFIX, &here, &rare).unwrap();
    for seed in 0..16 {
        let name = format!("file{seed}");
        root(&volume).put(&name, &noise(seed, 300_000)).unwrap();
    }
    sync(&volume);
    snapshot(&bucket, "all", &mut hosts).unwrap();
    for seed in 2..16 {
        root(&volume).unlink(&format!("file{seed}")).unwrap();
    }
    sync(&volume);
    drop(volume);
    let cleaned = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert!(stored(&objects) > 4_800_000, "{cleaned:?}");
    let delete = Volume::delete_snapshot_remote(&bucket, PREFIX, "all");
    vfsd_testkit::block_on(delete).unwrap();
    let cleaned = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert!(stored(&objects) < 1_000_000, "{cleaned:?}");
    check(&bucket, &hosts.fresh());
    let again = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert_eq!(again.segments.objects, 0, "{again:?}");
    // Also where it was open before, which goes on with what it has.
    for host in [hosts.fresh(), here.clone()] {
        let volume = open(&bucket, &host);
        for seed in 0..2 {
            let file = root(&volume).lookup(&format!("file{seed}")).unwrap();
            assert!(file.content().unwrap() == noise(seed, 300_000));
        }
    }
    assert!(!here.join("aside-1").exists());
}

/// Each sync makes one: they would stay as long as the files do.
#[test]
fn small_files_do_not_keep_log_objects_for_ever() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let rare = without_checkpoints();
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &rare).unwrap();
    for number in 0..50_u32 {
        let name = format!("file{number}");
        root(&volume).put(&name, &number.to_le_bytes()).unwrap();
        sync(&volume);
    }
    drop(volume);
    let log = || {
        let status = vfsd_testkit::block_on(Volume::stat_remote(&bucket, PREFIX)).unwrap();
        status.stored.log.objects + status.stored.old_log.objects
    };
    assert!(log() >= 50);
    clean(&bucket, &hosts.fresh(), false).unwrap();
    assert!(log() < 10, "{}", log());
    check(&bucket, &hosts.fresh());
    let volume = open(&bucket, &hosts.fresh());
    for number in 0..50_u32 {
        let file = root(&volume).lookup(&format!("file{number}")).unwrap();
        assert_eq!(file.content().unwrap(), number.to_le_bytes());
    }
}

/// What was acknowledged by a sync is in a snapshot that is begun afterwards, however long ago the last checkpoint was.
#[test]
fn a_snapshot_of_a_volume_in_use_has_all_that_was_synced() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let rare = without_checkpoints();
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &rare).unwrap();
    for number in 0..4_u32 {
        let name = format!("file{number}");
        root(&volume).put(&name, &number.to_le_bytes()).unwrap();
        sync(&volume);
        snapshot(&bucket, &name, &mut hosts).unwrap();
    }
    for number in 0..4_u32 {
        let (name, prefix) = (format!("file{number}"), format!("copy/{number}"));
        copy(&bucket, Some(&name), &prefix, &mut hosts).unwrap();
        let copied = open_at(&bucket, &prefix, &hosts.fresh());
        let names: Vec<u32> = (0..4)
            .filter(|at| root(&copied).has(&format!("file{at}")))
            .collect();
        assert_eq!(names, (0..=number).collect::<Vec<_>>());
    }
}
