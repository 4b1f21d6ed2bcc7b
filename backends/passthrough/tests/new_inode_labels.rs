//! What is set on a new inode beside its owner: security labels and default ACLs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;

use common::*;
use vfsd_backend::{
    Errno, FileKind, LinkTarget, NewDevice, NewInode, OpenFlags, SecurityContext, XattrFlags,
};
use vfsd_passthrough::Options;

fn labels(rules: &str) -> Options {
    Options {
        security_labels: true,
        xattr_map: Some(rules.parse().unwrap()),
        ..Options::default()
    }
}

#[test]
fn new_inodes_have_their_labels() {
    if !is_root() {
        return;
    }
    let share = Share::new(labels(":map::trusted.virtiofs.:"));
    let label = SecurityContext {
        name: xattr_name("security.selinux"),
        value: b"label",
    };
    let inode = NewInode {
        security: Some(label),
        ..NEW_FILE
    };
    let root = &share.root;
    let fifo = NewDevice {
        kind: FileKind::Fifo,
        device: vfsd_backend::Device::default(),
        inode,
    };
    let target = LinkTarget::new(b"x").unwrap();
    let nobody = caller(1111, 2222);
    let exclusive = OpenFlags::EXCLUSIVE;
    let made = [
        share
            .wait(root.create(nobody, name("file"), READ_WRITE | exclusive, inode))
            .unwrap()
            .entry,
        share
            .wait(root.create(nobody, name("read only"), READ | exclusive, inode))
            .unwrap()
            .entry,
        share
            .wait(root.tmpfile(nobody, READ_WRITE, inode))
            .unwrap()
            .entry,
        share
            .wait(root.mkdir(nobody, name("directory"), inode))
            .unwrap(),
        share.wait(root.mknod(nobody, name("fifo"), fifo)).unwrap(),
        share
            .wait(root.symlink(nobody, name("link"), target, inode))
            .unwrap(),
    ];
    for entry in made {
        let own = share.wait(entry.node.getxattr(label.name)).unwrap();
        assert_eq!(own, b"label", "{:?}", entry.attributes.kind);
        assert_eq!(entry.attributes.uid, 1111);
    }
    assert_eq!(share.lookup("file").attributes.links, 1);
    let again = root.create(nobody, name("file"), READ_WRITE | exclusive, inode);
    assert_eq!(errno(share.wait(again)), Errno::EXIST);
}

#[test]
fn what_cannot_be_labelled_is_not_there_and_nothing_leaks() {
    let share = Share::new(labels(":bad:all:::"));
    let inode = NewInode {
        security: Some(SecurityContext {
            name: xattr_name("security.selinux"),
            value: b"label",
        }),
        ..NEW_FILE
    };
    let root = &share.root;
    let fifo = NewDevice {
        kind: FileKind::Fifo,
        device: vfsd_backend::Device::default(),
        inode,
    };
    let target = LinkTarget::new(b"x").unwrap();
    let descriptors = share.fs.descriptors_in_use();
    for _ in 0..100 {
        let nobody = root_caller();
        let flags = OpenFlags::EXCLUSIVE;
        let results = [
            share
                .wait(root.create(nobody, name("a"), READ_WRITE | flags, inode))
                .map(drop),
            share
                .wait(root.create(nobody, name("b"), READ | flags, inode))
                .map(drop),
            share
                .wait(root.tmpfile(nobody, READ_WRITE, inode))
                .map(drop),
            share.wait(root.mkdir(nobody, name("c"), inode)).map(drop),
            share.wait(root.mknod(nobody, name("d"), fifo)).map(drop),
            share
                .wait(root.symlink(nobody, name("e"), target, inode))
                .map(drop),
        ];
        for result in results {
            assert_eq!(errno(result), Errno::PERM);
        }
    }
    assert_eq!(fs::read_dir(share.host_root()).unwrap().count(), 0);
    assert_eq!(share.fs.descriptors_in_use(), descriptors);
}

#[test]
fn a_default_acl_stands_in_for_the_umask() {
    let share = Share::new(Options {
        posix_acl: true,
        ..Options::default()
    });
    let inode = NewInode {
        permissions: 0o666,
        umask: 0o077,
        security: None,
    };
    let directory = share.mkdir("directory").node;
    let make = |child| {
        let answer = directory.create(root_caller(), name(child), READ_WRITE, inode);
        share.wait(answer).unwrap().entry.attributes.permissions
    };
    assert_eq!(make("masked"), 0o600);
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0,
        255, 255, 255, 255,
    ];
    let name = xattr_name("system.posix_acl_default");
    share
        .wait(directory.setxattr(name, &acl, XattrFlags::empty()))
        .unwrap();
    assert_eq!(make("by the acl"), 0o644);
}
