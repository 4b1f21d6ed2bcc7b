//! Files that were listed and not yet used: they have no descriptor, and the host moves their names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use rustix::fs::{CWD, RenameFlags as HostFlags, renameat_with};
use vfsd_backend::{
    AttributeChanges, Entry, Errno, FileKind, Node, Rename, RenameFlags, XattrFlags,
};
use vfsd_passthrough::{FileHandles, Options};

/// A share with files named by their content.
fn share_with(names: &[&str], options: Options) -> Share {
    let share = Share::new(options);
    for name in names {
        fs::write(share.host(name), name).unwrap();
    }
    share
}

fn plain(names: &[&str]) -> Share {
    share_with(names, Options::default())
}

impl Share {
    /// What is in the file of a node.
    fn content(&self, node: &dyn Node) -> vfsd_backend::Result<String> {
        let opened = self.open(node, READ)?;
        let content = self.read(&*opened.file, 0, 100)?;
        Ok(String::from_utf8(content).unwrap())
    }

    fn rename(&self, from: &str, to: &str, flags: RenameFlags) {
        let rename = Rename {
            name: name(from),
            new_parent: &*self.root,
            new_name: name(to),
            flags,
        };
        self.wait(self.root.rename(root_caller(), rename)).unwrap();
    }

    fn assert_stale(&self, node: &dyn Node) {
        assert_eq!(errno(self.wait(node.getattr())), Errno::STALE);
        assert_eq!(errno(self.open(node, READ)), Errno::STALE);
        let changes = AttributeChanges {
            permissions: Some(0),
            ..AttributeChanges::default()
        };
        assert_eq!(errno(self.wait(node.setattr(changes))), Errno::STALE);
        let set = node.setxattr(xattr_name("user.a"), b"1", XattrFlags::empty());
        assert_eq!(errno(self.wait(set)), Errno::STALE);
    }
}

fn same(one: &Entry, two: &Entry) -> bool {
    Arc::ptr_eq(&one.node, &two.node)
}

#[test]
fn listing_opens_nothing_and_tells_what_a_lookup_would() {
    let names: Vec<String> = (0..300).map(|number| format!("file {number}")).collect();
    let share = plain(&names.iter().map(String::as_str).collect::<Vec<_>>());
    fs::create_dir(share.host("directory")).unwrap();
    symlink("nowhere", share.host("link")).unwrap();
    let before = share.fs.descriptors_in_use();
    let listed = share.list_plus(&*share.root);
    assert_eq!(listed.len(), 302);
    for (child, entry) in &listed {
        let host = fs::symlink_metadata(share.host(child)).unwrap();
        assert_eq!(entry.attributes.inode, host.ino());
        assert_eq!(entry.attributes.mode(), host.mode());
        assert_eq!(entry.node.kind(), entry.attributes.kind);
        // Asked again, by name or by node, and still not opened.
        assert!(same(entry, &share.lookup(child)));
        assert_eq!(
            share.wait(entry.node.getattr()).unwrap().size,
            entry.attributes.size
        );
    }
    assert_eq!(share.fs.descriptors_in_use(), before);
    // A second listing finds the same nodes, used or not.
    assert_eq!(
        share.content(&*listed[0].1.node).is_ok(),
        listed[0].0 != "link" && listed[0].0 != "directory"
    );
    for ((_, one), (_, two)) in listed.iter().zip(share.list_plus(&*share.root)) {
        assert!(same(one, &two));
    }
}

#[test]
fn a_file_that_the_host_renamed_is_stale_until_it_is_found_again() {
    let share = plain(&["old"]);
    let entry = share.listed("old");
    fs::rename(share.host("old"), share.host("new")).unwrap();
    share.assert_stale(&*entry.node);
    assert!(share.try_lookup(&*share.root, "old").unwrap().is_none());
    // Found under its new name it is the file that it was.
    assert!(same(&entry, &share.lookup("new")));
    assert_eq!(share.content(&*entry.node).unwrap(), "old");
    // Once used it follows the file.
    fs::rename(share.host("new"), share.host("newer")).unwrap();
    assert_eq!(share.content(&*entry.node).unwrap(), "old");
}

#[test]
fn a_file_that_the_host_replaced_is_never_the_other_one() {
    for used_first in [false, true] {
        let share = plain(&["file"]);
        let old = share.listed("file");
        // ext4 gives the number of a removed file to the next one, which is younger.
        std::thread::sleep(Duration::from_millis(30));
        fs::remove_file(share.host("file")).unwrap();
        fs::write(share.host("file"), "another").unwrap();
        if used_first {
            share.assert_stale(&*old.node);
        }
        let new = share.lookup("file");
        assert!(!same(&old, &new));
        assert_ne!(old.node.identity(), new.node.identity());
        assert_eq!(share.content(&*new.node).unwrap(), "another");
        share.assert_stale(&*old.node);
        // The listing does not bring the old one back either.
        assert!(same(&new, &share.listed("file")));
        drop(old);
        assert!(same(&new, &share.lookup("file")));
    }
}

#[test]
fn a_listing_tells_the_file_that_took_over_a_name_and_a_number() {
    let share = plain(&["file"]);
    let old = share.listed("file");
    std::thread::sleep(Duration::from_millis(30));
    fs::remove_file(share.host("file")).unwrap();
    fs::write(share.host("file"), "another").unwrap();
    let new = share.listed("file");
    assert!(!same(&old, &new));
    share.assert_stale(&*old.node);
    assert_eq!(share.content(&*new.node).unwrap(), "another");
}

#[test]
fn a_file_that_became_something_else_is_stale() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let share = plain(&["link", "pipe", "directory", "swapped", "other"]);
    let nodes = ["link", "pipe", "directory", "swapped"].map(|child| share.listed(child).node);
    for child in ["link", "pipe", "directory"] {
        fs::remove_file(share.host(child)).unwrap();
    }
    symlink(outside.path().join("secret"), share.host("link")).unwrap();
    rustix::fs::mknodat(
        CWD,
        share.host("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::create_dir(share.host("directory")).unwrap();
    let (one, two) = (share.host("swapped"), share.host("other"));
    renameat_with(CWD, one, CWD, two, HostFlags::EXCHANGE).unwrap();
    for node in &nodes {
        share.assert_stale(&**node);
    }
    assert_eq!(
        share.content(&*share.lookup("swapped").node).unwrap(),
        "other"
    );
    assert_eq!(
        share.content(&*nodes[3]).unwrap_err().to_string(),
        Errno::STALE.to_string()
    );
    // Known again by its new name.
    assert!(Arc::ptr_eq(&nodes[3], &share.lookup("other").node));
    assert_eq!(share.content(&*nodes[3]).unwrap(), "swapped");
}

#[test]
fn what_the_guest_removes_before_it_was_used_can_still_be_used() {
    let share = plain(&["unlinked", "replaced", "replacing", "one", "two"]);
    fs::create_dir(share.host("directory")).unwrap();
    let node = |child: &str| share.listed(child).node;
    let (unlinked, replaced, replacing) = (node("unlinked"), node("replaced"), node("replacing"));
    let (one, two, directory) = (node("one"), node("two"), node("directory"));

    share.wait(share.root.unlink(name("unlinked"))).unwrap();
    assert_eq!(share.wait(unlinked.getattr()).unwrap().links, 0);
    assert_eq!(share.content(&*unlinked).unwrap(), "unlinked");

    share.rename("replacing", "replaced", RenameFlags::empty());
    assert_eq!(share.wait(replaced.getattr()).unwrap().links, 0);
    assert_eq!(share.content(&*replaced).unwrap(), "replaced");
    assert_eq!(share.content(&*replacing).unwrap(), "replacing");

    share.rename("one", "two", RenameFlags::EXCHANGE);
    assert_eq!(share.content(&*one).unwrap(), "one");
    assert_eq!(share.content(&*two).unwrap(), "two");

    share.wait(share.root.rmdir(name("directory"))).unwrap();
    let attributes = share.wait(directory.getattr()).unwrap();
    assert_eq!(attributes.kind, FileKind::Directory);
}

#[test]
fn a_file_that_was_opened_stays_open_whatever_becomes_of_its_name() {
    let share = plain(&["file"]);
    let node = share.listed("file").node;
    let opened = share.open(&*node, READ_WRITE).unwrap();
    share.wait(share.root.unlink(name("file"))).unwrap();
    fs::write(share.host("file"), "another").unwrap();
    share.write(&*opened.file, 4, b"!").unwrap();
    assert_eq!(share.read(&*opened.file, 0, 10).unwrap(), b"file!");
    assert_eq!(share.wait(opened.file.getattr()).unwrap().links, 0);
    assert_eq!(fs::read(share.host("file")).unwrap(), b"another");
}

#[test]
fn links_to_one_file_are_one_node_and_either_name_leads_to_it() {
    let share = plain(&["a"]);
    fs::hard_link(share.host("a"), share.host("b")).unwrap();
    for removed_by_host in [true, false] {
        let (a, b) = (share.listed("a"), share.listed("b"));
        assert!(same(&a, &b));
        // The name that it was found by last is the one that goes.
        assert!(same(&a, &share.lookup("b")));
        match removed_by_host {
            true => {
                fs::remove_file(share.host("b")).unwrap();
                share.assert_stale(&*a.node);
                assert!(same(&a, &share.lookup("a")));
            }
            false => share.wait(share.root.unlink(name("b"))).unwrap(),
        }
        assert_eq!(share.content(&*a.node).unwrap(), "a");
        assert_eq!(share.wait(a.node.getattr()).unwrap().links, 1);
        drop((a, b));
        fs::hard_link(share.host("a"), share.host("b")).unwrap();
    }
}

#[test]
fn a_name_is_kept_as_long_as_its_node_and_no_longer() {
    let share = Share::new(Options::default());
    fs::create_dir(share.host("directory")).unwrap();
    fs::write(share.host("directory/file"), "content").unwrap();
    let directory = share.lookup("directory").node;
    let with_directory = share.fs.descriptors_in_use();
    let mut listed = share.list_plus(&*directory);
    // The guest forgets the directory, and moves it.
    drop(directory);
    share.rename("directory", "moved", RenameFlags::empty());
    let file = listed.pop().unwrap().1.node;
    assert_eq!(share.content(&*file).unwrap(), "content");
    // Used, the file does without its directory.
    assert_eq!(share.fs.descriptors_in_use(), with_directory);
    drop(file);
    assert_eq!(share.fs.descriptors_in_use(), with_directory - 1);
}

#[test]
fn more_files_can_be_listed_than_there_are_descriptors() {
    let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for file_handles in [FileHandles::Prefer, FileHandles::Never] {
        let share = share_with(
            &names,
            Options {
                descriptor_budget: Some(12),
                file_handles,
                ..Options::default()
            },
        );
        let listed = share.list_plus(&*share.root);
        assert_eq!(listed.len(), 100);
        let mut refused = 0;
        for (child, entry) in &listed {
            assert_eq!(share.wait(entry.node.getattr()).unwrap().links, 1);
            match share.content(&*entry.node) {
                Ok(content) => assert_eq!(content, *child),
                Err(error) => {
                    assert!(error.is(Errno::NFILE), "{error}");
                    refused += 1;
                }
            }
        }
        // Where handles do not work, a file that was used keeps its descriptor.
        if file_handles == FileHandles::Never {
            assert!(refused > 80, "{refused}");
        }
        assert!(share.fs.descriptors_in_use() <= 12);
        // Names can be removed all the same.
        for child in &names {
            share.wait(share.root.unlink(name(child))).unwrap();
        }
        drop(listed);
        assert_eq!(share.fs.descriptors_in_use(), 1);
    }
}

#[test]
fn a_mount_below_is_listed_as_it_is_looked_up() {
    let share = Share::new(Options {
        announce_submounts: true,
        ..Options::default()
    });
    fs::create_dir(share.host("mount")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(errno) = rustix::mount::mount("tmpfs", share.host("mount"), "tmpfs", flags, None) {
        eprintln!("skipped: cannot mount: {errno}");
        return;
    }
    let listed = share.listed("mount");
    let looked_up = share.lookup("mount");
    rustix::mount::unmount(share.host("mount"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(listed.attributes.mount_root);
    assert!(same(&listed, &looked_up));
    assert_eq!(listed.attributes.inode, looked_up.attributes.inode);
}

#[test]
fn threads_use_rename_and_remove_what_was_listed() {
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let share = share_with(
        &names,
        Options {
            descriptor_budget: Some(64),
            ..Options::default()
        },
    );
    for _ in 0..5 {
        let listed = share.list_plus(&*share.root);
        std::thread::scope(|scope| {
            for part in 0..2 {
                let (share, listed) = (&share, &listed);
                scope.spawn(move || {
                    for (_, entry) in listed.iter().skip(part).step_by(2) {
                        match share.wait(entry.node.getattr()) {
                            Ok(attributes) => {
                                assert_eq!(attributes.inode, entry.attributes.inode);
                            }
                            Err(error) => {
                                assert!(error.is(Errno::NFILE), "{error}");
                            }
                        }
                    }
                });
            }
            // All names go round by one, while the nodes are used for the first time.
            scope.spawn(|| {
                for pair in names.chunks_exact(2) {
                    share.rename(pair[0], pair[1], RenameFlags::EXCHANGE);
                }
            });
        });
    }
    // Rotated five times in pairs: each file is under the other's name.
    for pair in names.chunks_exact(2) {
        assert_eq!(fs::read_to_string(share.host(pair[0])).unwrap(), pair[1]);
    }
}
