//! Snapshots that are open: read by many, while the volume goes on.

use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use vfsd_backend::{Backend, Capabilities, Errno};
use vfsd_object_store::Store;
use vfsd_testkit::place::wait;
use vfsd_volume::{Lock, RemoteOptions, Volume, VolumeError};

use crate::bench::{Hosts, PREFIX, make_volume, options, root, store, sync};
use crate::care::{change_until_below, noise, open_tidy, snapshot};

fn open_at_boot(
    bucket: &Store,
    name: &str,
    host: &Path,
    boot: &str,
) -> Result<Volume, VolumeError> {
    std::fs::create_dir_all(host).unwrap();
    let options = RemoteOptions {
        boot: Some(boot.to_owned()),
        cache_size: None,
        ..options()
    };
    let lock = Lock::of(host)?;
    Volume::open_snapshot(bucket, PREFIX, name, (host, lock), &options)
}

fn open_snapshot(bucket: &Store, name: &str, host: &Path) -> Result<Volume, VolumeError> {
    open_at_boot(bucket, name, host, "first")
}

fn content(volume: &Volume, name: &str) -> Vec<u8> {
    root(volume).lookup(name).unwrap().content().unwrap()
}

#[test]
fn a_snapshot_is_read_while_the_volume_is_written_to_and_cleaned_up() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    let (large, small) = (noise(1, 300_000), noise(2, 5_000));
    let file = root(&volume).put("large", &large).unwrap();
    root(&volume).put("small", &small).unwrap();
    // One that is open and has no name any more is in the rows, too.
    let nameless = root(&volume).put("nameless", b"n").unwrap();
    let nameless = nameless.open_both().unwrap();
    root(&volume).unlink("nameless").unwrap();
    sync(&volume);
    snapshot(&bucket, "before", &mut hosts).unwrap();

    let early = open_snapshot(&bucket, "before", &hosts.fresh()).unwrap();
    let handle = file.open_both().unwrap();
    for seed in 3..33 {
        handle.write_all(0, &noise(seed, 300_000)).unwrap();
        sync(&volume);
    }
    root(&volume).unlink("small").unwrap();
    change_until_below(&volume, &objects, 2_000_000);
    let late = open_snapshot(&bucket, "before", &hosts.fresh()).unwrap();
    for open in [&early, &late] {
        assert!(content(open, "large") == large && content(open, "small") == small);
        assert!(!root(open).has("small0") && !root(open).has("nameless"));
        assert!(open.capabilities().contains(Capabilities::IMMUTABLE));
    }
    drop(nameless);
    // Nobody took the volume from who has it.
    root(&volume).put("after", b"a").unwrap();
    sync(&volume);
    let unknown = open_snapshot(&bucket, "after", &hosts.fresh()).unwrap_err();
    assert!(unknown.to_string().contains("snapshot list"), "{unknown}");
}

#[test]
fn nothing_of_a_snapshot_can_be_changed() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    root(&volume).put("file", &[1; 10_000]).unwrap();
    root(&volume).mkdir("folder").unwrap();
    sync(&volume);
    snapshot(&bucket, "s", &mut hosts).unwrap();
    drop(volume);

    let open = open_snapshot(&bucket, "s", &hosts.fresh()).unwrap();
    let file = root(&open).lookup("file").unwrap();
    let before = file.attributes().unwrap();
    let refused = |errno: Errno| assert_eq!(errno, Errno::ROFS);
    refused(root(&open).put("new", b"").map(drop).unwrap_err());
    refused(root(&open).mkdir("new").map(drop).unwrap_err());
    refused(root(&open).unlink("file").unwrap_err());
    refused(file.truncate(5).unwrap_err());
    if let Ok(handle) = file.open_both() {
        refused(handle.write_all(0, &[2; 10]).unwrap_err());
    }
    assert!(file.content().unwrap() == [1; 10_000]);
    sync(&open);
    assert_eq!(file.attributes().unwrap(), before, "reads leave no trace");
    drop(file);
    open.close().unwrap();
}

/// All objects but those that say which snapshots there are.
fn forget_content(objects: &InMemory) {
    let listed = objects.list(None).try_collect::<Vec<_>>();
    for object in vfsd_testkit::block_on(listed).unwrap() {
        let key = object.location.as_ref();
        if ["/seg/", "/log/", "/ckpt/"]
            .iter()
            .any(|kind| key.contains(kind))
        {
            vfsd_testkit::block_on(objects.delete(&object.location)).unwrap();
        }
    }
}

#[test]
fn what_was_read_of_a_snapshot_is_here_the_next_time() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    let expected = noise(1, 300_000);
    root(&volume).put("file", &expected).unwrap();
    sync(&volume);
    snapshot(&bucket, "s", &mut hosts).unwrap();
    drop(volume);

    let here = hosts.fresh();
    let open = open_snapshot(&bucket, "s", &here).unwrap();
    assert!(content(&open, "file") == expected);
    let busy = open_snapshot(&bucket, "s", &here).unwrap_err();
    assert!(matches!(busy, VolumeError::Locked { .. }), "{busy}");
    drop(open);
    let whole = store(Arc::new(objects.fork()));
    forget_content(&objects);
    assert!(open_snapshot(&bucket, "s", &hosts.fresh()).is_err());
    // Also after a kill, and after the host was started anew.
    for (boot, clean) in [("first", true), ("first", false), ("second", true)] {
        let session = format!(r#"{{"boot": "first", "epoch": 0, "clean": {clean}}}"#);
        std::fs::write(here.join("session.json"), session).unwrap();
        let open = open_at_boot(&bucket, "s", &here, boot).unwrap();
        assert!(content(&open, "file") == expected, "{boot} {clean}");
    }
    // A power cut may have torn it.
    let session = r#"{"boot": "first", "epoch": 0, "clean": false}"#;
    std::fs::write(here.join("session.json"), session).unwrap();
    assert!(open_at_boot(&bucket, "s", &here, "third").is_err());
    let open = open_at_boot(&whole, "s", &here, "third").unwrap();
    assert!(content(&open, "file") == expected);
    wait(open.root().syncfs()).unwrap();
}

/// Its directory is not mistaken for that of the one before.
#[test]
fn a_snapshot_that_was_made_anew_under_its_name_is_another() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let (writer, here) = (hosts.fresh(), hosts.fresh());
    for number in 1..4_u8 {
        let volume = open_tidy(&bucket, &writer);
        let _ = root(&volume).unlink("file");
        root(&volume).put("file", &[number; 100]).unwrap();
        sync(&volume);
        drop(volume);
        snapshot(&bucket, "s", &mut hosts).unwrap();
        let open = open_snapshot(&bucket, "s", &here).unwrap();
        assert_eq!(content(&open, "file"), [number; 100]);
        drop(open);
        let deleted = Volume::delete_snapshot_remote(&bucket, PREFIX, "s");
        vfsd_testkit::block_on(deleted).unwrap();
    }
}

#[test]
fn what_was_removed_is_found_in_a_snapshot_that_the_daemon_made_by_itself() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    let auto = || -> Option<String> {
        let listed = Volume::snapshots_remote(&bucket, PREFIX);
        let listed = vfsd_testkit::block_on(listed).unwrap();
        listed
            .into_iter()
            .map(|one| one.name)
            .find(|name| name.starts_with("auto-"))
    };
    root(&volume).put("file", &noise(1, 50_000)).unwrap();
    sync(&volume);
    assert_eq!(auto(), None);
    let set = Volume::change_remote_snapshot_days(&bucket, PREFIX, Some(7));
    vfsd_testkit::block_on(set).unwrap();
    // While it is in use: with the next checkpoint that is found.
    let mut made = None;
    for number in 0..100_000_u32 {
        made = auto();
        if made.is_some() {
            break;
        }
        root(&volume)
            .put(&format!("more{number}"), &noise(2, 3000))
            .unwrap();
        sync(&volume);
    }
    let made = made.unwrap();
    root(&volume).unlink("file").unwrap();
    change_until_below(&volume, &objects, 2_000_000);
    let open = open_snapshot(&bucket, &made, &hosts.fresh()).unwrap();
    assert!(content(&open, "file") == noise(1, 50_000));
    let status = vfsd_testkit::block_on(Volume::stat_remote(&bucket, PREFIX)).unwrap();
    assert_eq!(status.snapshot_days, Some(7));
}
