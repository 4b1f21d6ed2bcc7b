//! A writable layer over read-only ones: what it keeps, what it leaves, and what is there after a restart.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::sync::Arc;

use stack::{Fill, Store, every_store};
use vfsd_backend::{Backend, Device, Errno, FileKind, LockKind, OpenFlags, RenameFlags};
use vfsd_overlay::{OpenError, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::{Outcome, Place};

fn refused<T>(outcome: Outcome<T>, errno: Errno) {
    assert_eq!(outcome.map(drop), Err(errno));
}

/// Layers that can be served again and again.
struct Stack<'a> {
    store: &'a Store,
    lowers: Vec<Arc<dyn Backend>>,
    tree: Arc<dyn Backend>,
}

impl<'a> Stack<'a> {
    fn new(store: &'a Store, fill: Fill<'_>) -> Self {
        Self {
            store,
            lowers: store.lowers(&[fill]),
            tree: store.tree("writable"),
        }
    }

    fn options(&self) -> Options {
        self.store.options(self.lowers.clone(), &self.tree)
    }

    /// Serves the layers while `work` is done.
    fn run<T>(&self, work: impl FnOnce(Place) -> T) -> T {
        let overlay = block_on(Overlay::open(self.options())).expect("an overlay");
        work(Place(overlay.root()))
    }

    /// The upper as it is.
    fn upper(&self) -> Place {
        Place(self.tree.root()).lookup("upper").unwrap()
    }

    /// The copies of files with several names, in the kernel's index and our own.
    fn indexed(&self) -> Vec<String> {
        let work = Place(self.tree.root()).lookup("work").unwrap();
        let directories = ["index", "vfsd-index"].map(|name| work.lookup(name));
        let names = directories
            .into_iter()
            .flatten()
            .map(|it| it.names().unwrap());
        names.flatten().collect()
    }

    fn lower(&self) -> Place {
        Place(self.lowers.first().unwrap().root())
    }
}

fn is_whiteout(directory: &Place, name: &str) -> bool {
    directory
        .lookup(name)
        .and_then(|place| place.attributes())
        .is_ok_and(|attributes| {
            attributes.kind == FileKind::CharDevice && attributes.device == Device::default()
        })
}

#[test]
fn a_whiteout_stays_only_where_a_lower_layer_has_the_name() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("below", b"").unwrap();
            lower.mkdir("dir").unwrap().put("inner", b"").unwrap();
        });
        stack.run(|root| {
            root.put("above", b"").unwrap();
            root.unlink("above").unwrap();
            root.unlink("below").unwrap();
            let dir = root.lookup("dir").unwrap();
            refused(root.rmdir("dir"), Errno::NOTEMPTY);
            dir.unlink("inner").unwrap();
            root.rmdir("dir").unwrap();
            root.mkdir("new").unwrap();
            root.rmdir("new").unwrap();
            assert_eq!(root.names().unwrap(), [""; 0]);
        });
        let upper = stack.upper();
        assert_eq!(upper.names().unwrap(), ["below", "dir"]);
        assert!(is_whiteout(&upper, "below") && is_whiteout(&upper, "dir"));
        stack.run(|root| assert_eq!(root.names().unwrap(), [""; 0]));
        assert_eq!(stack.lower().names().unwrap(), ["below", "dir"]);
    });
}

#[test]
fn what_was_removed_does_not_come_back_in_a_new_directory_of_that_name() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let dir = lower.mkdir("d").unwrap();
            dir.put("file", b"").unwrap();
            dir.mkdir("sub").unwrap();
        });
        stack.run(|root| {
            let dir = root.lookup("d").unwrap();
            dir.unlink("file").unwrap();
            dir.rmdir("sub").unwrap();
            root.rmdir("d").unwrap();
            let again = root.mkdir("d").unwrap();
            assert_eq!(again.names().unwrap(), [""; 0]);
            again.put("mine", b"").unwrap();
        });
        stack.run(|root| assert_eq!(root.lookup("d").unwrap().names().unwrap(), ["mine"]));
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
fn a_lower_directory_is_moved_away_and_back() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let dir = lower.mkdir("dir").unwrap();
            dir.put("file", b"content").unwrap();
            dir.mkdir("sub").unwrap().put("deep", b"").unwrap();
            lower.mkdir("other").unwrap();
        });
        let names = |root: &Place, path: &[&str]| {
            path.iter()
                .try_fold(root.clone(), |place, name| place.lookup(name))
                .and_then(|place| place.names())
        };
        stack.run(|root| {
            let dir = root.lookup("dir").unwrap();
            root.rename("dir", &root, "renamed").unwrap();
            let other = root.lookup("other").unwrap();
            dir.rename("sub", &other, "moved").unwrap();
            refused(
                other.rename("moved", &root, "x").and(root.lookup("sub")),
                Errno::NOENT,
            );
            root.rename("x", &other, "moved").unwrap();
        });
        stack.run(|root| {
            refused(root.lookup("dir"), Errno::NOENT);
            assert_eq!(names(&root, &["renamed"]).unwrap(), ["file"]);
            assert_eq!(names(&root, &["other", "moved"]).unwrap(), ["deep"]);
            root.rename("renamed", &root, "dir").unwrap();
            let dir = root.lookup("dir").unwrap();
            let other = root.lookup("other").unwrap();
            other.rename("moved", &dir, "sub").unwrap();
        });
        stack.run(|root| {
            assert_eq!(root.names().unwrap(), ["dir", "other"]);
            assert_eq!(names(&root, &["dir"]).unwrap(), ["file", "sub"]);
            assert_eq!(names(&root, &["dir", "sub"]).unwrap(), ["deep"]);
            assert_eq!(names(&root, &["other"]).unwrap(), [""; 0]);
        });
    });
}

#[test]
fn directories_of_both_layers_change_places() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("low").unwrap().put("below", b"").unwrap();
            lower.put("file", b"lower").unwrap();
        });
        stack.run(|root| {
            root.mkdir("up").unwrap().put("above", b"").unwrap();
            let exchange = RenameFlags::EXCHANGE;
            root.rename_with("low", &root, "up", exchange).unwrap();
            root.put("new", b"upper").unwrap();
            root.rename_with("file", &root, "new", exchange).unwrap();
        });
        stack.run(|root| {
            let names = |name| root.lookup(name).unwrap().names().unwrap();
            assert_eq!(
                (names("low"), names("up")),
                (vec!["above".into()], vec!["below".into()])
            );
            let content = |name| root.lookup(name).unwrap().content().unwrap();
            assert_eq!(content("new"), b"lower");
            assert_eq!(content("file"), b"upper");
        });
    });
}

#[test]
fn a_directory_with_whiteouts_in_it_is_replaced() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("target").unwrap().put("gone", b"").unwrap();
            lower.mkdir("moved").unwrap().put("kept", b"").unwrap();
        });
        stack.run(|root| {
            root.lookup("target").unwrap().unlink("gone").unwrap();
            root.rename("moved", &root, "target").unwrap();
        });
        stack.run(|root| {
            assert_eq!(root.names().unwrap(), ["target"]);
            assert_eq!(root.lookup("target").unwrap().names().unwrap(), ["kept"]);
        });
    });
}

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
fn an_upper_that_the_kernel_has_not_made_durable_is_refused() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| ());
        stack.run(|root| root.put("file", b"").map(drop).unwrap());
        let work = Place(stack.tree.root()).lookup("work").unwrap();
        let incompatible = work.lookup("work").unwrap().mkdir("incompat").unwrap();
        incompatible.mkdir("volatile").unwrap();
        match block_on(Overlay::open(stack.options())) {
            Err(OpenError::Incompatible { feature }) => assert_eq!(feature, "volatile"),
            other => panic!("{other:?}"),
        }
        incompatible.rmdir("volatile").unwrap();
        stack.run(|root| assert_eq!(root.names().unwrap(), ["file"]));
    });
}

#[test]
fn without_redirects_a_lower_directory_stays_where_it_is() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("low").unwrap();
        });
        let options = Options {
            redirects: false,
            ..stack.options()
        };
        let overlay = block_on(Overlay::open(options)).unwrap();
        let root = Place(overlay.root());
        refused(root.rename("low", &root, "new"), Errno::XDEV);
        root.mkdir("up").unwrap();
        root.rename("up", &root, "new").unwrap();
    });
}

#[test]
fn what_an_earlier_run_has_left_in_the_work_directory_is_removed() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| {});
        stack.run(|_| {});
        let work = Place(stack.tree.root()).lookup("work").unwrap();
        let inner = work.lookup("work").unwrap();
        inner.put("#1", b"left").unwrap();
        let dir = inner.mkdir("#2").unwrap();
        dir.mkdir("made").unwrap().put("x", b"").unwrap();
        stack.run(|root| assert!(root.put("file", b"").is_ok()));
        assert_eq!(inner.names().unwrap(), [""; 0]);
    });
}

#[test]
fn an_upper_belongs_to_its_lowers() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| {});
        let named = |name: &str| Options {
            lowers_name: Some(name.to_owned()),
            ..stack.options()
        };
        assert!(block_on(Overlay::open(named("these"))).is_ok());
        let other = block_on(Overlay::open(named("those"))).unwrap_err();
        assert!(matches!(other, OpenError::OtherLowers { .. }), "{other}");
        assert!(block_on(Overlay::open(named("these"))).is_ok());
    });
}

#[test]
fn a_work_directory_elsewhere_is_refused() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| {});
        let mut options = stack.options();
        let elsewhere = store.tree("elsewhere");
        if let Some(upper) = &mut options.upper {
            upper.work = elsewhere.root();
        }
        let refused = block_on(Overlay::open(options)).unwrap_err();
        assert!(matches!(refused, OpenError::WorkElsewhere), "{refused}");
    });
}
