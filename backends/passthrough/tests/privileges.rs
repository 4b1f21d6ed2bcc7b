//! Who files belong to, and which privileges they lose.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::Arc;

use common::*;
use rustix::process::{Gid, Uid};
use vfsd_backend::{
    AttributeChanges, Attributes, Caller, CopyRange, Errno, FallocateMode, FallocateRequest,
    FileKind, FsXattr, Identity, LinkTarget, NewDevice, NewInode, OpenFlags, OpenRequest, Rename,
    RenameFlags, SecurityContext, SliceSource, WriteRequest, XattrFlags,
};
use vfsd_passthrough::{Options, Passthrough};

fn killing() -> Options {
    Options {
        kill_privileges: true,
        ..Options::default()
    }
}

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

/// A program that runs as its owner and group, written to by somebody who is neither.
struct Program {
    share: Share,
    created: vfsd_backend::Created,
}

impl Program {
    fn new(options: Options) -> Self {
        let share = Share::new(options);
        let created = share.create("program");
        share.write(&*created.opened.file, 0, b"content").unwrap();
        let program = Self { share, created };
        program.grant();
        program
    }

    fn grant(&self) {
        fs::set_permissions(
            self.share.host("program"),
            fs::Permissions::from_mode(0o6755),
        )
        .unwrap();
        assert_eq!(self.permissions(), 0o6755);
    }

    fn permissions(&self) -> u32 {
        let host = fs::metadata(self.share.host("program")).unwrap();
        host.mode() & 0o7777
    }

    /// What is left after `change` was made without, and with, the word that the caller is not privileged.
    fn after(&self, change: impl Fn(&Self, bool)) -> (u32, u32) {
        let [kept, killed] = [false, true].map(|kill| {
            self.grant();
            change(self, kill);
            self.permissions()
        });
        (kept, killed)
    }
}

#[test]
fn set_id_bits_go_when_the_caller_is_not_privileged() {
    if !is_root() {
        return;
    }
    let program = Program::new(killing());
    let kept_and_killed = (0o6755, 0o755);
    let write = |program: &Program, kill_privileges| {
        let request = WriteRequest {
            offset: 0,
            kill_privileges,
            cached: false,
        };
        let mut source = SliceSource::new(b"x");
        let answer = program.created.opened.file.write(request, &mut source);
        program.share.wait(answer).unwrap();
    };
    assert_eq!(program.after(write), kept_and_killed);
    let size = |kill_privileges| AttributeChanges {
        size: Some(3),
        kill_privileges,
        ..AttributeChanges::default()
    };
    let truncate_node = |program: &Program, kill| {
        let node = &program.created.entry.node;
        program.share.wait(node.setattr(size(kill))).unwrap();
    };
    assert_eq!(program.after(truncate_node), kept_and_killed);
    let truncate_file = |program: &Program, kill| {
        let file = &program.created.opened.file;
        program.share.wait(file.setattr(size(kill))).unwrap();
    };
    assert_eq!(program.after(truncate_file), kept_and_killed);
    let open = |program: &Program, kill_privileges| {
        let request = OpenRequest {
            flags: READ_WRITE | OpenFlags::TRUNCATE,
            kill_privileges,
        };
        let answer = program.created.entry.node.open(request);
        drop(program.share.wait(answer).unwrap());
    };
    assert_eq!(program.after(open), kept_and_killed);
    let allocate = |program: &Program, kill_privileges| {
        let file = &program.created.opened.file;
        let answer = file.fallocate(FallocateRequest {
            mode: FallocateMode::empty(),
            offset: 0,
            length: 100,
            kill_privileges,
        });
        program.share.wait(answer).unwrap();
    };
    assert_eq!(program.after(allocate), kept_and_killed);
    let copy = |program: &Program, kill_privileges| {
        let from = program.share.lookup("program").node;
        let from = program.share.open(&*from, READ).unwrap().file;
        let copy = CopyRange {
            offset: 0,
            target: &*program.created.opened.file,
            target_offset: 10,
            length: 2,
            kill_privileges,
        };
        program.share.wait(from.copy_range(copy)).unwrap();
    };
    assert_eq!(program.after(copy), kept_and_killed);
    // A change of owner takes them from everybody.
    let always = (0o755, 0o755);
    let chown = |program: &Program, kill_privileges| {
        let changes = AttributeChanges {
            gid: Some(77),
            kill_privileges,
            ..AttributeChanges::default()
        };
        let node = &program.created.entry.node;
        program.share.wait(node.setattr(changes)).unwrap();
    };
    assert_eq!(program.after(chown), always);
}

#[test]
fn set_id_bits_stay_where_the_guest_clears_them_itself() {
    if !is_root() {
        return;
    }
    let program = Program::new(Options::default());
    let write = |program: &Program, _| {
        let file = &*program.created.opened.file;
        program.share.write(file, 0, b"x").unwrap();
    };
    assert_eq!(program.after(write), (0o6755, 0o6755));
}

#[test]
fn renamed_file_capabilities_go_with_every_change_of_content_or_owner() {
    if !is_root() {
        return;
    }
    let share = Share::new(Options {
        xattr_map: Some(":map::trusted.virtiofs.:".parse().unwrap()),
        ..Options::default()
    });
    let created = share.create("program");
    let (node, file) = (&created.entry.node, &created.opened.file);
    share.write(&**file, 0, b"content").unwrap();
    let capability = xattr_name("security.capability");
    let change = |size, gid| AttributeChanges {
        size,
        gid,
        ..AttributeChanges::default()
    };
    let source = share.create("source").opened.file;
    share.write(&*source, 0, b"source").unwrap();
    let changes: [(&str, &dyn Fn()); 7] = [
        ("write", &|| {
            share.write(&**file, 0, b"x").unwrap();
        }),
        ("truncate node", &|| {
            share.wait(node.setattr(change(Some(2), None))).unwrap();
        }),
        ("truncate file", &|| {
            share.wait(file.setattr(change(Some(2), None))).unwrap();
        }),
        ("chown", &|| {
            share.wait(node.setattr(change(None, Some(9)))).unwrap();
        }),
        ("fallocate", &|| {
            let answer = file.fallocate(FallocateRequest {
                mode: FallocateMode::empty(),
                offset: 0,
                length: 10,
                kill_privileges: false,
            });
            share.wait(answer).unwrap();
        }),
        ("copy", &|| {
            let copy = CopyRange {
                offset: 0,
                target: &**file,
                target_offset: 0,
                length: 6,
                kill_privileges: false,
            };
            share.wait(source.copy_range(copy)).unwrap();
        }),
        ("open", &|| {
            let flags = READ_WRITE | OpenFlags::TRUNCATE;
            drop(share.open(&**node, flags).unwrap());
        }),
    ];
    for (what, change) in changes {
        let set = node.setxattr(capability, b"capability", XattrFlags::empty());
        share.wait(set).unwrap();
        assert!(share.wait(node.getxattr(capability)).is_ok());
        change();
        assert_eq!(
            errno(share.wait(node.getxattr(capability))),
            Errno::NODATA,
            "{what}"
        );
    }
}

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
