use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vfsd_backend::{
    Backend, Errno, FallocateMode, Result, Wait, WriteRequest, WriteSource, XattrFlags,
};
use vfsd_testkit::place::{Handle, Place, wait};

use crate::{Limits, Memory, Settings};

const MIB: u64 = 1024 * 1024;

fn small() -> (Memory, Place) {
    let memory = Memory::new(Settings {
        limits: Limits {
            bytes: MIB,
            inodes: 10,
        },
        ..Settings::default()
    })
    .unwrap();
    let root = Place(memory.root());
    (memory, root)
}

#[test]
fn everything_that_is_removed_gives_its_space_back() {
    let (memory, root) = small();
    let empty = memory.used();
    {
        let dir = root.mkdir("dir").unwrap();
        let (file, handle) = dir.create("file").unwrap();
        handle.write_all(5000, &[1; 9000]).unwrap();
        file.setxattr("user.a", &[2; 500]).unwrap();
        file.setxattr("user.a", &[2; 100]).unwrap();
        dir.symlink("link", "target").unwrap();
        let (_, nameless) = dir.tmpfile(vfsd_backend::OpenFlags::empty()).unwrap();
        nameless.write_all(0, b"x").unwrap();
        assert!(memory.used().0 > empty.0 + 4 * 4096);
        assert_eq!(memory.used().1, 5);
        dir.unlink("file").unwrap();
        dir.unlink("link").unwrap();
        root.rmdir("dir").unwrap();
    }
    assert_eq!(memory.used(), empty);
}

#[test]
fn a_file_system_that_is_dropped_with_deep_trees_does_not_overflow_the_stack() {
    let memory = Memory::new(Settings::default()).unwrap();
    let mut at = Place(memory.root());
    for _ in 0..50_000 {
        at = at.mkdir("d").unwrap();
    }
    drop(memory);
    drop(at);
}

#[test]
fn a_write_into_the_last_space_is_short_and_the_next_is_refused() {
    let (_memory, root) = small();
    let (_, handle) = root.create("file").unwrap();
    let written = handle.write(0, &vec![7; 2 * 1024 * 1024]).unwrap();
    assert!(written > 900_000 && written < 1024 * 1024, "{written}");
    let end = u64::try_from(written).unwrap();
    assert_eq!(handle.write(end, &[7; 4096]), Err(Errno::NOSPC));
    assert_eq!(handle.attributes().unwrap().size, end);
    assert_eq!(root.create("other").map(drop), Ok(()));
}

#[test]
fn an_allocation_over_the_limit_reserves_nothing() {
    let (memory, root) = small();
    let (_, handle) = root.create("file").unwrap();
    let before = memory.used();
    let all = FallocateMode::empty();
    assert_eq!(handle.fallocate(all, 0, 2 * MIB), Err(Errno::NOSPC));
    assert_eq!(memory.used(), before);
    assert_eq!(handle.attributes().unwrap().size, 0);
}

#[test]
fn inodes_run_out_with_enospc_and_come_back() {
    let (_memory, root) = small();
    for index in 0..9 {
        root.put(&format!("file{index}"), b"").unwrap();
    }
    assert_eq!(root.create("tenth").map(drop), Err(Errno::NOSPC));
    assert_eq!(root.names().unwrap().len(), 9);
    root.unlink("file3").unwrap();
    root.put("tenth", b"").unwrap();
}

#[test]
fn names_of_hard_links_count_so_that_they_run_out_too() {
    let (_memory, root) = small();
    let file = root.put("file", b"").unwrap();
    let refused = (0..100_000).find_map(|index| root.link(&file, &format!("link{index}")).err());
    assert_eq!(refused, Some(Errno::NOSPC));
}

#[test]
fn attributes_of_one_inode_are_limited_and_fit_in_one_listing() {
    let memory = Memory::new(Settings::default()).unwrap();
    let file = Place(memory.root()).put("file", b"").unwrap();
    file.setxattr("user.large", &vec![0; 64 * 1024]).unwrap();
    assert_eq!(file.setxattr("user.more", b"x"), Err(Errno::NOSPC));
    let create = XattrFlags::CREATE;
    let full = (0..100_000).find_map(|index| {
        let name = format!("user.{index:0>200}");
        file.setxattr_with(&name, b"", create).err()
    });
    assert_eq!(full, Some(Errno::NOSPC));
    let listed = file.xattr_names().unwrap();
    let bytes: usize = listed.iter().map(|name| name.len() + 1).sum();
    assert!(bytes <= 64 * 1024);
}

#[test]
fn statfs_follows_what_is_used() {
    let (_memory, root) = small();
    let before = vfsd_testkit::block_on(root.0.statfs()).unwrap();
    assert_eq!(
        (before.blocks, before.files, before.files_free),
        (256, 10, 9)
    );
    root.put("file", &[1; 8192]).unwrap();
    let after = vfsd_testkit::block_on(root.0.statfs()).unwrap();
    assert!(after.blocks_free < before.blocks_free - 1);
    assert_eq!(after.files_free, 8);
}

#[test]
fn nodes_of_another_file_system_are_told_apart() {
    let (_one, root) = small();
    let (_other, foreign) = small();
    let file = root.put("file", b"abc").unwrap();
    assert_eq!(foreign.link(&file, "file").map(drop), Err(Errno::XDEV));
    assert_eq!(root.rename("file", &foreign, "file"), Err(Errno::XDEV));
    let source = file.open_both().unwrap();
    let (_, target) = foreign.create("target").unwrap();
    assert_eq!(source.copy_range(0, &target, 0, 3), Err(Errno::XDEV));
}

/// Renames, removals and listings at the same time end, and leave a tree that is whole.
#[test]
fn names_stay_whole_while_threads_move_them() {
    let memory = Arc::new(Memory::new(Settings::default()).unwrap());
    let root = Place(memory.root());
    for dir in ["a", "b", "c"] {
        root.mkdir(dir).unwrap();
    }
    std::thread::scope(|scope| {
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
            let root = &root;
            scope.spawn(move || {
                let from = root.lookup(from).unwrap();
                let to = root.lookup(to).unwrap();
                for round in 0..2000 {
                    let name = format!("n{}", round % 5);
                    let _ = from.mkdir(&name);
                    let _ = from.rename(&name, &to, &name);
                    let _ = to.rename(&name, &from, "moved");
                    let _ = from.names().unwrap();
                    let _ = from.rmdir("moved");
                    let _ = to.rmdir(&name);
                }
            });
        }
    });
    for dir in ["a", "b", "c"] {
        let dir = root.lookup(dir).unwrap();
        let subdirectories = dir.names().unwrap();
        let links = dir.attributes().unwrap().links;
        assert_eq!(usize::try_from(links).unwrap(), 2 + subdirectories.len());
        for name in subdirectories {
            assert_eq!(dir.lookup(&name).unwrap().attributes().unwrap().links, 2);
            dir.rmdir(&name).unwrap();
        }
    }
}

/// Writers to one file and copies between two do not wait for each other forever.
#[test]
fn files_that_are_copied_onto_each_other_by_threads_do_not_deadlock() {
    let (_memory, root) = small();
    let open = |name: &str| -> Handle {
        let handle = root.create(name).unwrap().1;
        handle.write_all(0, &[5; 10_000]).unwrap();
        handle
    };
    let (one, other) = (open("one"), open("other"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..500 {
                one.copy_range(0, &other, 0, 10_000).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..500 {
                other.copy_range(0, &one, 0, 10_000).unwrap();
            }
        });
    });
    assert_eq!(one.content().unwrap(), other.content().unwrap());
}

/// A source whose memory goes away after some bytes.
struct Failing(usize);

impl WriteSource for Failing {
    fn remaining(&self) -> usize {
        100_000
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.0 < buffer.len() {
            return Err(Errno::FAULT.into());
        }
        self.0 -= buffer.len();
        buffer.fill(7);
        Ok(buffer.len())
    }

    fn take_into(&mut self, _: BorrowedFd<'_>, _: u64, _: Wait) -> Result<usize> {
        Err(Errno::FAULT.into())
    }
}

#[test]
fn a_write_whose_memory_goes_away_is_short_and_leaves_no_block_behind() {
    let (memory, root) = small();
    let (_, handle) = root.create("file").unwrap();
    let before = memory.used();
    let write = |bytes| {
        let request = WriteRequest {
            offset: 0,
            kill_privileges: false,
            cached: false,
        };
        wait(handle.0.write(request, &mut Failing(bytes)))
    };
    assert_eq!(write(0), Err(Errno::FAULT));
    assert_eq!(memory.used(), before);
    assert_eq!(write(10_000), Ok(8192));
    assert_eq!(handle.attributes().unwrap().size, 8192);
    assert_eq!(memory.used().0, before.0 + 8192);
}
