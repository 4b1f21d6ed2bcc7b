//! Files and directories as the host has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

use common::*;
use vfsd_backend::{
    AttributeChanges, CopyRange, Errno, ExtentSource, FallocateMode, FallocateRequest, FileKind,
    LinkTarget, NewDevice, OpenFlags, Rename, RenameFlags, SeekFrom, SetTime, Timestamp,
    WriteRequest,
};
use vfsd_passthrough::{Options, Passthrough};

#[test]
fn what_the_guest_writes_is_on_the_host_and_the_other_way_round() {
    let share = Share::new(Options::default());
    let created = share.create("file");
    let file = &*created.opened.file;
    assert_eq!(share.write(file, 0, b"hello").unwrap(), 5);
    assert_eq!(fs::read(share.host("file")).unwrap(), b"hello");
    fs::write(share.host("file"), b"from the host").unwrap();
    assert_eq!(share.read(file, 5, 100).unwrap(), b"the host");
    let attributes = share.wait(file.getattr()).unwrap();
    let host = fs::metadata(share.host("file")).unwrap();
    assert_eq!(attributes.inode, host.ino());
    assert_eq!(attributes.size, 13);
    assert!(attributes.born.is_some());
}

#[test]
fn a_read_ends_at_the_end_of_the_file_only() {
    let share = Share::new(Options::default());
    for size in [0, 1, 4095, 4096, 4097, 8192, 300_000] {
        let content: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        fs::write(share.host("file"), &content).unwrap();
        let entry = share.lookup("file");
        let opened = share.open(&*entry.node, READ).unwrap();
        assert_eq!(share.read(&*opened.file, 0, 1 << 20).unwrap(), content);
    }
}

#[test]
fn the_content_of_a_file_is_copied_between_shares_by_its_extent() {
    let (lower, upper) = (
        Share::new(Options::default()),
        Share::new(Options::default()),
    );
    let content: Vec<u8> = (0..300_000).map(|byte| byte as u8).collect();
    fs::write(lower.host("file"), &content).unwrap();
    let entry = lower.lookup("file");
    let opened = lower.open(&*entry.node, READ).unwrap();
    let extent = |offset, length| lower.wait(opened.file.extent(offset, length)).unwrap();
    assert!(extent(300_000, 1).is_none(), "behind the end");
    let extent = extent(4096, u64::MAX >> 1).unwrap();
    assert_eq!((extent.offset, extent.length), (4096, 300_000 - 4096));
    let target = upper.create("copy").opened.file;
    let mut source = ExtentSource::new(extent);
    let request = WriteRequest {
        offset: 4096,
        kill_privileges: false,
        cached: false,
    };
    let copied = upper.wait(target.write(request, &mut source)).unwrap();
    assert_eq!(copied, 300_000 - 4096);
    let copy = fs::read(upper.host("copy")).unwrap();
    assert!(copy[..4096].iter().all(|&byte| byte == 0), "a hole");
    assert_eq!(copy[4096..], content[4096..]);
    let write_only = lower.open(&*entry.node, OpenFlags::WRITE).unwrap();
    let none = lower.wait(write_only.file.extent(0, 10)).unwrap();
    assert!(none.is_none(), "what may not be read");
}

#[test]
fn one_host_inode_is_one_node() {
    let share = Share::new(Options::default());
    let created = share.create("file");
    let again = share.lookup("file");
    assert!(Arc::ptr_eq(&created.entry.node, &again.node));
    let link = share
        .wait(share.root.link(&*again.node, name("link")))
        .unwrap();
    assert!(Arc::ptr_eq(&link.node, &again.node));
    assert_eq!(link.attributes.links, 2);
    assert!(Arc::ptr_eq(&share.lookup("link").node, &again.node));
    // Also when the name is known already.
    assert!(Arc::ptr_eq(&share.lookup("link").node, &again.node));
}

#[test]
fn a_name_that_is_replaced_is_another_node() {
    let share = Share::new(Options::default());
    let old = share.create("file").entry;
    share.lookup("file");
    fs::write(share.host("new"), b"new").unwrap();
    fs::rename(share.host("new"), share.host("file")).unwrap();
    let new = share.lookup("file");
    assert_ne!(old.node.identity(), new.node.identity());
    assert_eq!(new.attributes.size, 3);
}

#[test]
fn a_missing_name_is_missing_the_first_and_the_second_time() {
    let share = Share::new(Options::default());
    assert!(share.try_lookup(&*share.root, "none").unwrap().is_none());
    share.create("none");
    share.lookup("none");
    share.wait(share.root.unlink(name("none"))).unwrap();
    assert!(share.try_lookup(&*share.root, "none").unwrap().is_none());
    let file = share.create("file").entry;
    assert_eq!(errno(share.try_lookup(&*file.node, "x")), Errno::NOTDIR);
}

#[test]
fn create_without_exclusive_opens_what_is_there() {
    let share = Share::new(Options::default());
    fs::write(share.host("file"), b"content").unwrap();
    fs::create_dir(share.host("directory")).unwrap();
    let create = |child, flags| {
        share.wait(
            share
                .root
                .create(root_caller(), name(child), flags, NEW_FILE),
        )
    };
    let created = create("file", READ_WRITE).unwrap();
    assert_eq!(created.entry.attributes.size, 7);
    let exclusive = READ_WRITE | OpenFlags::EXCLUSIVE;
    assert_eq!(errno(create("file", exclusive)), Errno::EXIST);
    let truncated = create("file", READ_WRITE | OpenFlags::TRUNCATE).unwrap();
    assert_eq!(truncated.entry.attributes.size, 0);
    assert_eq!(errno(create("directory", READ_WRITE)), Errno::ISDIR);
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let share = Share::new(Options::default());
    let mut expected: Vec<String> = (0..500).map(|number| format!("file{number:04}")).collect();
    for child in &expected {
        fs::write(share.host(child), b"").unwrap();
    }
    expected.extend([".".to_owned(), "..".to_owned()]);
    expected.sort();
    let directory = share.wait(share.root.opendir()).unwrap();
    for room in [1, 7, 1000] {
        let mut listed = Vec::new();
        let mut cookie = 0;
        loop {
            let entries = share.list(&*directory, cookie, room).unwrap();
            let Some((_, next)) = entries.last() else {
                break;
            };
            cookie = *next;
            listed.extend(entries.into_iter().map(|(name, _)| name));
        }
        listed.sort();
        assert_eq!(listed, expected);
    }
    // From a cookie in the middle, after another place was read.
    let all = share.list(&*directory, 0, 1000).unwrap();
    let from = |index: usize| share.list(&*directory, all[index].1, 3).unwrap();
    assert_eq!(from(400)[0], all[401]);
    assert_eq!(from(10)[0], all[11]);
}

#[test]
fn forged_cookies_do_no_harm() {
    let share = Share::new(Options::default());
    share.create("file");
    let directory = share.wait(share.root.opendir()).unwrap();
    for cookie in [1, 4097, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        match share.list(&*directory, cookie, 1000) {
            Ok(entries) => assert!(entries.len() <= 3),
            Err(error) => assert!(error.is(Errno::INVAL)),
        }
    }
    assert_eq!(share.list(&*directory, 0, 1000).unwrap().len(), 3);
}

#[test]
fn a_removed_directory_is_not_listed() {
    let share = Share::new(Options::default());
    let entry = share.mkdir("directory");
    let directory = share.wait(entry.node.opendir()).unwrap();
    share.wait(share.root.rmdir(name("directory"))).unwrap();
    // As getdents(2) has it; the C library makes it the end.
    assert_eq!(errno(share.list(&*directory, 0, 10)), Errno::NOENT);
}

#[test]
fn attributes_change_through_the_node_and_through_the_file() {
    let share = Share::new(Options::default());
    let created = share.create("file");
    let time = Timestamp::new(-5, 7).unwrap();
    let changes = AttributeChanges {
        permissions: Some(0o4711),
        size: Some(10_000),
        accessed: Some(SetTime::At(time)),
        modified: Some(SetTime::At(time)),
        ..AttributeChanges::default()
    };
    for round in 0..2 {
        let attributes = match round {
            0 => share.wait(created.entry.node.setattr(changes)).unwrap(),
            _ => share.wait(created.opened.file.setattr(changes)).unwrap(),
        };
        assert_eq!(attributes.permissions, 0o4711);
        assert_eq!(attributes.size, 10_000);
        assert_eq!((attributes.accessed, attributes.modified), (time, time));
        share
            .wait(created.entry.node.setattr(AttributeChanges {
                permissions: Some(0o600),
                size: Some(0),
                modified: Some(SetTime::Now),
                accessed: Some(SetTime::Now),
                ..AttributeChanges::default()
            }))
            .unwrap();
    }
    let host = fs::metadata(share.host("file")).unwrap();
    assert!(host.mtime() > 1_000_000_000);
    let directory = share.mkdir("directory");
    let size = AttributeChanges {
        size: Some(0),
        ..AttributeChanges::default()
    };
    let refused = share.wait(directory.node.setattr(size));
    assert_eq!(errno(refused), Errno::ISDIR);
}

#[test]
fn a_symlink_is_never_followed() {
    let share = Share::new(Options::default());
    fs::write(share.host("target"), b"secret").unwrap();
    let inode = NEW_FILE;
    let target = LinkTarget::new(b"target").unwrap();
    let link = share
        .wait(
            share
                .root
                .symlink(root_caller(), name("link"), target, inode),
        )
        .unwrap();
    assert_eq!(link.attributes.kind, FileKind::Symlink);
    assert_eq!(share.wait(link.node.readlink()).unwrap(), b"target");
    assert_eq!(share.lookup("link").node.kind(), FileKind::Symlink);
    assert_eq!(errno(share.open(&*link.node, READ)), Errno::LOOP);
    if is_root() {
        let changes = AttributeChanges {
            uid: Some(99),
            modified: Some(SetTime::At(Timestamp::default())),
            ..AttributeChanges::default()
        };
        let changed = share.wait(link.node.setattr(changes)).unwrap();
        assert_eq!((changed.uid, changed.modified.seconds), (99, 0));
        let untouched = fs::metadata(share.host("target")).unwrap();
        assert_ne!((untouched.uid(), untouched.mtime()), (99, 0));
    }
    symlink("/etc", share.host("etc")).unwrap();
    let etc = share.lookup("etc");
    assert_eq!(errno(share.try_lookup(&*etc.node, "passwd")), Errno::NOTDIR);
    assert_eq!(errno(share.wait(etc.node.opendir())), Errno::NOTDIR);
}

#[test]
fn renames_keep_their_flags() {
    let share = Share::new(Options::default());
    fs::write(share.host("a"), b"a").unwrap();
    fs::write(share.host("b"), b"bb").unwrap();
    let directory = share.mkdir("directory");
    let rename = |from, to, flags| {
        let rename = Rename {
            name: name(from),
            new_parent: &*share.root,
            new_name: name(to),
            flags,
        };
        share.wait(share.root.rename(root_caller(), rename))
    };
    assert_eq!(
        errno(rename("a", "b", RenameFlags::NOREPLACE)),
        Errno::EXIST
    );
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(share.host("a")).unwrap(), b"bb");
    rename("a", "b", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(share.host("b")).unwrap(), b"bb");
    let into = Rename {
        name: name("b"),
        new_parent: &*directory.node,
        new_name: name("c"),
        flags: RenameFlags::empty(),
    };
    share.wait(share.root.rename(root_caller(), into)).unwrap();
    assert_eq!(fs::read(share.host("directory/c")).unwrap(), b"bb");
    fs::write(share.host("x"), b"x").unwrap();
    rename("x", "y", RenameFlags::WHITEOUT).unwrap();
    let whiteout = share.lookup("x").attributes;
    assert_eq!(whiteout.kind, FileKind::CharDevice);
    assert_eq!((whiteout.device.major, whiteout.device.minor), (0, 0));
}

#[test]
fn data_is_copied_found_and_punched_on_the_host() {
    let share = Share::new(Options::default());
    let from = share.create("from").opened.file;
    let to = share.create("to").opened.file;
    share.write(&*from, 0, &[7; 100_000]).unwrap();
    let copy = CopyRange {
        offset: 10,
        target: &*to,
        target_offset: 1000,
        length: 200_000,
        kill_privileges: false,
    };
    assert_eq!(share.wait(from.copy_range(copy)).unwrap(), 99_990);
    let copied = fs::read(share.host("to")).unwrap();
    assert_eq!((copied.len(), copied[999], copied[1000]), (100_990, 0, 7));

    let hole = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    let punched = from.fallocate(FallocateRequest {
        mode: hole,
        offset: 8192,
        length: 8192,
        kill_privileges: false,
    });
    share.wait(punched).unwrap();
    assert_eq!(share.wait(from.seek(SeekFrom::Hole, 0)).unwrap(), 8192);
    assert_eq!(share.wait(from.seek(SeekFrom::Data, 8192)).unwrap(), 16384);
    assert_eq!(
        errno(share.wait(from.seek(SeekFrom::Data, 100_000))),
        Errno::NXIO
    );
    share.wait(from.fsync(true)).unwrap();
    share.wait(from.fsync(false)).unwrap();
    share.wait(share.root.syncfs()).unwrap();
    let directory = share.wait(share.root.opendir()).unwrap();
    share.wait(directory.fsync(false)).unwrap();
    assert!(share.wait(share.root.statfs()).unwrap().blocks > 0);
}

#[test]
fn an_unnamed_file_gets_a_name_by_link_unless_it_is_exclusive() {
    let share = Share::new(Options::default());
    let make = |flags| share.wait(share.root.tmpfile(root_caller(), flags, NEW_FILE));
    let created = make(READ_WRITE).unwrap();
    assert_eq!(created.entry.attributes.links, 0);
    share.write(&*created.opened.file, 0, b"late").unwrap();
    let linked = share
        .wait(share.root.link(&*created.entry.node, name("named")))
        .unwrap();
    assert_eq!(linked.attributes.links, 1);
    assert_eq!(fs::read(share.host("named")).unwrap(), b"late");
    let never = make(READ_WRITE | OpenFlags::EXCLUSIVE).unwrap();
    let refused = share.wait(share.root.link(&*never.entry.node, name("no")));
    assert_eq!(errno(refused), Errno::NOENT);
}

#[test]
fn special_files_are_made_but_never_opened() {
    let share = Share::new(Options::default());
    let make = |child: &str, kind| {
        let new = NewDevice {
            kind,
            device: vfsd_backend::Device { major: 1, minor: 3 },
            inode: NEW_FILE,
        };
        share.wait(share.root.mknod(root_caller(), name(child), new))
    };
    let mut kinds = vec![FileKind::Fifo, FileKind::Socket];
    if is_root() {
        kinds.extend([FileKind::CharDevice, FileKind::BlockDevice]);
    }
    for kind in kinds {
        let entry = make(&format!("{kind:?}"), kind).unwrap();
        assert_eq!(entry.attributes.kind, kind);
        assert_eq!(errno(share.open(&*entry.node, READ)), Errno::BADF);
        assert_eq!(errno(share.wait(entry.node.getflags())), Errno::NOTTY);
        assert_eq!(errno(share.wait(entry.node.syncfs())), Errno::BADF);
        let opened = share.wait(share.root.create(
            root_caller(),
            name(&format!("{kind:?}")),
            READ_WRITE,
            NEW_FILE,
        ));
        assert_eq!(errno(opened), Errno::BADF);
    }
    assert!(make("regular", FileKind::Regular).is_ok());
    assert_eq!(errno(make("directory", FileKind::Directory)), Errno::INVAL);
}

#[test]
fn device_nodes_can_be_refused_and_whiteouts_cannot() {
    let share = Share::new(Options {
        device_nodes: false,
        ..Options::default()
    });
    let make = |child, kind, minor| {
        let new = NewDevice {
            kind,
            device: vfsd_backend::Device { major: 0, minor },
            inode: NEW_FILE,
        };
        share.wait(share.root.mknod(root_caller(), name(child), new))
    };
    assert_eq!(errno(make("a", FileKind::CharDevice, 1)), Errno::PERM);
    assert_eq!(errno(make("b", FileKind::BlockDevice, 0)), Errno::PERM);
    assert!(make("c", FileKind::CharDevice, 0).is_ok());
}

#[test]
fn a_single_file_can_be_shared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"alone").unwrap();
    let share = Share::of(directory, Options::default());
    let fs = Passthrough::open(&path, Options::default()).unwrap();
    let root = vfsd_backend::Backend::root(&fs);
    assert_eq!(root.kind(), FileKind::Regular);
    let opened = share.open(&*root, READ).unwrap();
    assert_eq!(share.read(&*opened.file, 0, 10).unwrap(), b"alone");
    assert_eq!(errno(share.try_lookup(&*root, "x")), Errno::NOTDIR);
    let refused = Passthrough::open("/dev/null", Options::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "only a directory or a regular file can be shared, not a CharDevice"
    );
}

#[test]
fn inode_flags_are_the_hosts() {
    let share = Share::new(Options::default());
    let node = share.create("file").entry.node;
    let Ok(flags) = share.wait(node.getflags()) else {
        eprintln!("skipped: the host's file system has no inode flags");
        return;
    };
    // FS_NODUMP_FL and FS_XFLAG_NODUMP
    share.wait(node.setflags(flags | 0x40)).unwrap();
    assert_eq!(share.wait(node.getflags()).unwrap() & 0x40, 0x40);
    let mut extended = share.wait(node.getfsxattr()).unwrap();
    assert_eq!(extended.xflags & 0x80, 0x80);
    extended.xflags &= !0x80;
    share.wait(node.setfsxattr(extended)).unwrap();
    assert_eq!(share.wait(node.getflags()).unwrap() & 0x40, 0);
}

#[test]
fn written_bytes_are_read_back_through_a_write_only_open_with_writeback() {
    let share = Share::new(Options {
        writeback: true,
        ..Options::default()
    });
    let create = share.root.create(
        root_caller(),
        name("new"),
        OpenFlags::WRITE | OpenFlags::APPEND,
        NEW_FILE,
    );
    let created = share.wait(create).unwrap();
    let opened = share.open(&*created.entry.node, OpenFlags::WRITE).unwrap();
    for file in [&*created.opened.file, &*opened.file] {
        share.write(file, 0, b"hello").unwrap();
        share.write(file, 0, b"HE").unwrap();
        assert_eq!(share.read(file, 0, 10).unwrap(), b"HEllo");
    }
}

#[test]
fn pages_of_a_file_that_is_appended_to_go_where_they_belong() {
    let share = Share::new(Options::default());
    fs::write(share.host("log"), b"0123456789").unwrap();
    let node = share.lookup("log").node;
    let file = share
        .open(&*node, READ_WRITE | OpenFlags::APPEND)
        .unwrap()
        .file;
    let before = share.fs.descriptors_in_use();
    assert_eq!(share.write(&*file, 0, b"end").unwrap(), 3);
    assert_eq!(share.fs.descriptors_in_use(), before);
    assert_eq!(share.write_as(&*file, 2, b"page", true).unwrap(), 4);
    assert_eq!(share.write(&*file, 0, b"!").unwrap(), 1);
    assert_eq!(share.write_as(&*file, 0, b"P", true).unwrap(), 1);
    assert_eq!(fs::read(share.host("log")).unwrap(), b"P1page6789end!");
}

#[test]
fn mode_bits_of_a_new_file_are_those_asked_for() {
    let share = Share::new(Options::default());
    // The mask of the daemon has no part in it, and stays what it is for other threads.
    let own = rustix::fs::Mode::from_raw_mode(0o077);
    rustix::process::umask(own);
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        asked.recv().unwrap();
        rustix::process::umask(own)
    });
    for (number, umask) in [0, 0o022, 0, 0o077].into_iter().enumerate() {
        let new = vfsd_backend::NewInode {
            permissions: 0o666,
            umask,
            security: None,
        };
        let child = number.to_string();
        let answer = share
            .root
            .create(root_caller(), name(&child), READ_WRITE, new);
        drop(share.wait(answer).unwrap());
        let mode = fs::metadata(share.host(&child)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o666 & !umask);
    }
    ask.send(()).unwrap();
    assert_eq!(other.join().unwrap(), own);
}
