//! Nodes and handles: what a guest may name, and for how long.

use vfsd_fuse::wire::{EntryOut, HandleId, OpenIn, ReadIn, ReleaseIn, WriteIn};
use vfsd_fuse::{Effect, Opcode};
use vfsd_server::{Budget, Delivery, Exports, SessionOptions};
use zerocopy::{FromBytes, IntoBytes};

use crate::guest::{Guest, memory};

const EBADF: i32 = 9;
const ENOMEM: i32 = 12;
const EROFS: i32 = 30;
const ENFILE: i32 = 23;
const ESTALE: i32 = 116;

pub(crate) fn read_in(fh: u64, offset: u64, size: u32) -> ReadIn {
    ReadIn {
        fh: HandleId(fh),
        offset,
        size,
        read_flags: 0,
        lock_owner: 0,
        flags: 0,
        padding: 0,
    }
}

#[test]
fn a_file_has_one_number_however_often_it_is_looked_up() {
    let guest = Guest::on_memory();
    let made = guest.mkdir(1, "a").unwrap();
    let again = guest.lookup(1, "a").unwrap();
    assert_eq!(made.nodeid.0, again.nodeid.0);
    assert_eq!(guest.nodes(), 2);
    guest.forget(made.nodeid.0, 1);
    assert!(
        guest.mkdir(made.nodeid.0, "b").is_ok(),
        "one of two lookups is left"
    );
    guest.forget(made.nodeid.0, 1);
    assert_eq!(guest.mkdir(made.nodeid.0, "c").unwrap_err(), ESTALE);
    assert_ne!(
        guest.lookup(1, "a").unwrap().nodeid.0,
        made.nodeid.0,
        "numbers are not used twice"
    );
}

#[test]
fn forgetting_too_much_the_unknown_or_the_root_does_nothing() {
    let guest = Guest::on_memory();
    let made = guest.mkdir(1, "a").unwrap();
    for node in [0, 1, 77, u64::MAX, made.nodeid.0 + (1 << 32)] {
        guest.forget(node, u64::MAX);
    }
    assert_eq!(guest.nodes(), 2);
    guest.forget(made.nodeid.0, u64::MAX);
    assert_eq!(guest.nodes(), 1);
    guest.forget(made.nodeid.0, u64::MAX);
    assert_eq!(guest.nodes(), 1);
    assert!(guest.lookup(1, "a").is_ok());
}

#[test]
fn unknown_nodes_are_stale_for_every_opcode_that_names_one() {
    let guest = Guest::on_memory();
    for opcode in Opcode::ALL {
        let silent = [
            Opcode::Forget,
            Opcode::BatchForget,
            Opcode::Interrupt,
            Opcode::NotifyReply,
        ];
        let without_node = [Opcode::Init, Opcode::Destroy];
        if silent.contains(opcode) || without_node.contains(opcode) {
            continue;
        }
        let name: &[u8] = match opcode {
            Opcode::Rename | Opcode::Rename2 | Opcode::Symlink => b"name\0name\0",
            _ => b"name\0",
        };
        let fixed = match opcode {
            Opcode::Lookup | Opcode::Symlink | Opcode::Unlink | Opcode::Rmdir => 0,
            Opcode::Removexattr => 0,
            Opcode::Mkdir | Opcode::Rename | Opcode::Link | Opcode::Getxattr => 8,
            Opcode::Mknod | Opcode::Create | Opcode::Rename2 | Opcode::Tmpfile => 16,
            Opcode::Setxattr => 16,
            _ => 128,
        };
        if *opcode == Opcode::Setxattr || *opcode == Opcode::Write {
            continue;
        }
        for node in [0, 99, u64::MAX] {
            let answer = guest.call(*opcode, node, &[&vec![0; fixed], name]);
            let errno = answer.unwrap_err();
            assert!(
                [ESTALE, EBADF, 38].contains(&errno),
                "{}: {errno}",
                opcode.name()
            );
        }
    }
}

#[test]
fn a_reply_that_is_lost_grants_nothing() {
    let mut guest = Guest::on_memory();
    guest.mkdir(1, "kept").unwrap();
    guest.delivery = Delivery::Lost;
    let _ = guest.mkdir(1, "lost");
    let _ = guest.create(1, "file");
    let _ = guest.lookup(1, "kept");
    assert_eq!((guest.nodes(), guest.handles()), (2, 0));
    assert_eq!(guest.session.metrics().lost, 3);
}

#[test]
fn a_reply_that_does_not_fit_grants_nothing() {
    let mut guest = Guest::on_memory();
    guest.capacity = 16 + size_of::<EntryOut>() - 1;
    assert_eq!(guest.mkdir(1, "a").unwrap_err(), 5);
    guest.capacity = 16 + size_of::<EntryOut>();
    assert_eq!(
        guest.create(1, "b").unwrap_err(),
        5,
        "room for the entry, not for the handle"
    );
    assert_eq!((guest.nodes(), guest.handles()), (1, 0));
}

#[test]
fn a_listing_with_attributes_grants_each_file_once() {
    let guest = Guest::on_memory();
    for name in ["a", "b", "c"] {
        let entry = guest.mkdir(1, name).unwrap();
        guest.forget(entry.nodeid.0, 1);
    }
    assert_eq!(guest.nodes(), 1);
    let handle = guest.open(Opcode::Opendir, 1, 0).unwrap().fh.0;
    let body = guest
        .call(
            Opcode::Readdirplus,
            1,
            &[read_in(handle, 0, 4096).as_bytes()],
        )
        .unwrap();
    assert_eq!(guest.nodes(), 4);
    let mut rest = &body[..];
    let mut granted = Vec::new();
    while !rest.is_empty() {
        let (entry, _) = EntryOut::read_from_prefix(rest).unwrap();
        let name_length = u32::read_from_bytes(&rest[128 + 16..128 + 20]).unwrap();
        let length = (152 + usize::try_from(name_length).unwrap()).next_multiple_of(8);
        if entry.nodeid.0 != 0 {
            granted.push(entry.nodeid.0);
        }
        rest = &rest[length..];
    }
    assert_eq!(granted.len(), 3, "'.' and '..' are not granted");
    granted.into_iter().for_each(|node| guest.forget(node, 1));
    assert_eq!(guest.nodes(), 1);
}

#[test]
fn a_listing_that_has_no_room_for_a_single_name_is_not_the_end() {
    let guest = Guest::on_memory();
    let handle = guest.open(Opcode::Opendir, 1, 0).unwrap().fh.0;
    for (opcode, size) in [
        (Opcode::Readdir, 31),
        (Opcode::Readdirplus, 159),
        (Opcode::Readdir, 0),
    ] {
        assert_eq!(
            guest.call(opcode, 1, &[read_in(handle, 0, size).as_bytes()]),
            Err(22)
        );
    }
    let huge = read_in(handle, 0, u32::MAX);
    assert!(
        guest
            .call(Opcode::Readdir, 1, &[huge.as_bytes()])
            .unwrap()
            .len()
            < 100
    );
}

#[test]
fn handles_are_valid_once_with_their_own_node_and_kind() {
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    let (other, _) = guest.create(1, "other").unwrap();
    let directory = guest.open(Opcode::Opendir, 1, 0).unwrap();
    let read = |node, fh| guest.call(Opcode::Read, node, &[read_in(fh, 0, 10).as_bytes()]);
    let list = |node, fh| guest.call(Opcode::Readdir, node, &[read_in(fh, 0, 512).as_bytes()]);
    let release = |opcode, node, fh| {
        let arg = ReleaseIn {
            fh: HandleId(fh),
            flags: 0,
            release_flags: 0,
            lock_owner: 0,
        };
        guest.call(opcode, node, &[arg.as_bytes()])
    };
    assert_eq!(read(file.nodeid.0, open.fh.0), Ok(vec![]));
    for (node, fh) in [
        (other.nodeid.0, open.fh.0),
        (1, open.fh.0),
        (1, directory.fh.0),
        (file.nodeid.0, 0),
        (file.nodeid.0, open.fh.0 + 1000),
        (file.nodeid.0, u64::MAX),
    ] {
        assert_eq!(read(node, fh), Err(EBADF), "node {node} handle {fh}");
    }
    assert_eq!(list(file.nodeid.0, open.fh.0), Err(EBADF));
    assert_eq!(
        release(Opcode::Releasedir, file.nodeid.0, open.fh.0),
        Err(EBADF)
    );
    assert_eq!(
        release(Opcode::Release, other.nodeid.0, open.fh.0),
        Err(EBADF)
    );
    assert_eq!(
        release(Opcode::Release, file.nodeid.0, open.fh.0),
        Ok(vec![])
    );
    assert_eq!(
        release(Opcode::Release, file.nodeid.0, open.fh.0),
        Err(EBADF),
        "once"
    );
    assert_eq!(read(file.nodeid.0, open.fh.0), Err(EBADF));
}

#[test]
fn what_a_guest_may_hold_is_bounded() {
    let budget = Budget {
        nodes: 3,
        handles: 2,
        ..Budget::default()
    };
    let guest = Guest::with(
        memory(),
        SessionOptions {
            budget,
            ..SessionOptions::default()
        },
    );
    let first = guest.mkdir(1, "a").unwrap();
    guest.mkdir(1, "b").unwrap();
    assert_eq!(guest.mkdir(1, "c").unwrap_err(), ENOMEM);
    guest.forget(first.nodeid.0, 1);
    assert!(guest.lookup(1, "c").is_ok(), "it was made, only not told");
    for _ in 0..2 {
        guest.open(Opcode::Opendir, 1, 0).unwrap();
    }
    assert_eq!(guest.open(Opcode::Opendir, 1, 0).unwrap_err(), ENFILE);
}

#[test]
fn what_is_written_is_read() {
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    let write = WriteIn {
        fh: HandleId(open.fh.0),
        offset: 3,
        size: 5,
        write_flags: 0,
        lock_owner: 0,
        flags: 0,
        padding: 0,
    };
    let reply = guest
        .call(Opcode::Write, file.nodeid.0, &[write.as_bytes(), b"hello"])
        .unwrap();
    assert_eq!(reply, [5, 0, 0, 0, 0, 0, 0, 0]);
    let read = |offset, size| {
        guest.call(
            Opcode::Read,
            file.nodeid.0,
            &[read_in(open.fh.0, offset, size).as_bytes()],
        )
    };
    assert_eq!(read(0, 100).unwrap(), b"\0\0\0hello");
    assert_eq!(read(4, 3).unwrap(), b"ell");
    assert_eq!(read(0, u32::MAX).unwrap(), b"\0\0\0hello");
    assert_eq!(read(u64::MAX - 1, 100), Err(22));
    assert_eq!(read(i64::MAX.unsigned_abs(), 1), Err(22));
    let far = WriteIn {
        offset: i64::MAX.unsigned_abs() - 2,
        ..write
    };
    assert_eq!(
        guest.call(Opcode::Write, file.nodeid.0, &[far.as_bytes(), b"hello"]),
        Err(27)
    );
}

#[test]
fn a_read_only_export_refuses_every_change_whatever_the_guest_mounted() {
    let backend = std::sync::Arc::new(memory());
    let writable = Guest::of(
        Exports::single(backend.clone(), false),
        SessionOptions::default(),
    );
    writable.create(1, "file").unwrap();
    let guest = Guest::of(Exports::single(backend, true), SessionOptions::default());
    let file = guest.lookup(1, "file").unwrap().nodeid.0;
    let mut tried = 0;
    for opcode in Opcode::ALL
        .iter()
        .filter(|opcode| opcode.effect() == Effect::Changes)
    {
        let body: Vec<u8> = match opcode {
            Opcode::Write => vec![0; 40],
            Opcode::Setxattr => [&[0; 8][..], b"user.a\0"].concat(),
            Opcode::Symlink => b"name\0target\0".to_vec(),
            Opcode::Unlink | Opcode::Rmdir | Opcode::Removexattr => b"name\0".to_vec(),
            Opcode::Mkdir | Opcode::Link => [&[0; 8][..], b"name\0"].concat(),
            Opcode::Rename => [&[0; 8][..], b"name\0new\0"].concat(),
            Opcode::Rename2 => [&[0; 16][..], b"name\0new\0"].concat(),
            Opcode::Mknod | Opcode::Create | Opcode::Tmpfile => [&[0; 16][..], b"name\0"].concat(),
            _ => vec![0; 128],
        };
        assert_eq!(
            guest.call(*opcode, 1, &[&body]),
            Err(EROFS),
            "{}",
            opcode.name()
        );
        tried += 1;
    }
    assert_eq!(tried, 17);
    for flags in [1u32, 2, 0o1000] {
        assert_eq!(
            guest.open(Opcode::Open, file, flags).unwrap_err(),
            EROFS,
            "flags {flags:o}"
        );
    }
    let open = guest.open(Opcode::Open, file, 0).unwrap();
    let access = [2u32, 0];
    assert_eq!(
        guest.call(Opcode::Access, file, &[access.as_bytes()]),
        Err(EROFS)
    );
    let set_flags = [
        open.fh.0.as_bytes(),
        &0u32.to_le_bytes(),
        &0x4008_6602u32.to_le_bytes(),
        &[0; 8],
        &4u32.to_le_bytes(),
        &0u32.to_le_bytes(),
        &[0; 4],
    ];
    assert_eq!(guest.call(Opcode::Ioctl, file, &set_flags), Err(EROFS));
}

#[test]
fn special_files_are_never_opened() {
    let guest = Guest::on_memory();
    for (name, kind) in [
        ("fifo", 0o010_000u32),
        ("socket", 0o140_000),
        ("null", 0o020_000),
    ] {
        let arg = [kind | 0o644, 0x103, 0, 0];
        let body = [arg.as_bytes(), name.as_bytes(), b"\0"].concat();
        let reply = guest.call(Opcode::Mknod, 1, &[&body]).unwrap();
        let node = crate::guest::structure::<EntryOut>(&reply).nodeid.0;
        let open = OpenIn {
            flags: 0,
            open_flags: 0,
        };
        assert_eq!(
            guest.call(Opcode::Open, node, &[open.as_bytes()]),
            Err(EBADF),
            "{name}"
        );
    }
}
