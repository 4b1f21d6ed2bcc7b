//! Files that are copied up: what stays as it was, and for whom.

use vfsd_backend::{Errno, LockKind, OpenFlags};
use vfsd_testkit::place::{Outcome, Place};

use crate::stack::every_store;
use crate::{Stack, refused};

#[test]
fn a_copy_has_all_that_belongs_to_the_file() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let file = lower.put("file", b"").unwrap();
            let handle = file.open_both().unwrap();
            handle.write_all(0, b"begin").unwrap();
            handle.write_all(3 << 20, b"end").unwrap();
            handle.truncate(4 << 20).unwrap();
            file.setxattr("user.x", b"value").unwrap();
            file.chmod(0o4755).unwrap();
        });
        stack.run(|root| {
            let file = root.lookup("file").unwrap();
            let before = file.attributes().unwrap();
            let content = file.content().unwrap();
            // Something that is no part of what is compared.
            file.setxattr("user.y", b"").unwrap();
            let mut after = file.attributes().unwrap();
            assert!(after.blocks < 8192, "{} blocks", after.blocks);
            (after.changed, after.born) = (before.changed, before.born);
            (after.blocks, after.accessed) = (before.blocks, before.accessed);
            assert_eq!(after, before);
            assert_eq!(file.getxattr("user.x").unwrap(), b"value");
            assert!(
                file.content().unwrap() == content,
                "the content is the same"
            );
        });
    });
}

#[test]
fn truncation_copies_no_more_than_stays() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            for name in ["open", "set"] {
                lower.put(name, b"content").unwrap();
            }
        });
        stack.run(|root| {
            let open = root.lookup("open").unwrap();
            let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::TRUNCATE;
            open.open(flags).unwrap().write_all(0, b"new").unwrap();
            assert_eq!(open.content().unwrap(), b"new");
            let set = root.lookup("set").unwrap();
            set.truncate(4).unwrap();
            assert_eq!(set.content().unwrap(), b"cont");
        });
    });
}

#[test]
fn a_file_opened_before_it_was_copied_up_shows_what_is_written_later() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("file", b"before").unwrap();
        });
        stack.run(|root| {
            let file = root.lookup("file").unwrap();
            let reader = file.open(OpenFlags::READ).unwrap();
            assert_eq!(reader.content().unwrap(), b"before");
            let before = file.attributes().unwrap();
            file.open_both().unwrap().write_all(0, b"after!").unwrap();
            assert_eq!(reader.content().unwrap(), b"after!");
            assert_eq!(reader.attributes().unwrap().inode, before.inode);
            assert_eq!(file.identity(), root.lookup("file").unwrap().identity());
            // Also when it has lost its name.
            root.unlink("file").unwrap();
            file.open_both().unwrap().write_all(0, b"gone!!").unwrap();
            assert_eq!(reader.content().unwrap(), b"gone!!");
        });
        assert_eq!(
            stack.lower().lookup("file").unwrap().content().unwrap(),
            b"before"
        );
    });
}

#[test]
fn a_file_without_a_name_can_be_changed_although_it_was_never_copied_up() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("file", b"content").unwrap();
        });
        stack.run(|root| {
            let file = root.lookup("file").unwrap();
            let reader = file.open(OpenFlags::READ).unwrap();
            root.unlink("file").unwrap();
            file.chmod(0o600).unwrap();
            let attributes = file.attributes().unwrap();
            assert_eq!((attributes.permissions, attributes.links), (0o600, 0));
            assert_eq!(reader.content().unwrap(), b"content");
            refused(root.link(&file, "again"), Errno::NOENT);
        });
        stack.run(|root| assert_eq!(root.names().unwrap(), [""; 0]));
    });
}

#[test]
fn a_lock_that_was_taken_before_the_copy_excludes_after_it() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("file", b"").unwrap();
        });
        stack.run(|root| {
            let file = root.lookup("file").unwrap();
            let early = file.open(OpenFlags::READ).unwrap();
            early.lock(1, LockKind::Read, (0, 9)).unwrap();
            early.flock(1, Some(LockKind::Write)).unwrap();
            refused(early.lock(1, LockKind::Write, (0, 9)), Errno::BADF);
            let late = file.open_both().unwrap();
            refused(late.lock(2, LockKind::Write, (5, 5)), Errno::AGAIN);
            refused(late.flock(2, Some(LockKind::Read)), Errno::AGAIN);
            early.flush(1).unwrap();
            drop(early);
            late.lock(2, LockKind::Write, (5, 5)).unwrap();
            late.flock(2, Some(LockKind::Read)).unwrap();
        });
    });
}

#[test]
fn inode_numbers_stay_when_a_file_is_copied_up_and_after_a_restart() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("file", b"").unwrap();
            lower.mkdir("dir").unwrap();
            lower.put("other", b"").unwrap();
        });
        let numbers = |root: &Place| {
            ["file", "dir", "renamed"].map(|name| {
                let place = root.lookup(name).ok()?;
                let listed = root.list().unwrap();
                let number = place.attributes().unwrap().inode;
                assert!(
                    listed
                        .iter()
                        .any(|entry| entry.name == name.as_bytes() && entry.inode == number),
                    "{name}"
                );
                Some(number)
            })
        };
        let (before, changed) = stack.run(|root| {
            let [file, dir, _] = numbers(&root);
            let other = root.lookup("other").unwrap().attributes().unwrap().inode;
            let before = [file, dir, Some(other)];
            root.lookup("file").unwrap().chmod(0o600).unwrap();
            root.lookup("dir").unwrap().put("new", b"").unwrap();
            root.rename("other", &root, "renamed").unwrap();
            (before, numbers(&root))
        });
        assert_eq!(changed, before);
        stack.run(|root| assert_eq!(numbers(&root), before));
    });
}

#[test]
fn a_lower_file_with_several_names_stays_one_file() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let file = lower.put("one", b"before").unwrap();
            lower.link(&file, "two").unwrap();
            lower.mkdir("dir").unwrap().link(&file, "three").unwrap();
        });
        let look = |root: &Place, links: u32, content: &[u8], names: &[&str]| {
            let mut inodes = Vec::new();
            for name in names {
                let place = match name.strip_prefix("dir/") {
                    Some(name) => root.lookup("dir").unwrap().lookup(name).unwrap(),
                    None => root.lookup(name).unwrap(),
                };
                let attributes = place.attributes().unwrap();
                assert_eq!(attributes.links, links, "{name}");
                assert_eq!(place.content().unwrap(), content, "{name}");
                inodes.push((place.identity(), attributes.inode));
            }
            inodes.dedup();
            // Each was forgotten before the next was looked up: only the number must stay.
            inodes.dedup_by_key(|(_, inode)| *inode);
            assert_eq!(inodes.len(), 1);
        };
        stack.run(|root| {
            let one = root.lookup("one").unwrap();
            one.open_both().unwrap().write_all(0, b"after!").unwrap();
            look(&root, 3, b"after!", &["one", "two", "dir/three"]);
        });
        assert_eq!(stack.indexed().len(), 1);
        stack.run(|root| {
            look(&root, 3, b"after!", &["two", "dir/three", "one"]);
            root.unlink("two").unwrap();
            look(&root, 2, b"after!", &["one", "dir/three"]);
            let dir = root.lookup("dir").unwrap();
            dir.rename("three", &root, "four").unwrap();
            look(&root, 2, b"after!", &["four", "one"]);
        });
        stack.run(|root| {
            look(&root, 2, b"after!", &["four", "one"]);
            root.unlink("one").unwrap();
            root.unlink("four").unwrap();
            assert_eq!(root.names().unwrap(), ["dir"]);
        });
        assert_eq!(stack.indexed(), [""; 0], "nothing is kept of what is gone");
    });
}

#[test]
fn names_that_a_copy_loses_are_counted_however_it_was_found() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let file = lower.put("one", b"").unwrap();
            lower.link(&file, "two").unwrap();
            lower.link(&file, "three").unwrap();
        });
        stack.run(|root| root.lookup("one").unwrap().chmod(0o600).map(drop).unwrap());
        stack.run(|root| {
            // By the name that the upper has.
            let found = root.lookup("one").unwrap();
            root.unlink("one").unwrap();
            root.unlink("two").unwrap();
            drop(found);
            let three = root.lookup("three").unwrap();
            assert_eq!(three.attributes().unwrap().links, 1);
        });
        stack.run(|root| {
            let three = root.lookup("three").unwrap();
            assert_eq!(three.attributes().unwrap().links, 1);
        });
    });
}

#[test]
fn a_program_has_attributes_of_the_overlays_names_for_itself() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("dir").unwrap().put("file", b"").unwrap();
        });
        stack.run(|root| {
            let dir = root.lookup("dir").unwrap();
            dir.setxattr(&store.own("opaque"), b"y").unwrap();
            assert_eq!(dir.getxattr(&store.own("opaque")).unwrap(), b"y");
            refused(dir.removexattr(&store.own("impure")), Errno::NODATA);
        });
        stack.run(|root| {
            let dir = root.lookup("dir").unwrap();
            assert_eq!(
                dir.names().unwrap(),
                ["file"],
                "the overlay does not take it for its own"
            );
            dir.removexattr(&store.own("opaque")).unwrap();
        });
    });
}

#[test]
fn a_file_whose_content_is_below_is_neither_read_nor_cut_nor_written_to() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("file", b"below..").unwrap();
        });
        stack.run(|_| ());
        let copy = stack.upper().put("file", b"").unwrap();
        copy.truncate(7).unwrap();
        copy.setxattr(&store.own("metacopy"), b"").unwrap();
        // They take a block of their own on ext4.
        copy.setxattr("user.large", &[b'x'; 600]).unwrap();
        stack.run(|root| {
            let tried: [&dyn Fn(Place) -> Outcome<()>; 4] = [
                &|file| file.content().map(drop),
                &|file| file.truncate(0).map(drop),
                &|file| file.open(OpenFlags::READ | OpenFlags::WRITE).map(drop),
                &|file| file.open(OpenFlags::WRITE | OpenFlags::TRUNCATE).map(drop),
            ];
            for tried in tried {
                refused(root.lookup("file").and_then(tried), Errno::IO);
            }
        });
        assert_eq!(copy.attributes().unwrap().size, 7);
    });
}
