//! Set-id bits and file capabilities, which go when a file is changed by somebody who is not privileged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::*;
use vfsd_backend::{
    AttributeChanges, CopyRange, Errno, FallocateMode, FallocateRequest, OpenFlags, OpenRequest,
    SliceSource, WriteRequest, XattrFlags,
};
use vfsd_passthrough::Options;

fn killing() -> Options {
    Options {
        kill_privileges: true,
        ..Options::default()
    }
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
