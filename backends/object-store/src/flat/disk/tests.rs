use std::os::fd::AsFd;

use rustix::io::pread;

use super::super::blocks::BLOCK;
use super::*;

const WHOLE: usize = 128 << 10;

fn content(name: &str, size: usize) -> ContentName {
    ContentName {
        name: name.into(),
        size: u64::try_from(size).unwrap(),
    }
}

fn put(cache: &DiskCache, name: &str, bytes: &[u8]) {
    cache.put(
        &content(name, bytes.len()),
        0,
        &[Bytes::copy_from_slice(bytes)],
    );
}

/// A block, if it is there and whole.
fn block(cache: &DiskCache, content: &ContentName, number: u64) -> Option<Vec<u8>> {
    let group = cache.find(content, number)?;
    if group.check(&(number..number + 1)) != [number] {
        return None;
    }
    assert!(group.is_right(number));
    let from = number * BLOCK;
    let length = usize::try_from((content.size - from).min(BLOCK)).unwrap();
    let mut bytes = vec![0; length];
    let read = pread(group.descriptor().as_fd(), &mut bytes, group.place(from));
    assert_eq!(read, Ok(length));
    Some(bytes)
}

fn get(cache: &DiskCache, name: &str, length: usize) -> Option<Vec<u8>> {
    block(cache, &content(name, length), 0)
}

/// All files with their sizes.
fn files(directory: &Path) -> Vec<(std::path::PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt;
    let folders = std::fs::read_dir(directory).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files
        .map(|file| {
            let file = file.unwrap();
            let metadata = file.metadata().unwrap();
            (file.path(), metadata.len().max(metadata.blocks() * 512))
        })
        .collect()
}

#[test]
fn a_block_is_there_for_the_next_one_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(get(&cache, "a", 3), None);
    put(&cache, "a", b"123");
    let other = DiskCache::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(get(&other, "a", 3).unwrap(), b"123");
    assert_eq!(get(&other, "b", 3), None);
}

#[test]
fn a_block_that_was_damaged_or_is_anothers_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DiskCache::open(dir.path(), 1 << 20).unwrap();
    put(&open(), "a", b"123456789");
    let (file, _) = files(dir.path()).pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(whole.len(), 4096 + 9);
    for at in (0..48).chain(4096..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(get(&open(), "a", 9), None, "byte {at}");
    }
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(get(&open(), "a", 9), None);
    std::fs::write(&file, vec![0; whole.len()]).unwrap();
    assert_eq!(get(&open(), "a", 9), None, "as a power cut leaves it");

    std::fs::write(&file, &whole).unwrap();
    assert!(get(&open(), "a", 9).is_some());
    let path = content("b", 9).path(0);
    std::fs::create_dir_all(dir.path().join(&path).parent().unwrap()).unwrap();
    std::fs::rename(&file, dir.path().join(path)).unwrap();
    assert_eq!(get(&open(), "b", 9), None);
}

#[test]
fn what_another_process_changes_is_checked_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 64 << 20).unwrap();
    put(&cache, "a", b"123456789");
    let group = cache.opened(&content("a", 9), 0).unwrap();
    assert!(group.is_right(0));
    let (file, _) = files(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    // The clock of a file system may be a slow one.
    let before = std::fs::metadata(&file).unwrap();
    while unchanged(&before, &std::fs::metadata(&file).unwrap()) {
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &bytes).unwrap();
    }
    assert!(!group.is_right(0));
    *bytes.last_mut().unwrap() = b'0';
    std::fs::write(&file, &bytes).unwrap();
    assert!(group.check(&(0..1)).is_empty());
    put(&cache, "a", b"123456789");
    assert_eq!(get(&cache, "a", 9).unwrap(), b"123456789");
}

fn unchanged(before: &std::fs::Metadata, now: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (before.ctime(), before.ctime_nsec()) == (now.ctime(), now.ctime_nsec())
}

#[test]
fn a_block_is_right_when_it_was_written_or_checked_and_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 64 << 20).unwrap();
    let name = content("a", 3 * WHOLE);
    cache.put(&name, 1, &[vec![1; WHOLE].into(), vec![2; WHOLE].into()]);
    let right = |cache: &DiskCache| {
        let group = cache.find(&name, 0).unwrap();
        [0, 1, 2].map(|number| group.is_right(number))
    };
    assert_eq!(right(&cache), [false, true, true]);
    let other = DiskCache::open(dir.path(), 64 << 20).unwrap();
    assert_eq!(right(&other), [false; 3]);
    let group = other.find(&name, 0).unwrap();
    assert_eq!(group.check(&(0..3)), [1, 2]);
    assert_eq!(right(&other), [false, true, true]);
    group.forget(&(0..2));
    assert_eq!(right(&other), [false, false, true]);
}

#[test]
fn what_was_checked_is_known_of_a_file_that_was_closed_and_not_of_one_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    // One file is held open.
    let cache = DiskCache::open(dir.path(), 16 << 20).unwrap();
    put(&cache, "a", b"123456789");
    put(&cache, "b", b"123456789");
    let name = content("a", 9);
    assert!(cache.opened(&name, 0).is_none());
    assert!(cache.find(&name, 0).unwrap().is_right(0));

    put(&cache, "b", b"123456789");
    let path = dir.path().join(name.path(0));
    let bytes = std::fs::read(&path).unwrap();
    let _held = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(!cache.find(&name, 0).unwrap().is_right(0));
}

#[test]
fn blocks_in_a_row_share_a_file_and_stand_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DiskCache::open(dir.path(), 1 << 30).unwrap();
    let cache = open();
    let name = content("a", 20 * WHOLE);
    let bytes = |number: u64| vec![u8::try_from(number).unwrap(); WHOLE];
    for number in [9, 11, 14, 16] {
        cache.put(&name, number, &[bytes(number).into()]);
    }
    assert_eq!(files(dir.path()).len(), 2);
    let there = |cache: &DiskCache| -> Vec<u64> {
        let is_there = |number: &u64| match block(cache, &name, *number) {
            Some(got) => got == bytes(*number),
            None => false,
        };
        (8..18).filter(is_there).collect()
    };
    assert_eq!(there(&cache), [9, 11, 14, 16]);
    assert_eq!(there(&open()), [9, 11, 14, 16]);

    // A daemon was killed while it wrote, over what was there and at the end.
    let group = cache.find(&name, 9).unwrap();
    let file = dir.path().join(name.path(1));
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[usize::try_from(group.place(11 * BLOCK)).unwrap() + 5000] ^= 1;
    damaged.pop();
    std::fs::write(&file, damaged).unwrap();
    assert_eq!(there(&open()), [9, 16]);
    cache.put(&name, 14, &[bytes(14).into()]);
    assert_eq!(there(&open()), [9, 14, 16]);
}

#[test]
fn the_directory_stays_near_its_limit_and_keeps_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let cache = DiskCache::open(dir.path(), limit).unwrap();
    let bytes = vec![7; 16 << 10];
    put(&cache, "used", &bytes);
    for number in 0..300 {
        put(&cache, &number.to_string(), &bytes);
        assert!(get(&cache, "used", bytes.len()).is_some(), "{number}");
    }
    let total: u64 = files(dir.path()).iter().map(|(_, size)| size).sum();
    assert!(total <= limit + limit / 8, "{total}");
    assert!(total > limit / 2, "{total}");
    assert!(get(&cache, "0", bytes.len()).is_none());
}

#[test]
fn what_is_read_without_waiting_is_used_too() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 64 << 20;
    let cache = DiskCache::open(dir.path(), limit).unwrap();
    let blocks = vec![Bytes::from(vec![7; WHOLE]); 8];
    let name = |number: u32| content(&number.to_string(), 8 * WHOLE);
    cache.put(&name(0), 0, &blocks);
    for number in 1..150 {
        let group = cache.find(&name(0), 0).expect("still there");
        assert!(group.is_right(3));
        assert!(!group.is_removed(), "{number}");
        cache.put(&name(number), 0, &blocks);
    }
    assert!(cache.find(&name(1), 0).is_none());
}

#[test]
fn files_that_were_removed_do_not_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 64 << 20).unwrap();
    let blocks = vec![Bytes::from(vec![7; WHOLE]); 8];
    for number in 0..200 {
        cache.put(&content(&number.to_string(), 8 * WHOLE), 0, &blocks);
        let open = cache.open_groups();
        let removed = open.iter().filter(|(_, group)| group.is_removed());
        assert_eq!((removed.count(), open.len() <= 4), (0, true), "{number}");
    }
}

#[test]
fn what_a_killed_daemon_left_half_written_goes_like_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let cache = DiskCache::open(dir.path(), limit).unwrap();
    let left = dir.path().join("00/new-0000000000000001-7");
    std::fs::write(&left, vec![1; 16 << 10]).unwrap();
    for number in 0..100 {
        put(&cache, &number.to_string(), &[7; 16 << 10]);
    }
    assert!(!left.exists());
    let total: u64 = files(dir.path()).iter().map(|(_, size)| size).sum();
    assert!(total <= limit + limit / 8, "{total}");
}

#[test]
fn a_directory_that_cannot_be_written_keeps_nothing_and_fails_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    for folder in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_dir_all(folder.unwrap().path()).unwrap();
    }
    put(&cache, "a", b"123");
    assert_eq!(get(&cache, "a", 3), None);
}
