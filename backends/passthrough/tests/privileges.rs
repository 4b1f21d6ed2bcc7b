//! Who files belong to, and whose privileges a call has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::Arc;

use common::*;
use rustix::process::{Gid, Uid};
use vfsd_backend::{
    AttributeChanges, Attributes, Caller, Errno, FileKind, FsXattr, Identity, LinkTarget,
    NewDevice, NewInode, Rename, RenameFlags, XattrFlags,
};
use vfsd_passthrough::{Options, Passthrough};

/// How many threads of this process are in a supplementary group.
fn threads_in_group(group: u32) -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter(|status| {
            let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
            groups.is_some_and(|groups| {
                groups
                    .split_whitespace()
                    .any(|word| word == group.to_string())
            })
        })
        .count()
}

#[test]
fn whatever_is_made_belongs_to_the_caller() {
    if !is_root() {
        return;
    }
    let share = Share::new(Options::default());
    let caller = Caller {
        identity: Some(Identity {
            uid: 1111,
            gid: 2222,
            supplementary: Some(3333),
        }),
        pid: 1,
    };
    let fifo = NewDevice {
        kind: FileKind::Fifo,
        device: vfsd_backend::Device::default(),
        inode: NEW_FILE,
    };
    let target = LinkTarget::new(b"x").unwrap();
    let root = &share.root;
    let made: [Attributes; 5] = [
        share
            .wait(root.create(caller, name("file"), READ_WRITE, NEW_FILE))
            .unwrap()
            .entry
            .attributes,
        share
            .wait(root.tmpfile(caller, READ_WRITE, NEW_FILE))
            .unwrap()
            .entry
            .attributes,
        share
            .wait(root.mkdir(caller, name("directory"), NEW_FILE))
            .unwrap()
            .attributes,
        share
            .wait(root.mknod(caller, name("fifo"), fifo))
            .unwrap()
            .attributes,
        share
            .wait(root.symlink(caller, name("link"), target, NEW_FILE))
            .unwrap()
            .attributes,
    ];
    for attributes in made {
        assert_eq!((attributes.uid, attributes.gid), (1111, 2222));
    }
    let whiteout = Rename {
        name: name("file"),
        new_parent: &**root,
        new_name: name("moved"),
        flags: RenameFlags::WHITEOUT,
    };
    share.wait(root.rename(caller, whiteout)).unwrap();
    assert_eq!(share.lookup("file").attributes.uid, 1111);
    // No other test uses this group.
    assert_eq!(threads_in_group(3333), 0);
    // And the daemon is itself again.
    let own = share.create("own").entry.attributes;
    assert_eq!((own.uid, own.gid), (0, 0));
    let anonymous = root.create(Caller::default(), name("anonymous"), READ_WRITE, NEW_FILE);
    assert_eq!(share.wait(anonymous).unwrap().entry.attributes.uid, 0);
}

#[test]
fn permissions_were_checked_by_the_guest() {
    if !is_root() {
        return;
    }
    let share = Share::new(Options::default());
    // The caller may write there by a group that only the guest knows of.
    fs::set_permissions(share.host_root(), fs::Permissions::from_mode(0o770)).unwrap();
    let create = share
        .root
        .create(caller(1111, 2222), name("file"), READ_WRITE, NEW_FILE);
    share.wait(create).unwrap();
}

#[test]
fn a_set_group_id_directory_does_what_ext4_does() {
    if !is_root() {
        return;
    }
    let share = Share::new(Options::default());
    let directory = share.mkdir("directory").node;
    chown(share.host("directory"), None, Some(5000)).unwrap();
    fs::set_permissions(share.host("directory"), fs::Permissions::from_mode(0o2777)).unwrap();
    let inode = NewInode {
        permissions: 0o2775,
        ..NEW_FILE
    };
    let make = |child, supplementary| {
        let caller = Caller {
            identity: Some(Identity {
                uid: 1111,
                gid: 2222,
                supplementary,
            }),
            pid: 1,
        };
        share
            .wait(directory.create(caller, name(child), READ_WRITE, inode))
            .unwrap()
            .entry
            .attributes
    };
    // Not a member of the group: the file gets the group, but not the right to act as it.
    let stranger = make("stranger", None);
    assert_eq!((stranger.gid, stranger.permissions), (5000, 0o775));
    let member = make("member", Some(5000));
    assert_eq!((member.gid, member.permissions), (5000, 0o2775));
    let below = share
        .wait(directory.mkdir(caller(1111, 2222), name("below"), NEW_FILE))
        .unwrap()
        .attributes;
    assert_eq!((below.gid, below.permissions & 0o2000), (5000, 0o2000));
}

#[test]
fn an_ordinary_user_serves_its_own_files() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(4321), Some(4321)).unwrap();
    fs::write(directory.path().join("secret"), b"secret").unwrap();
    fs::set_permissions(
        directory.path().join("secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let user = move || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        let (uid, gid) = (Uid::from_raw(4321), Gid::from_raw(4321));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        // All work is done on this thread, which alone is the user's.
        let share = Share::of(
            directory,
            Options {
                kill_privileges: true,
                ..Options::default()
            },
        );
        let root = &share.root;
        let made = share.create("file");
        assert_eq!(made.entry.attributes.uid, 4321);
        share.write(&*made.opened.file, 0, b"hello").unwrap();
        let as_stranger = root.create(caller(1, 1), name("no"), READ_WRITE, NEW_FILE);
        assert_eq!(errno(share.wait(as_stranger)), Errno::PERM);
        assert!(share.try_lookup(&**root, "no").unwrap().is_none());
        let secret = share.lookup("secret").node;
        assert_eq!(errno(share.open(&*secret, READ)), Errno::ACCESS);
        let give = AttributeChanges {
            uid: Some(0),
            ..AttributeChanges::default()
        };
        assert_eq!(
            errno(share.wait(made.entry.node.setattr(give))),
            Errno::PERM
        );
        share
            .wait(root.link(&*made.entry.node, name("link")))
            .unwrap();
        share
            .wait(
                made.entry
                    .node
                    .setxattr(xattr_name("user.a"), b"1", XattrFlags::empty()),
            )
            .unwrap();
        let device = NewDevice {
            kind: FileKind::CharDevice,
            device: vfsd_backend::Device { major: 1, minor: 3 },
            inode: NEW_FILE,
        };
        let null = root.mknod(root_caller(), name("null"), device);
        assert_eq!(errno(share.wait(null)), Errno::PERM);
    };
    std::thread::spawn(user).join().unwrap();
}

#[test]
fn many_callers_at_once_do_not_mix() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let fs = Arc::new(Passthrough::open(directory.path(), Options::default()).unwrap());
    let share = &Share::new(Options::default());
    std::thread::scope(|scope| {
        for thread in 1..=8_u32 {
            let root = vfsd_backend::Backend::root(&*fs);
            scope.spawn(move || {
                for round in 0..200 {
                    let child = format!("{thread}-{round}");
                    let caller = caller(thread * 100, thread * 1000);
                    let answer = root.create(caller, name(&child), READ_WRITE, NEW_FILE);
                    let made = share.wait(answer).unwrap().entry.attributes;
                    assert_eq!((made.uid, made.gid), (thread * 100, thread * 1000));
                }
            });
        }
    });
}

#[test]
fn the_project_of_a_file_is_shown_and_cannot_be_changed() {
    /// `FS_PROJINHERIT_FL`, `FS_NODUMP_FL` and `FS_XFLAG_PROJINHERIT` of linux/fs.h.
    const PROJINHERIT: u32 = 0x2000_0000;
    const NODUMP: u32 = 0x40;
    const XFLAG_PROJINHERIT: u32 = 0x200;
    let share = Share::new(Options::default());
    let node = share.create("file").entry.node;
    let (Ok(before), Ok(flags)) = (share.wait(node.getfsxattr()), share.wait(node.getflags()))
    else {
        eprintln!("skipped: the file system of the temporary directory keeps no inode flags");
        return;
    };
    let others = [
        FsXattr {
            project: before.project + 1,
            ..before
        },
        FsXattr {
            xflags: before.xflags ^ XFLAG_PROJINHERIT,
            ..before
        },
    ];
    for other in others {
        assert_eq!(errno(share.wait(node.setfsxattr(other))), Errno::PERM);
    }
    let inherited = share.wait(node.setflags(flags ^ PROJINHERIT));
    assert_eq!(errno(inherited), Errno::PERM);
    share.wait(node.setfsxattr(before)).unwrap();
    share.wait(node.setflags(flags ^ NODUMP)).unwrap();
    assert_eq!(share.wait(node.getflags()).unwrap(), flags ^ NODUMP);
}

/// What [`ids_that_an_ordinary_user_does_not_have_are_forbidden_not_invalid`] starts, as root of a user
/// namespace that has no other user.
#[test]
#[ignore = "another test starts it as a process"]
fn in_a_user_namespace_with_one_id() {
    const FOREIGN: u32 = 1234;
    let share = Share::new(Options {
        posix_acl: true,
        ..Options::default()
    });
    let node = share.create("file").entry.node;
    for changes in [
        AttributeChanges {
            uid: Some(FOREIGN),
            ..AttributeChanges::default()
        },
        AttributeChanges {
            gid: Some(FOREIGN),
            ..AttributeChanges::default()
        },
    ] {
        assert_eq!(errno(share.wait(node.setattr(changes))), Errno::PERM);
    }
    let set = |name: &str, value: &[u8]| {
        share.wait(node.setxattr(xattr_name(name), value, XattrFlags::empty()))
    };
    let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[4, 0], &id.to_le_bytes()].concat();
    let acl = |id: u32| {
        let none = u32::MAX;
        [
            2_u32.to_le_bytes().to_vec(),
            entry(1, none),
            entry(2, id),
            entry(4, none),
            entry(0x10, none),
            entry(0x20, none),
        ]
        .concat()
    };
    set("system.posix_acl_access", &acl(0)).unwrap();
    let foreign = acl(FOREIGN);
    let refused = |name: &str, value: &[u8]| errno(set(name, value));
    assert_eq!(refused("system.posix_acl_access", &foreign), Errno::PERM);
    assert_eq!(
        refused("system.posix_acl_access", &foreign[..7]),
        Errno::INVAL
    );
    let revision_3 = [&[0, 0, 0, 3][..], &[0; 16], &FOREIGN.to_le_bytes()].concat();
    assert_eq!(refused("security.capability", &revision_3), Errno::PERM);
    assert_eq!(refused("security.capability", b"short"), Errno::INVAL);
    assert_eq!(refused("trusted.name", b"value"), Errno::OPNOTSUPP);
    assert_eq!(refused("security.other", b"label"), Errno::OPNOTSUPP);
    let removed = share.wait(node.removexattr(xattr_name("trusted.name")));
    assert_eq!(errno(removed), Errno::OPNOTSUPP);
    set("user.name", b"value").unwrap();
}

#[test]
fn ids_that_an_ordinary_user_does_not_have_are_forbidden_not_invalid() {
    let within = |program: &std::ffi::OsStr, arguments: &[&str]| {
        std::process::Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(program)
            .args(arguments)
            .status()
            .is_ok_and(|status| status.success())
    };
    if !within("true".as_ref(), &[]) {
        eprintln!("skipped: no user namespace can be made here");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let test = "in_a_user_namespace_with_one_id";
    assert!(within(this.as_os_str(), &["--exact", test, "--ignored"]));
}
