//! A volume whose directories leave memory early, and what is found after it is opened again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use vfsd_backend::{Backend, OpenFlags, SetTime, Timestamp};
use vfsd_memory::{Memory, Settings};
use vfsd_testkit::conformance::{Features, Fixture};
use vfsd_testkit::model;
use vfsd_testkit::place::{Place, read_some};

use crate::failpoint::with_hook;
use crate::inode::Inode;
use crate::meta::{Change, Purpose};
use crate::{Process, Volume, VolumeError, VolumeOptions};

struct Scratch {
    _dir: TempDir,
    path: PathBuf,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("volume");
    Volume::create(&path, &VolumeOptions::default()).unwrap();
    Scratch { _dir: dir, path }
}

fn open(path: &Path) -> Volume {
    Volume::open(path, &VolumeOptions::default()).unwrap()
}

fn check(path: &Path) {
    let report = Volume::check(path).unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
}

#[test]
fn directories_that_are_not_in_memory_do_the_same() {
    let volume = || {
        let scratch = scratch();
        let volume = open(&scratch.path);
        Fixture::new(Arc::new(volume), Features::empty()).holding(scratch)
    };
    let memory = || {
        let memory = Memory::new(Settings::default()).unwrap();
        Fixture::new(Arc::new(memory), Features::all())
    };
    model::run(800, memory, volume);
}

/// Whoever settles files in the background does so between a write and the note of its size.
#[test]
fn what_is_written_to_a_set_id_file_while_its_row_is_written_has_its_size() {
    let scratch = scratch();
    let written: Arc<OnceLock<Arc<Inode>>> = Arc::default();
    let hook = {
        let written = Arc::clone(&written);
        move |place: &'static str| {
            if let Some(inode) = written.get().filter(|_| place == "written") {
                inode.settle().unwrap();
            }
        }
    };
    let volume = with_hook(Arc::new(hook), || open(&scratch.path));
    let root = Place(volume.root());
    let file = root.put("file", b"").unwrap();
    file.chmod(0o6755).unwrap();
    let ino = file.attributes().unwrap().inode;
    let inode = volume.core().inode_in_memory(ino).unwrap();
    written.set(Arc::clone(&inode)).unwrap_or_else(|_| panic!());
    let handle = file.open(OpenFlags::WRITE).unwrap();
    handle.write_with(0, b"content", false).unwrap();
    inode.settle().unwrap();
    let row = volume.core().meta.node(ino).unwrap().unwrap();
    assert_eq!((row.size, row.permissions), (7, 0o6755));
}

#[test]
fn a_listing_of_a_large_directory_goes_on_where_it_was() {
    let scratch = scratch();
    let volume = open(&scratch.path);
    let root = Place(volume.root());
    let dir = root.mkdir("dir").unwrap();
    for number in 0..50 {
        dir.put(&format!("file{number}"), b"").unwrap();
    }
    let open_directory = dir.opendir().unwrap();
    let mut seen = Vec::new();
    let mut cookie = 0;
    for round in 0.. {
        let some = read_some(&*open_directory, cookie, 3).unwrap();
        let Some(last) = some.last() else { break };
        cookie = last.next;
        seen.extend(some.iter().map(|listed| listed.name.clone()));
        // What comes and goes meanwhile moves no other entry.
        dir.put(&format!("new{round}"), b"").unwrap();
        dir.unlink(&format!("new{round}")).unwrap();
    }
    let names: BTreeSet<_> = seen
        .iter()
        .filter(|name| name.starts_with(b"file"))
        .collect();
    assert_eq!(names.len(), 50);
    let files = seen.iter().filter(|name| name.starts_with(b"file")).count();
    assert_eq!(files, 50, "none twice");
    for number in 0..50 {
        dir.unlink(&format!("file{number}")).unwrap();
    }
    root.rmdir("dir").unwrap();
}

#[test]
fn everything_is_there_after_the_volume_is_opened_again() {
    let scratch = scratch();
    let long_ago = Timestamp::new(-77, 123_456_789).unwrap();
    {
        let root = Place(open(&scratch.path).root());
        let dir = root.mkdir("dir").unwrap();
        let (file, handle) = dir.create("file").unwrap();
        handle.write_all(70_000, b"content").unwrap();
        file.setxattr("user.name", b"value").unwrap();
        file.chmod(0o4750).unwrap();
        root.link(&file, "other name").unwrap();
        root.symlink("link", "dir/file").unwrap();
        drop(handle);
        let times = vfsd_backend::AttributeChanges {
            modified: Some(SetTime::At(long_ago)),
            ..Default::default()
        };
        file.set(times).unwrap();
    }
    let root = Place(open(&scratch.path).root());
    let file = root.lookup("dir").unwrap().lookup("file").unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!(attributes.size, 70_007);
    assert_eq!((attributes.permissions, attributes.links), (0o4750, 2));
    assert_eq!(attributes.modified, long_ago);
    assert!(attributes.blocks > 0 && attributes.blocks < 70_000 / 512);
    assert_eq!(&file.content().unwrap()[70_000..], b"content");
    assert_eq!(file.getxattr("user.name").unwrap(), b"value");
    let other = root.lookup("other name").unwrap();
    assert_eq!(other.identity(), file.identity());
    assert_eq!(
        root.lookup("link").unwrap().readlink().unwrap(),
        b"dir/file"
    );
    drop((root, file, other));
    check(&scratch.path);
}

#[test]
fn an_inode_in_memory_is_small() {
    let bytes = size_of::<crate::inode::Inode>();
    assert!(bytes <= 512, "{bytes}");
}

#[test]
fn inode_numbers_are_not_used_again() {
    let scratch = scratch();
    let number = |name: &str| {
        let root = Place(open(&scratch.path).root());
        let file = root.put(name, b"x").unwrap();
        let inode = file.attributes().unwrap().inode;
        root.unlink(name).unwrap();
        inode
    };
    let first = number("one");
    assert!(number("two") > first);
    check(&scratch.path);
}

#[test]
fn a_file_without_a_name_goes_with_its_last_user_and_takes_its_data_along() {
    let scratch = scratch();
    {
        let volume = open(&scratch.path);
        let root = Place(volume.root());
        let (file, handle) = root.create("file").unwrap();
        handle.write_all(0, b"content").unwrap();
        root.unlink("file").unwrap();
        drop(file);
        assert_eq!(handle.content().unwrap(), b"content");
        let (nameless, other) = root.tmpfile(OpenFlags::empty()).unwrap();
        other.write_all(0, b"more").unwrap();
        root.link(&nameless, "named").unwrap();
    }
    let status = Volume::stat(&scratch.path).unwrap();
    assert_eq!((status.inodes, status.bytes), (2, 4));
    check(&scratch.path);
}

/// The state of a power cut at its worst: nothing is on the disk but what was synced. The tables are as of the
/// last checkpoint, the journal ends where it was synced, and only the data file that was synced is there.
#[test]
fn after_a_power_cut_what_was_synced_is_there() {
    let scratch = scratch();
    let copy = scratch.path.with_file_name("copy");
    {
        let root = Place(open(&scratch.path).root());
        let dir = root.mkdir("dir").unwrap();
        let (file, handle) = dir.create("file").unwrap();
        handle.write_all(0, b"synced").unwrap();
        let lost = dir.put("unsynced", b"abc").unwrap();
        handle.fsync().unwrap();
        for folder in ["", "journal", "data"] {
            std::fs::create_dir(copy.join(folder)).unwrap();
        }
        for shelf in 0..=255 {
            std::fs::create_dir(copy.join(format!("data/{shelf:02x}"))).unwrap();
        }
        let take = |name: &str| {
            std::fs::copy(scratch.path.join(name), copy.join(name)).unwrap();
        };
        take("volume.json");
        take("meta.sqlite");
        for entry in std::fs::read_dir(scratch.path.join("journal")).unwrap() {
            let name = entry.unwrap().file_name();
            take(&format!("journal/{}", name.to_str().unwrap()));
        }
        let ino = file.attributes().unwrap().inode;
        take(&format!("data/{:02x}/{ino:016x}", (ino >> 10) & 0xff));
        drop(lost);
    }
    let root = Place(open(&copy).root());
    let dir = root.lookup("dir").unwrap();
    assert_eq!(dir.lookup("file").unwrap().content().unwrap(), b"synced");
    // Its row is older than the sync; of its data nothing was promised.
    assert!(dir.has("unsynced"));
}

#[test]
fn what_replaces_a_file_is_on_the_disk_before_its_name_is() {
    let scratch = scratch();
    let volume = open(&scratch.path);
    let root = Place(volume.root());
    let (other, handle) = root.create("other").unwrap();
    handle.write_all(0, b"x").unwrap();
    root.put("file", b"old").unwrap();
    let new = root.put("file.new", b"new").unwrap();
    root.rename("file.new", &root, "file").unwrap();
    let ino = new.attributes().unwrap().inode;
    let inode = volume.core().inode(ino).unwrap();
    assert!(inode.has_unsynced_data());
    handle.fsync().unwrap();
    assert!(!inode.has_unsynced_data(), "before the rename's record");
    let _ = other;
}

#[test]
fn what_lost_its_last_name_and_left_memory_is_not_found_again_before_it_is_removed() {
    let scratch = scratch();
    let volume = open(&scratch.path);
    let core = volume.core();
    let file = Place(volume.root()).put("file", b"content").unwrap();
    let ino = file.attributes().unwrap().inode;
    drop(file);
    // As its last unlink leaves it, until the upkeep comes to it.
    let mut row = core.meta.node(ino).unwrap().unwrap();
    row.links = 0;
    core.meta
        .commit(vec![Change::Node(ino, Some(row))], Purpose::Freeing)
        .unwrap();
    let found = core.inode(ino).map(|inode| inode.ino);
    assert!(
        matches!(
            found,
            Err(vfsd_backend::Error::Errno(vfsd_backend::Errno::NOENT))
        ),
        "{found:?}"
    );
}

#[test]
fn a_volume_is_opened_by_one_at_a_time_and_made_in_an_empty_directory() {
    let scratch = scratch();
    let volume = open(&scratch.path);
    let options = VolumeOptions::default();
    let me = Process(std::process::id());
    match Volume::open(&scratch.path, &options) {
        Err(VolumeError::Locked { user, .. }) => assert_eq!(user, me),
        other => panic!("{other:?}"),
    }
    assert_eq!(Volume::stat(&scratch.path).unwrap().used_by, Some(me));
    let root = Place(volume.root());
    drop(volume);
    assert!(
        Volume::open(&scratch.path, &options).is_err(),
        "a node is there"
    );
    drop(root);
    assert_eq!(Volume::stat(&scratch.path).unwrap().used_by, None);
    let refused = Volume::create(&scratch.path, &options).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    let missing = Volume::open(Path::new("/var/tmp/no volume here"), &options).unwrap_err();
    assert!(
        missing.to_string().contains("vfsd volume create"),
        "{missing}"
    );
    let header = scratch.path.join("volume.json");
    let text = std::fs::read_to_string(&header).unwrap();
    std::fs::write(&header, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
    let newer = Volume::open(&scratch.path, &options).unwrap_err();
    assert!(
        matches!(newer, VolumeError::Newer { found: 9, .. }),
        "{newer}"
    );
    assert!(!newer.to_string().contains('\n'));
}

type Damage = fn(&crate::meta::Meta) -> Vec<Change>;

/// Each kind of damage is found, and told.
#[test]
fn a_check_finds_what_does_not_fit_together() {
    let damages: [(&str, Damage); 6] = [
        ("names inode", |_| vec![Change::Node(2, None)]),
        ("has 0 names", |_| {
            vec![Change::Entry(1, b"file"[..].into(), None)]
        }),
        ("counts 9", |meta| {
            let mut row = meta.node(2).unwrap().unwrap();
            row.links = 9;
            vec![Change::Node(2, Some(row))]
        }),
        ("its data file has", |meta| {
            let mut row = meta.node(2).unwrap().unwrap();
            row.size = 1;
            vec![Change::Node(2, Some(row))]
        }),
        ("is not there", |meta| {
            let mut row = meta.node(1).unwrap().unwrap();
            row.has_data = true;
            vec![Change::Node(1, Some(row))]
        }),
        ("extended attributes of inode 5", |_| {
            vec![Change::Xattr(
                5,
                b"user.a"[..].into(),
                Some(b"x"[..].into()),
            )]
        }),
    ];
    for (told, damage) in damages {
        let scratch = scratch();
        {
            let volume = open(&scratch.path);
            Place(volume.root()).put("file", b"content").unwrap();
        }
        check(&scratch.path);
        {
            let volume = open(&scratch.path);
            let meta = &volume.core().meta;
            meta.commit(damage(meta), Purpose::Usual).unwrap();
        }
        let problems = Volume::check(&scratch.path).unwrap().problems;
        assert!(
            problems.iter().any(|problem| problem.contains(told)),
            "{told}: {problems:?}"
        );
    }
}
