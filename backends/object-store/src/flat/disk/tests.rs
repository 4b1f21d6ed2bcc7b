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
    let range = range(content, number);
    let bytes = group.read(&range);
    assert_eq!(group.is_right(&range), bytes.is_some());
    assert_eq!(load(&group, &[number]).is_empty(), bytes.is_none());
    Some(bytes?.to_vec())
}

/// The bytes of a block.
fn range(content: &ContentName, number: u64) -> std::ops::Range<u64> {
    number * BLOCK..((number + 1) * BLOCK).min(content.size)
}

/// As it is read through the kernel's memory.
fn load(group: &Group, blocks: &[u64]) -> Vec<(u64, Option<Bytes>)> {
    group.load(blocks, || None, bytes::BytesMut::zeroed)
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
    for at in (0..56).chain(4096..whole.len()) {
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
    assert!(group.is_right(&(0..9)));
    let (file, _) = files(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    // The clock of a file system may be a slow one.
    let before = std::fs::metadata(&file).unwrap();
    while unchanged(&before, &std::fs::metadata(&file).unwrap()) {
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &bytes).unwrap();
    }
    assert!(!group.is_right(&(0..9)));
    *bytes.last_mut().unwrap() = b'0';
    std::fs::write(&file, &bytes).unwrap();
    assert!(group.read(&(0..9)).is_none() && load(&group, &[0]).is_empty());
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
        [0, 1, 2].map(|number| group.is_right(&range(&name, number)))
    };
    assert_eq!(right(&cache), [false, true, true]);
    let other = DiskCache::open(dir.path(), 64 << 20).unwrap();
    assert_eq!(right(&other), [false; 3]);
    let group = other.find(&name, 0).unwrap();
    let [one, two] = [1, 2].map(|number: u8| Bytes::from(vec![number; WHOLE]));
    let read = [(1, Some(one)), (2, Some(two))];
    assert_eq!(load(&group, &[0, 1, 2]), read);
    assert_eq!(right(&other), [false, true, true]);
    assert_eq!(load(&group, &[0, 1, 2]), [(1, None), (2, None)]);
    group.forget(&range(&name, 1));
    assert_eq!(right(&other), [false, false, true]);
}

#[test]
fn a_damaged_page_takes_nothing_from_the_others_of_its_block() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DiskCache::open(dir.path(), 64 << 20).unwrap();
    let name = content("a", WHOLE + 5000);
    let whole: Vec<u8> = (0..WHOLE + 5000)
        .map(|at| u8::try_from(at / 7 % 251).unwrap())
        .collect();
    let bytes = Bytes::from(whole.clone());
    open().put(&name, 0, &[bytes.slice(..WHOLE), bytes.slice(WHOLE..)]);
    let path = dir.path().join(name.path(0));
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[4096 + 2 * 4096 + 17] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let cache = open();
    let group = cache.find(&name, 0).unwrap();
    let get = |from: usize, to: usize| {
        let range = u64::try_from(from).unwrap()..u64::try_from(to).unwrap();
        let bytes = group.read(&range);
        assert_eq!(group.is_right(&range), bytes.is_some(), "{range:?}");
        let expected = &whole[from..to];
        bytes.map(|bytes| assert!(bytes == expected, "{range:?}"))
    };
    for (from, to) in [(0, 1), (5000, 8192), (12_288, WHOLE), (4095, 4097)] {
        assert!(get(from, to).is_some(), "{from}");
    }
    for (from, to) in [(WHOLE, WHOLE + 5000), (WHOLE + 4999, WHOLE + 5000)] {
        assert!(get(from, to).is_some(), "{from}");
    }
    for (from, to) in [(8192, 8193), (8191, 8193), (12_287, 12_289), (0, WHOLE)] {
        assert!(get(from, to).is_none(), "{from}");
    }
    assert!(group.may_have(0) && group.may_have(1) && !group.may_have(2));
    let loaded = load(&group, &[0, 1, 2]);
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].0, 1);
}

/// Has the kernel forget what it has in memory of a file, where its file system has it elsewhere.
fn forget(group: &Group) {
    rustix::fs::fdatasync(group.descriptor()).unwrap();
    let forgotten = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(group.descriptor(), 0, None, forgotten).unwrap();
}

#[test]
fn what_the_kernel_has_forgotten_is_read_around_its_memory_and_is_right() {
    // On a disk, rather than in memory.
    let program = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let cache = DiskCache::open(dir.path(), 64 << 20).unwrap();
    let name = content("a", 3 * WHOLE + 77);
    let blocks = [(1, WHOLE), (2, WHOLE), (3, WHOLE), (4, 77)]
        .map(|(byte, length)| Bytes::from(vec![byte; length]));
    cache.put(&name, 0, &blocks);
    cache.put(
        &content("b", 2 * WHOLE),
        0,
        &[vec![9; WHOLE].into(), vec![8; WHOLE].into()],
    );
    let group = cache.find(&name, 0).unwrap();
    let mut memory = super::super::blocks::State::default();
    let mut load = |of: &str| {
        forget(&group);
        let mut around = None;
        let direct = || {
            around = cache.direct(&content(of, 0), 0);
            around.as_ref()?.try_clone().ok()
        };
        let loaded = group.load(&[0, 1, 3], direct, |length| memory.pages(length));
        (loaded, around.is_some())
    };
    let expected: Vec<_> = [0, 1, 3]
        .map(|block: u8| (u64::from(block), Some(blocks[usize::from(block)].clone())))
        .into();
    let (loaded, around) = load("a");
    assert_eq!(loaded, expected);
    // What is in the kernel's memory by now was not checked.
    assert!(!around || !group.is_right(&range(&name, 1)));
    assert!(group.is_right(&range(&name, 2)), "nobody asked for it");
    assert_eq!(load("b").0, expected, "another file is not taken for it");
    assert_eq!(load("c").0, expected, "without one");

    let path = dir.path().join(name.path(0));
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[4096 + WHOLE + 5] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let (loaded, _) = load("a");
    assert_eq!(loaded, [expected[0].clone(), expected[2].clone()]);
}

#[test]
fn headers_that_are_not_known_come_with_the_blocks_behind_them() {
    // On a disk, rather than in memory.
    let program = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let open = || DiskCache::open(dir.path(), 64 << 20).unwrap();
    let name = content("a", 8 * WHOLE + 77);
    let blocks = [1, 2, 3].map(|byte| Bytes::from(vec![byte; WHOLE]));
    let (first, last) = (blocks[..2].to_vec(), blocks[2..].to_vec());
    open().put(&name, 0, &first);
    open().put(&name, 3, &last);
    open().put(&name, 8, &[vec![4; 77].into()]);
    let load = |from: u64, count: u64| {
        let cache = open();
        let group = cache.find(&name, from).unwrap();
        forget(&group);
        let asked: Vec<u64> = (from..from + count).collect();
        let direct = || cache.direct(&name, from);
        let loaded = group.load(&asked, direct, |length| {
            super::super::blocks::State::default().pages(length)
        });
        let around = direct().is_some() && !group.has_page(0);
        for block in asked {
            let there = loaded.iter().any(|(found, _)| *found == block);
            assert!(!there || group.may_have(block));
        }
        (loaded, around)
    };
    let there = |block: u64, bytes: &Bytes| (block, Some(bytes.clone()));
    let (loaded, around) = load(0, 8);
    let expected = [
        there(0, &blocks[0]),
        there(1, &blocks[1]),
        there(3, &blocks[2]),
    ];
    assert_eq!(loaded, expected);
    assert_eq!(load(0, 1).0, expected[..1]);
    assert_eq!(load(1, 3).0, expected[1..], "not from the beginning on");
    assert_eq!(load(8, 1).0, [there(8, &vec![4; 77].into())]);
    let (group, nowhere) = (open().find(&name, 0).unwrap(), open());
    forget(&group);
    let direct = nowhere.direct(&name, 0).is_some() && !group.has_page(0);
    assert!(around || !direct, "the device was asked for them alone");

    let path = dir.path().join(name.path(0));
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[4096 + WHOLE + 5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(load(0, 8).0, [expected[0].clone(), expected[2].clone()]);
    damaged[0] ^= 1;
    std::fs::write(&path, &damaged[..4096 + 3 * WHOLE]).unwrap();
    assert_eq!(load(0, 8).0, [], "another's, and cut off");
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
    assert!(cache.find(&name, 0).unwrap().is_right(&(0..9)));

    put(&cache, "b", b"123456789");
    let path = dir.path().join(name.path(0));
    let bytes = std::fs::read(&path).unwrap();
    let _held = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(!cache.find(&name, 0).unwrap().is_right(&(0..9)));
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
        assert!(group.is_right(&range(&name(0), 3)));
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

#[test]
fn what_makes_room_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    for name in 0..40 {
        put(&cache, &name.to_string(), &[1; WHOLE]);
    }
    let seen = cache.look();
    assert_eq!(seen.written, 40 * BLOCK);
    let there: u64 = files(dir.path()).iter().map(|(_, size)| *size).sum();
    assert!(
        seen.evicted > 0 && seen.evicted + there >= seen.written,
        "{seen:?}"
    );
    assert!(seen.bytes.unwrap() <= 2 << 20, "{seen:?}");
}
