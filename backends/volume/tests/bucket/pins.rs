//! Snapshots that hold what is copied or dumped: as many at a time as there are readers, and none for ever.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::memory::InMemory;
use vfsd_object_store::Store;
use vfsd_volume::{DumpOptions, Volume};

use crate::bench::{Hosts, PREFIX, make_volume, open, root, store, sync};
use crate::care::{clean, copy, noise, scratch, snapshot};
use crate::local_store::LocalStore;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn names(bucket: &Store) -> Vec<String> {
    let listed = Volume::snapshots_remote(bucket, PREFIX);
    let listed = vfsd_testkit::block_on(listed).unwrap();
    let mut names: Vec<String> = listed.into_iter().map(|one| one.name).collect();
    names.sort();
    names
}

/// Where a dump goes, while which another process copies the volume.
struct Meanwhile<'a> {
    bucket: &'a Store,
    hosts: &'a mut Hosts,
    held: Vec<String>,
}

impl Write for Meanwhile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held.is_empty() {
            self.held = names(self.bucket);
            copy(self.bucket, None, "the/clone", self.hosts).unwrap();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Processes on two hosts may have one number.
#[test]
fn who_copies_or_dumps_a_volume_is_not_in_the_way_of_another() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open(&bucket, &hosts.fresh());
    root(&volume).put("file", &noise(1, 300_000)).unwrap();
    sync(&volume);
    let (mut more, scratch) = (Hosts::new(), scratch(&mut hosts));
    let mut to = Meanwhile {
        bucket: &bucket,
        hosts: &mut more,
        held: Vec::new(),
    };
    let runtime = vfsd_testkit::runtime().handle();
    let (from, options) = ((&bucket, PREFIX), DumpOptions { content: true });
    Volume::dump_remote(from, None, options, &mut to, &scratch, runtime).unwrap();
    assert!(
        to.held.len() == 1 && to.held[0].starts_with("copying-"),
        "{:?}",
        to.held
    );
    assert!(names(&bucket).is_empty(), "they are given up");
}

/// Makes a snapshot what a clone leaves that is killed, last renewed so long ago. One of a former version is not marked.
fn leave(objects: &Path, name: &str, marked: bool, age: Duration) {
    let folder = objects.join(PREFIX).join("snap");
    let lasting = std::fs::read(folder.join("lasting.json")).unwrap();
    let mut left: serde_json::Value = serde_json::from_slice(&lasting).unwrap();
    left["name"] = name.into();
    if marked {
        left["temporary"] = true.into();
    }
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, left.to_string()).unwrap();
    set_age(&path, age);
}

fn set_age(path: &Path, age: Duration) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn what_a_killed_clone_held_is_given_up_a_day_later_by_the_next_one_or_a_clean_up() {
    let mut hosts = Hosts::new();
    let objects = hosts.fresh();
    let bucket = store(Arc::new(LocalStore::new(&objects)));
    make_volume(&bucket);
    let volume = open(&bucket, &hosts.fresh());
    root(&volume).put("file", &noise(1, 300_000)).unwrap();
    sync(&volume);
    drop(volume);
    snapshot(&bucket, "lasting", &mut hosts).unwrap();
    let left = || {
        leave(&objects, "copying-old", true, DAY);
        leave(&objects, "copying-young", true, DAY / 2);
        leave(&objects, "copying-4711", false, DAY);
        leave(&objects, "copying-4712", false, DAY / 2);
        leave(&objects, "copying-of-mine", false, 30 * DAY);
        set_age(&objects.join(PREFIX).join("snap/lasting.json"), 30 * DAY);
        assert_eq!(names(&bucket).len(), 6);
    };
    let stay = [
        "copying-4712",
        "copying-of-mine",
        "copying-young",
        "lasting",
    ];
    left();
    copy(&bucket, None, "the/clone", &mut hosts).unwrap();
    assert_eq!(names(&bucket), stay);
    left();
    let (scratch, runtime) = (scratch(&mut hosts), vfsd_testkit::runtime().handle());
    let clean = |dry| Volume::clean_remote(&bucket, PREFIX, &scratch, DAY, dry, runtime);
    clean(true).unwrap();
    assert_eq!(names(&bucket).len(), 6, "it only tells");
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::create_dir(&scratch).unwrap();
    clean(false).unwrap();
    assert_eq!(names(&bucket), stay);
}

#[test]
fn what_would_be_removed_includes_what_a_snapshot_holds_that_is_given_up_first() {
    let mut hosts = Hosts::new();
    let objects = hosts.fresh();
    let bucket = store(Arc::new(LocalStore::new(&objects)));
    make_volume(&bucket);
    let here = hosts.fresh();
    let volume = open(&bucket, &here);
    root(&volume).put("file", &noise(1, 300_000)).unwrap();
    sync(&volume);
    drop(volume);
    snapshot(&bucket, "lasting", &mut hosts).unwrap();
    leave(&objects, "copying-old", true, DAY);
    let deleted = Volume::delete_snapshot_remote(&bucket, PREFIX, "lasting");
    vfsd_testkit::block_on(deleted).unwrap();
    let volume = open(&bucket, &here);
    root(&volume).unlink("file").unwrap();
    sync(&volume);
    drop(volume);
    let told = clean(&bucket, &hosts.fresh(), true).unwrap();
    assert_eq!(names(&bucket), ["copying-old"], "it only tells");
    let done = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert_eq!((told.segments.objects, done.segments.objects), (1, 1));
    assert!(names(&bucket).is_empty());
}
