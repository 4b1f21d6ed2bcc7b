//! Attributes and extended attributes that do not fit.

use vfsd_testkit::frontend::bodies::SetAttr;
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::wire::{Encoder, init, opcode, valid};

use crate::answer::{Answer, EBADF, EINVAL, Row};
use crate::data::lengths;
use crate::opcodes::Target;
use crate::scene::Scene;

#[test]
fn attributes_that_cannot_be_are_refused() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let other = scene.guest.lookup(target.dir, "file").unwrap().node;
    let none = SetAttr::default();
    let second = 1_000_000_000;
    let rows = [
        (
            "atime",
            SetAttr {
                valid: valid::ATIME,
                atime: (0, second),
                ..none
            },
            EINVAL,
        ),
        (
            "mtime",
            SetAttr {
                valid: valid::MTIME,
                mtime: (0, u32::MAX),
                ..none
            },
            EINVAL,
        ),
        (
            "ctime",
            SetAttr {
                valid: valid::CTIME,
                ctime: (0, second),
                ..none
            },
            EINVAL,
        ),
        (
            "uid -1",
            SetAttr {
                valid: valid::UID,
                uid: u32::MAX,
                ..none
            },
            EINVAL,
        ),
        (
            "gid -1",
            SetAttr {
                valid: valid::GID,
                gid: u32::MAX,
                ..none
            },
            EINVAL,
        ),
        (
            "unknown bits",
            SetAttr {
                valid: 1 << 20 | valid::MODE,
                mode: 0o644,
                ..none
            },
            EINVAL,
        ),
        (
            "all bits",
            SetAttr {
                valid: u32::MAX,
                ..none
            },
            Answer::Refused(&[libc::EINVAL, libc::EBADF]),
        ),
        (
            "unknown handle",
            SetAttr {
                valid: valid::FH | valid::MODE,
                fh: 1 << 50,
                ..none
            },
            EBADF,
        ),
    ]
    .map(|(what, change, answer)| {
        let request = Request::new(opcode::SETATTR, target.file, change.bytes());
        Row::new(format!("SETATTR {what}"), request, answer)
    });
    scene.play(rows);
    let foreign = SetAttr {
        valid: valid::FH | valid::SIZE,
        fh: target.fh,
        ..none
    };
    let request = Request::new(opcode::SETATTR, other, foreign.bytes());
    scene.play([Row::new(
        "SETATTR through a handle of another node",
        request,
        EBADF,
    )]);
    // The type is no part of what may be set.
    let mode = SetAttr {
        valid: valid::MODE,
        mode: libc::S_IFDIR | 0o600,
        ..none
    };
    let attr = scene.guest.setattr(target.file, &mode).unwrap();
    assert_eq!(attr.mode, libc::S_IFREG | 0o600);
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn extended_attributes_that_do_not_fit_are_refused() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let long = scene.guest.agreed & init::SETXATTR_EXT != 0;
    let request = |size: u32, flags: u32, rest: &[u8]| {
        let head = Encoder::new()
            .u32(size)
            .u32(flags)
            .raw(if long { &[0; 8] } else { &[] });
        Request::new(opcode::SETXATTR, target.file, head.raw(rest).bytes())
    };
    let too_long = Answer::Refused(&[libc::E2BIG]);
    let bad_name = Answer::Refused(&[libc::EINVAL, libc::ERANGE, libc::ENAMETOOLONG]);
    let mut rows: Vec<Row> = lengths(1 << 16, 1)
        .into_iter()
        .filter(|size| *size != 1)
        .map(|size| {
            let answer = Answer::Refused(&[libc::EINVAL, libc::E2BIG]);
            Row::new(
                format!("SETXATTR of {size} with 1 byte"),
                request(size, 0, b"user.a\0v"),
                answer,
            )
        })
        .collect();
    let huge = [b"user.a\0".to_vec(), vec![1; (1 << 16) + 1]].concat();
    let long_name = [b"user.".to_vec(), vec![b'n'; 260], b"\0v".to_vec()].concat();
    rows.extend([
        Row::new("65,537 bytes", request((1 << 16) + 1, 0, &huge), too_long),
        Row::new("unknown flags", request(1, 1 << 10, b"user.a\0v"), EINVAL),
        Row::new("no name", request(1, 0, b"\0v"), bad_name),
        Row::new("265 bytes of name", request(1, 0, &long_name), bad_name),
        Row::new("no NUL", request(1, 0, b"user.a"), EINVAL),
    ]);
    scene.play(rows);
    let list = Encoder::new().u32(4096).u32(0).bytes();
    let list = scene
        .guest
        .call(opcode::LISTXATTR, target.file, list)
        .unwrap();
    assert!(!list.starts_with(b"user."), "nothing was stored: {list:?}");
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn values_of_attributes_are_bounded_by_the_room_for_the_reply() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    scene
        .guest
        .setxattr(target.file, "user.a", b"0123456789", 0)
        .unwrap();
    // EIO where not even the length asked for fits.
    let allowed = Answer::FineOr(&[libc::ERANGE, libc::E2BIG, libc::EINVAL, libc::EIO]);
    for size in lengths(1 << 16, 10) {
        for room in [0, 8, 10, 4096] {
            for (number, name) in [
                (opcode::GETXATTR, &b"user.a\0"[..]),
                (opcode::LISTXATTR, b""),
            ] {
                let body = Encoder::new().u32(size).u32(0).raw(name).bytes();
                let request = Request::new(number, target.file, body).with_room(room);
                let row = Row::new(
                    format!("opcode {number}, {size} into {room}"),
                    request,
                    allowed,
                );
                scene.ask(&row);
            }
        }
        scene.check(&format!("size {size}"));
    }
    target.close(&mut scene.guest);
    scene.finish();
}
