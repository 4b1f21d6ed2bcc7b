//! Node ids and lookup counts that the guest makes up.

use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode};

use crate::answer::{Answer, Row};
use crate::opcodes::{Target, samples};
use crate::scene::Scene;

/// A node that is not there. Where the request also carries a handle, either may be found first.
const STALE: Answer = Answer::Refused(&[libc::ESTALE]);
const STALE_OR_BAD_HANDLE: Answer = Answer::Refused(&[libc::ESTALE, libc::EBADF]);

#[test]
fn every_opcode_refuses_a_node_that_is_not_there() {
    let mut scene = Scene::new();
    let gone = scene.guest.lookup(ROOT, "dir").unwrap().node;
    scene.guest.forget(gone, 1).unwrap();
    let target = Target::open(&mut scene.guest);
    for (what, node) in [("0", 0), ("unknown", 1 << 40), ("u64::MAX", u64::MAX)] {
        let rows = samples(&target).into_iter().map(|mut sample| {
            sample.node = node;
            let answer = if sample.handle.is_some() {
                STALE_OR_BAD_HANDLE
            } else {
                STALE
            };
            Row::new(
                format!("{} on node {what}", sample.name),
                sample.request(),
                answer,
            )
        });
        scene.play_all(what, rows);
    }
    target.close(&mut scene.guest);
    for sample in samples(&Target {
        agreed: target.agreed,
        ..target
    }) {
        let answer = if sample.handle.is_some() {
            STALE_OR_BAD_HANDLE
        } else {
            STALE
        };
        scene.ask(&Row::new(
            format!("{} on a forgotten node", sample.name),
            sample.request(),
            answer,
        ));
    }
    scene.check("forgotten nodes");
    scene.finish();
}

#[test]
fn a_second_node_in_a_request_is_checked_as_well() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let name = |encoder: Encoder| encoder.name(b"absent").name(b"other").bytes();
    let mut rows = Vec::new();
    for node in [0, 1 << 40, u64::MAX] {
        let rename = name(Encoder::new().u64(node));
        rows.push(Row::new(
            "RENAME",
            Request::new(opcode::RENAME, target.dir, rename),
            STALE,
        ));
        let rename2 = name(Encoder::new().u64(node).u32(0).u32(0));
        rows.push(Row::new(
            "RENAME2",
            Request::new(opcode::RENAME2, target.dir, rename2),
            STALE,
        ));
        let link = Encoder::new().u64(node).name(b"new").bytes();
        rows.push(Row::new(
            "LINK",
            Request::new(opcode::LINK, target.dir, link),
            STALE,
        ));
        for number in [opcode::COPY_FILE_RANGE, opcode::COPY_FILE_RANGE_64] {
            let copy = Encoder::new()
                .u64(target.fh)
                .u64(0)
                .u64(node)
                .u64(target.fh)
                .u64(0)
                .u64(1)
                .u64(0)
                .bytes();
            let request = Request::new(number, target.file, copy);
            rows.push(Row::new(
                format!("opcode {number}"),
                request,
                STALE_OR_BAD_HANDLE,
            ));
        }
    }
    scene.play(rows);
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn forgetting_more_than_was_looked_up_forgets_no_more_than_that() {
    let mut scene = Scene::new();
    for count in [2, 3, 1 << 32, u64::MAX] {
        let node = scene.guest.lookup(ROOT, "file").unwrap().node;
        scene.guest.forget(node, count).unwrap();
        let again = scene.guest.getattr(node).unwrap_err().errno();
        assert_eq!(again, Some(libc::ESTALE), "after FORGET of {count}");
        scene.guest.forget(node, u64::MAX).unwrap();
        scene.check("FORGET of more than held");
    }
    scene.finish();
}

#[test]
fn the_root_cannot_be_forgotten() {
    let mut scene = Scene::new();
    for count in [0, 1, 2, u64::MAX, u64::MAX] {
        scene.guest.forget(ROOT, count).unwrap();
        scene
            .guest
            .batch_forget(&[(ROOT, count), (ROOT, count)])
            .unwrap();
        scene.guest.getattr(ROOT).unwrap();
        scene.guest.lookup(ROOT, "file").unwrap();
        scene.check("FORGET of the root");
    }
    scene.finish();
}

#[test]
fn a_batch_longer_than_its_body_forgets_what_is_there() {
    let mut scene = Scene::new();
    let file = scene.guest.lookup(ROOT, "file").unwrap().node;
    let body = Encoder::new()
        .u32(1000)
        .u32(0)
        .u64(file)
        .u64(1)
        .u64(u64::MAX)
        .u64(1)
        .bytes();
    let request = Request::new(opcode::BATCH_FORGET, 0, body);
    scene.play([Row::new(
        "BATCH_FORGET beyond its body",
        request,
        Answer::Silence,
    )]);
    assert_eq!(
        scene.guest.getattr(file).unwrap_err().errno(),
        Some(libc::ESTALE)
    );
    scene.finish();
}

#[test]
fn a_forgotten_number_never_stands_for_another_file() {
    let mut scene = Scene::new();
    let mut seen = std::collections::HashMap::new();
    for round in 0..200 {
        let name = if round % 2 == 0 { "file" } else { "dir" };
        let entry = scene.guest.lookup(ROOT, name).unwrap();
        let before = seen.insert((entry.node, entry.generation), name);
        assert!(
            before.is_none_or(|before| before == name),
            "node and generation reused"
        );
        scene.guest.forget(entry.node, 1).unwrap();
    }
    scene.finish();
}

#[test]
fn lookups_without_end_and_without_forget_leave_others_served() {
    let mut scene = Scene::new();
    for _ in 0..20_000 {
        scene.guest.lookup(ROOT, "file").unwrap();
    }
    scene.check_served("20,000 lookups of one file");
    let node = scene.guest.lookup(ROOT, "file").unwrap().node;
    scene.guest.forget(node, 20_000).unwrap();
    scene.guest.getattr(node).unwrap();
    scene.guest.forget(node, 1).unwrap();
    assert_eq!(
        scene.guest.getattr(node).unwrap_err().errno(),
        Some(libc::ESTALE)
    );
    scene.finish();
}
