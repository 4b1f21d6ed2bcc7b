//! What fsync promises when the power fails, and when the bucket does not answer.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use vfsd_backend::{Backend, Errno, FallocateMode};
use vfsd_testkit::place::{Handle, wait};

use super::kill::Left;
use super::scene::{SIZE, Scene, content_in};
use crate::Durability;
use crate::meta::journal::Lsn;

const JOURNAL_HEADER: u64 = 16;

/// What is on the disk for sure: nothing of the tables since the start, of the journal what was synced.
fn cut_power(scene: &Scene, start: &Left) -> Left {
    let left = scene.copy.make("power cut");
    for name in ["meta.sqlite", "shipped.sqlite"] {
        for end in ["", "-wal", "-shm"] {
            let name = format!("{name}{end}");
            let _ = std::fs::remove_file(left.host.join(&name));
            if start.host.join(&name).exists() {
                std::fs::copy(start.host.join(&name), left.host.join(&name)).unwrap();
            }
        }
    }
    lose_records(
        &left.host.join("journal"),
        scene.volume.core().meta.synced(),
    );
    left
}

/// Zeros instead of all records after one.
fn lose_records(journal: &Path, synced: Lsn) {
    for file in std::fs::read_dir(journal).unwrap() {
        let path = file.unwrap().path();
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        let mut at = JOURNAL_HEADER;
        let mut frame = [0; 16];
        loop {
            file.seek(SeekFrom::Start(at)).unwrap();
            if file.read_exact(&mut frame).is_err() {
                break;
            }
            let length = u32::from_le_bytes(frame[..4].try_into().unwrap());
            let lsn = u64::from_le_bytes(frame[8..].try_into().unwrap());
            if lsn > synced {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&[0; 16]).unwrap();
            }
            if lsn == 0 {
                break;
            }
            at += 16 + u64::from(length);
        }
    }
}

fn data_file(scene: &Scene, left: &Left, name: &str) -> PathBuf {
    let inode = scene.root().lookup(name).unwrap().attributes().unwrap();
    let number = inode.inode;
    let shelf = (number >> 10) & 0xff;
    left.host.join(format!("data/{shelf:02x}/{number:016x}"))
}

/// Whether the data file of a file that is open has all of its content on the disk.
fn is_synced(scene: &Scene, name: &str) -> bool {
    let number = scene.root().lookup(name).unwrap().attributes().unwrap();
    let inode = scene.volume.core().inode(number.inode).unwrap();
    !inode.has_unsynced_data()
}

#[test]
fn at_local_an_fsync_survives_a_power_cut_and_what_was_not_synced_does_no_harm() {
    let scene = Scene::promising(Durability::Local);
    let start = scene.copy.make("start");
    let root = scene.root();
    root.put("before", &[5; SIZE]).unwrap();
    root.put("file", &[1; SIZE]).unwrap();
    let file = scene.file();
    file.fsync().unwrap();
    assert!(is_synced(&scene, "file"));
    root.put("after", &[6; SIZE]).unwrap();
    let left = cut_power(&scene, &start);
    for name in ["before", "after"] {
        std::fs::remove_file(data_file(&scene, &left, name)).unwrap();
    }
    drop(file);
    let scene = scene.after_power_cut(left);
    assert!(scene.content() == [1; SIZE]);
    assert_eq!(scene.root().names().unwrap(), ["before", "file"]);
    // Its name was made before, its content was not synced.
    let before = scene.root().lookup("before").unwrap().content().unwrap();
    assert!(before.iter().all(|&byte| byte == 0));
    scene.sync();
    assert!(content_in(&scene.elsewhere(&scene.copy.objects)).unwrap() == [1; SIZE]);
}

#[test]
fn at_local_a_power_cut_takes_nothing_that_is_in_the_bucket() {
    let scene = Scene::promising(Durability::Local);
    let start = scene.copy.make("start");
    scene.root().put("file", &[1; SIZE]).unwrap();
    scene.root().put("other", &[2; SIZE]).unwrap();
    let file = scene.file();
    scene.sync();
    let synced = is_synced(&scene, "file");
    // It is marked then, and the mark is on the disk. Of the content nothing is.
    file.write_all(0, &[3; 100]).unwrap();
    let other = scene.root().lookup("other").unwrap().open_both().unwrap();
    other.fsync().unwrap();
    let left = cut_power(&scene, &start);
    let data = data_file(&scene, &left, "file");
    match synced {
        true => std::fs::write(data, [1; SIZE]).unwrap(),
        false => std::fs::write(data, []).unwrap(),
    }
    drop((file, other));
    let scene = scene.after_power_cut(left);
    assert!(scene.content() == [1; SIZE]);
}

#[test]
fn after_a_power_cut_content_that_the_bucket_has_is_fetched_again() {
    for durability in [Durability::Bucket, Durability::Local, Durability::None] {
        let scene = Scene::promising(durability);
        scene.root().put("file", &[1; SIZE]).unwrap();
        scene.sync();
        let left = scene.copy.make("power cut");
        // Zeros that are no hole.
        std::fs::write(data_file(&scene, &left, "file"), [0; SIZE]).unwrap();
        let scene = scene.after_power_cut(left);
        assert!(scene.content() == [1; SIZE], "{durability:?}");
    }
}

#[test]
fn without_a_promise_a_power_cut_leaves_what_the_bucket_has() {
    for durability in [Durability::Bucket, Durability::None] {
        let scene = Scene::promising(durability);
        let start = scene.copy.make("start");
        scene.root().put("file", &[1; SIZE]).unwrap();
        scene.sync();
        scene.file().write_all(0, &[2; 100]).unwrap();
        scene.root().put("later", b"later").unwrap();
        let left = cut_power(&scene, &start);
        std::fs::write(data_file(&scene, &left, "file"), []).unwrap();
        let scene = scene.after_power_cut(left);
        assert!(scene.content() == [1; SIZE], "{durability:?}");
        assert_eq!(scene.root().names().unwrap(), ["file"], "{durability:?}");
    }
}

#[test]
fn without_a_power_cut_a_kill_loses_nothing_whatever_fsync_promises() {
    for durability in [Durability::Bucket, Durability::Local, Durability::None] {
        let scene = Scene::promising(durability);
        scene.root().put("file", &[1; SIZE]).unwrap();
        let scene = scene.killed();
        assert!(scene.content() == [1; SIZE], "{durability:?}");
    }
}

#[test]
fn an_fsync_waits_for_the_bucket_only_where_it_promises_that() {
    for durability in [Durability::Bucket, Durability::Local, Durability::None] {
        let scene = Scene::promising(durability);
        scene.root().put("file", &[1; SIZE]).unwrap();
        let file = scene.file();
        scene.faults.outage(true);
        let synced = file.fsync();
        match durability {
            Durability::Bucket => assert_eq!(synced, Err(Errno::IO)),
            _ => assert_eq!(synced, Ok(()), "{durability:?}"),
        }
        assert_eq!(is_synced(&scene, "file"), durability == Durability::Local);
        // Who asks for it by name waits.
        assert_eq!(wait(scene.volume.root().syncfs()), Err(Errno::IO));
        scene.faults.outage(false);
        assert!((0..50).any(|_| wait(scene.volume.root().syncfs()).is_ok()));
        drop(file);
        let there = content_in(&scene.elsewhere(&scene.copy.objects)).unwrap();
        assert!(there == [1; SIZE], "{durability:?}");
    }
}

#[test]
fn at_local_a_data_file_that_is_made_again_gets_its_name_synced() {
    let scene = Scene::promising(Durability::Local);
    scene.root().put("file", &[1; SIZE]).unwrap();
    scene.sync();
    let write = |scene: &Scene| {
        let file = scene.file();
        file.write_all(0, &[2; 10]).unwrap();
        file.fsync().unwrap();
    };
    // It stays in memory.
    let _held = scene.root().lookup("file").unwrap();
    write(&scene);
    assert!(!scene.reaches("name synced", write), "it has its name");
    scene.sync();
    scene.evict();
    assert!(scene.reaches("name synced", write), "it is another file");
}

/// What a power cut leaves of a file that was synced here and then changed, where the disk has the change of the content
/// and of the journal what somebody waited for. The bucket has ones, the sync promised twos.
fn after_a_change(change: impl FnOnce(&Handle)) -> Vec<u8> {
    let scene = Scene::promising(Durability::Local);
    scene.root().put("file", &[1; SIZE]).unwrap();
    scene.sync();
    let start = scene.copy.make("start");
    let file = scene.file();
    file.write_all(0, &[2; SIZE]).unwrap();
    file.fsync().unwrap();
    change(&file);
    let left = cut_power(&scene, &start);
    drop(file);
    let scene = scene.after_power_cut(left);
    let content = scene.content();
    scene.sync();
    let there = content_in(&scene.elsewhere(&scene.copy.objects)).unwrap();
    assert!(there == content, "the bucket has something else");
    content
}

#[test]
fn at_local_a_file_that_was_cut_off_has_what_was_synced_or_its_new_size() {
    for size in [0_u16, 100, 4096, 9000] {
        let content = after_a_change(|file| {
            file.truncate(size.into()).unwrap();
        });
        let shorter = vec![2; size.into()];
        assert!(content == [2; SIZE] || content == shorter, "{size}");
    }
}

#[test]
fn at_local_a_file_that_was_cut_off_and_grew_has_nothing_that_is_older_than_what_was_synced() {
    for size in [0_u16, 100, 4096, 9000] {
        let content = after_a_change(|file| {
            file.truncate(size.into()).unwrap();
            file.truncate(SIZE as u64).unwrap();
        });
        let (kept, rest) = content.split_at(size.into());
        assert!(kept.iter().all(|&byte| byte == 2), "{size}");
        let [zeros, twos] = [0, 2].map(|value| rest.iter().all(|&byte| byte == value));
        assert!(zeros || twos, "{size}");
    }
}

#[test]
fn at_local_a_hole_has_nothing_that_is_older_than_what_was_synced() {
    for (mode, size) in [
        (FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE, SIZE),
        (FallocateMode::ZERO_RANGE, SIZE),
        (FallocateMode::COLLAPSE_RANGE, SIZE - 8192),
    ] {
        let content = after_a_change(|file| match file.fallocate(mode, 4096, 8192) {
            // Not every file system knows it.
            Err(Errno::OPNOTSUPP) if !mode.contains(FallocateMode::PUNCH_HOLE) => {}
            other => other.unwrap(),
        });
        assert!(content.len() == SIZE || content.len() == size, "{mode:?}");
        assert!(content.iter().all(|&byte| byte != 1), "{mode:?}");
        let zeros = content.iter().filter(|&&byte| byte == 0).count();
        let in_hole = content.iter().skip(4096).take(zeros);
        assert!(in_hole.eq(std::iter::repeat_n(&0, zeros)), "{mode:?}");
        assert!(zeros == 0 || zeros == 8192, "{mode:?}");
    }
}

#[test]
fn at_local_cutting_off_what_nobody_synced_waits_for_no_disk() {
    let scene = Scene::promising(Durability::Local);
    let _held = scene.root().put("file", &[1; SIZE]).unwrap();
    let file = scene.file();
    let synced = || scene.volume.core().meta.synced();
    let before = synced();
    file.truncate(100).unwrap();
    assert_eq!(synced(), before, "it is new");
    file.fsync().unwrap();
    scene.sync();
    scene.wait_for_shipper();
    let before = synced();
    file.truncate(10).unwrap();
    assert_eq!(synced(), before, "the bucket has it");
    file.write_all(0, &[2; SIZE]).unwrap();
    file.fsync().unwrap();
    let before = synced();
    file.truncate(100).unwrap();
    assert!(synced() > before, "only this host has it");
}
