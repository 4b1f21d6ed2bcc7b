//! Files that change under us, mounts below the share, and limits of the process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vfsd_backend::{
    AttributeChanges, Errno, FileKind, Lookup, OpenFlags, Rename, RenameFlags, XattrFlags,
};
use vfsd_passthrough::{FileHandles, Options};

#[test]
fn an_open_file_that_becomes_a_symlink_stays_the_old_file() {
    for file_handles in [FileHandles::Never, FileHandles::Prefer] {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        fs::write(&target, b"target").unwrap();
        let before = fs::metadata(&target).unwrap();
        let share = Share::new(Options {
            file_handles,
            ..Options::default()
        });
        let created = share.create("file");
        share.write(&*created.opened.file, 0, b"old").unwrap();
        fs::remove_file(share.host("file")).unwrap();
        symlink(&target, share.host("file")).unwrap();
        let node = &*created.entry.node;

        assert_eq!(share.wait(node.getattr()).unwrap().size, 3);
        let opened = share.open(node, READ_WRITE).unwrap();
        assert_eq!(share.read(&*opened.file, 0, 10).unwrap(), b"old");
        let changes = AttributeChanges {
            permissions: Some(0o600),
            size: Some(1),
            ..AttributeChanges::default()
        };
        share.wait(node.setattr(changes)).unwrap();
        share
            .wait(node.setxattr(xattr_name("user.a"), b"1", XattrFlags::empty()))
            .unwrap();
        // The name is a link now, and what it points to is out of reach.
        let link = share.lookup("file");
        assert_eq!(link.attributes.kind, FileKind::Symlink);
        assert_eq!(errno(share.open(&*link.node, READ)), Errno::LOOP);

        assert_eq!(fs::read(&target).unwrap(), b"target");
        let after = fs::metadata(&target).unwrap();
        assert_eq!(
            (after.mode(), after.ctime_nsec()),
            (before.mode(), before.ctime_nsec())
        );
    }
}

#[test]
fn a_directory_that_becomes_a_symlink_leads_nowhere_else() {
    let share = Share::new(Options::default());
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"").unwrap();
    let directory = share.mkdir("directory").node;
    fs::rename(share.host("directory"), share.host("moved")).unwrap();
    symlink(outside.path(), share.host("directory")).unwrap();
    assert!(share.try_lookup(&*directory, "secret").unwrap().is_none());
    let create = directory.create(root_caller(), name("new"), READ_WRITE, NEW_FILE);
    share.wait(create).unwrap();
    assert!(share.host("moved/new").exists());
    assert!(!outside.path().join("new").exists());
}

#[test]
fn a_file_that_becomes_a_pipe_is_not_opened() {
    let share = Share::new(Options::default());
    share.lookup_after_create("file");
    fs::remove_file(share.host("file")).unwrap();
    let made = Command::new("mkfifo").arg(share.host("file")).status();
    assert!(made.unwrap().success());
    let open = |flags| {
        let answer = share
            .root
            .create(root_caller(), name("file"), flags, NEW_FILE);
        share.wait(answer)
    };
    // None of these waits for somebody at the other end.
    assert_eq!(errno(open(READ)), Errno::BADF);
    assert_eq!(errno(open(READ_WRITE | OpenFlags::TRUNCATE)), Errno::BADF);
    let pipe = share.lookup("file").node;
    assert_eq!(pipe.kind(), FileKind::Fifo);
    assert_eq!(errno(share.open(&*pipe, READ)), Errno::BADF);
    assert_eq!(errno(share.wait(pipe.opendir())), Errno::NOTDIR);
    let size = AttributeChanges {
        size: Some(0),
        ..AttributeChanges::default()
    };
    assert_eq!(errno(share.wait(pipe.setattr(size))), Errno::INVAL);
    share.wait(pipe.getattr()).unwrap();
}

impl Share {
    fn lookup_after_create(&self, child: &str) {
        drop(self.create(child));
        drop(self.lookup(child));
    }
}

#[test]
fn a_removed_file_that_is_not_open_is_the_old_one_or_stale() {
    let share = Share::new(Options {
        descriptor_budget: Some(16),
        ..Options::default()
    });
    let nodes: Vec<_> = (0..60)
        .filter_map(|number| {
            let child = number.to_string();
            fs::write(share.host(&child), &child).unwrap();
            share.try_lookup(&*share.root, &child).ok().flatten()
        })
        .collect();
    for number in 0..60 {
        fs::remove_file(share.host(&number.to_string())).unwrap();
        symlink("/etc/passwd", share.host(&number.to_string())).unwrap();
    }
    for entry in nodes {
        match share.open(&*entry.node, READ) {
            Ok(opened) => {
                let content = share.read(&*opened.file, 0, 100).unwrap();
                assert_eq!(content.len() as u64, entry.attributes.size);
            }
            Err(error) => assert!(error.is(Errno::STALE) || error.is(Errno::NFILE), "{error}"),
        }
    }
}

/// A file system mounted below a share; unmounted at the end.
struct Submount(PathBuf);

impl Submount {
    /// None where the test may not mount.
    fn tmpfs(path: PathBuf) -> Option<Self> {
        let mounted = mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None);
        if let Err(errno) = mounted {
            eprintln!("skipped: cannot mount: {errno}");
            return None;
        }
        Some(Self(path))
    }
}

impl Drop for Submount {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_mount_below_the_share_is_announced_and_is_a_file_system_of_its_own() {
    for (announce_submounts, file_handles) in [
        (true, FileHandles::Prefer),
        (true, FileHandles::Mandatory),
        (false, FileHandles::Never),
    ] {
        let share = Share::new(Options {
            announce_submounts,
            file_handles,
            descriptor_budget: Some(40),
            ..Options::default()
        });
        fs::create_dir(share.host("mount")).unwrap();
        fs::create_dir(share.host("plain")).unwrap();
        let Some(_mounted) = Submount::tmpfs(share.host("mount")) else {
            return;
        };
        let top = share.lookup("mount");
        assert_eq!(top.attributes.mount_root, announce_submounts);
        let again = share.wait(top.node.getattr()).unwrap();
        assert_eq!(again.mount_root, announce_submounts);
        assert!(share.lookup("mount").attributes.mount_root == announce_submounts);
        assert!(!share.lookup("plain").attributes.mount_root);
        assert!(!share.wait(share.root.getattr()).unwrap().mount_root);
        assert_ne!(top.node.identity().device, share.root.identity().device);

        let made = top.node.mkdir(root_caller(), name("directory"), NEW_FILE);
        let below = share.wait(made).unwrap();
        assert!(!below.attributes.mount_root);
        let file = share.create("file").entry.node;
        let link = top.node.link(&*file, name("link"));
        assert_eq!(errno(share.wait(link)), Errno::XDEV);
        let rename = Rename {
            name: name("file"),
            new_parent: &*top.node,
            new_name: name("file"),
            flags: RenameFlags::empty(),
        };
        assert_eq!(
            errno(share.wait(share.root.rename(root_caller(), rename))),
            Errno::XDEV
        );
        assert_ne!(
            share.wait(top.node.statfs()).unwrap(),
            share.wait(share.root.statfs()).unwrap()
        );
        share.wait(top.node.syncfs()).unwrap();

        if file_handles == FileHandles::Never {
            continue;
        }
        // Nodes of the mount, too, outlive their descriptors.
        let nodes: Vec<_> = (0..100)
            .map(|number| {
                let child = number.to_string();
                fs::write(share.host("mount").join(&child), b"").unwrap();
                share.try_lookup(&*top.node, &child).unwrap().unwrap().node
            })
            .collect();
        assert!(share.fs.descriptors_in_use() <= 40);
        for node in nodes {
            let inode = share.wait(node.getattr()).unwrap().inode;
            assert_eq!(inode, node.identity().inode);
        }
    }
}

#[test]
fn the_root_of_a_mount_has_a_number_that_no_directory_above_has() {
    for announce_submounts in [true, false] {
        let share = Share::new(Options {
            announce_submounts,
            ..Options::default()
        });
        fs::create_dir(share.host("outer")).unwrap();
        let Some(_outer) = Submount::tmpfs(share.host("outer")) else {
            return;
        };
        fs::create_dir(share.host("outer/inner")).unwrap();
        let Some(_inner) = Submount::tmpfs(share.host("outer/inner")) else {
            return;
        };
        let outer = share.lookup("outer");
        let inner = share.try_lookup(&*outer.node, "inner").unwrap().unwrap();
        let root = share.wait(share.root.getattr()).unwrap().inode;
        let numbers = [root, outer.attributes.inode, inner.attributes.inode];
        assert_ne!(numbers[1], numbers[2], "both are 1 on the host");
        assert!(!numbers[1..].contains(&root));
        for entry in [&outer, &inner] {
            let again = share.wait(entry.node.getattr()).unwrap().inode;
            assert_eq!(again, entry.attributes.inode);
            let changed = share.wait(entry.node.setattr(AttributeChanges {
                permissions: Some(0o700),
                ..AttributeChanges::default()
            }));
            assert_eq!(changed.unwrap().inode, entry.attributes.inode);
        }
    }
}

#[test]
fn open_files_beyond_the_budget_are_enfile_and_closing_works() {
    let share = Share::new(Options {
        descriptor_budget: Some(50),
        ..Options::default()
    });
    let node = share.create("file").entry.node;
    let before = share.open_descriptors();
    let mut files = Vec::new();
    let refused = loop {
        match share.open(&*node, READ_WRITE) {
            Ok(opened) => files.push(opened.file),
            Err(error) => break error,
        }
    };
    assert!(refused.is(Errno::NFILE));
    assert!(files.len() >= 47, "{}", files.len());
    assert_eq!(
        errno(
            share.wait(
                share
                    .root
                    .create(root_caller(), name("more"), READ_WRITE, NEW_FILE)
            )
        ),
        Errno::NFILE
    );
    assert!(!share.host("more").exists());
    // Everything that is open goes on working.
    for file in &files {
        share.write(&**file, 0, b"x").unwrap();
        share.wait(file.flush(vfsd_backend::LockOwner(1))).unwrap();
    }
    assert!(share.open_descriptors() >= before + 40);
    drop(files);
    assert!(share.open(&*node, READ).is_ok());
    assert_eq!(share.open_descriptors(), before);
}

#[test]
fn files_without_number_are_looked_up_and_forgotten() {
    let share = Share::new(Options::default());
    fs::write(share.host("0"), b"").unwrap();
    let at_start = share.fs.descriptors_in_use();
    for round in 0..5 {
        let mut nodes = Vec::new();
        for number in 0..4_000 {
            let child = number.to_string();
            if round == 0 && number > 0 {
                fs::write(share.host(&child), b"").unwrap();
            }
            match share.runtime.block_on(share.root.lookup(name(&child))) {
                Ok(Lookup::Found(entry)) => nodes.push(entry.node),
                Ok(Lookup::Missing { .. }) => panic!("{child} is missing"),
                Err(error) if error.is(Errno::NFILE) => break,
                Err(error) => panic!("{child}: {error}"),
            }
        }
        drop(nodes);
        assert_eq!(share.fs.descriptors_in_use(), at_start);
    }
}
