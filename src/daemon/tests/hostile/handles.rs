//! Handles that the guest makes up, keeps too long or uses on the wrong object.

use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode};

use crate::answer::{EBADF, Row};
use crate::opcodes::{Sample, Target, samples};
use crate::scene::Scene;

fn with_handle(target: &Target, what: &str, fh: u64) -> Vec<Row> {
    samples(target)
        .iter()
        .filter_map(|sample| {
            let name = format!("{} on {what}", sample.name);
            Some(Row::new(name, sample.with_handle(fh)?, EBADF))
        })
        .collect()
}

#[test]
fn every_opcode_refuses_a_handle_that_is_not_open() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    for fh in [
        u64::MAX,
        0xdead_beef,
        target.fh ^ 1 << 63,
        target.dir_fh ^ 1 << 63,
    ] {
        scene.play_all(
            "unknown",
            with_handle(&target, &format!("unknown handle {fh}"), fh),
        );
    }
    let released = scene.guest.open(target.file, 0).unwrap().fh;
    scene.guest.release(target.file, released).unwrap();
    scene.play_all(
        "released",
        with_handle(&target, "a released handle", released),
    );
    let released = scene.guest.opendir(target.dir).unwrap().fh;
    scene.guest.releasedir(target.dir, released).unwrap();
    scene.play_all(
        "released",
        with_handle(&target, "a released directory handle", released),
    );
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn every_opcode_refuses_a_handle_of_another_node() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let other = scene.guest.lookup(target.dir, "file").unwrap().node;
    let fh = scene.guest.open(other, libc::O_RDWR as u32).unwrap().fh;
    let dir_fh = scene.guest.opendir(ROOT).unwrap().fh;
    let of = |sample: &Sample| {
        if sample.node == target.dir {
            dir_fh
        } else {
            fh
        }
    };
    let rows: Vec<Row> = samples(&target)
        .iter()
        .filter_map(|sample| {
            let name = format!("{} on a handle of another node", sample.name);
            Some(Row::new(name, sample.with_handle(of(sample))?, EBADF))
        })
        .collect();
    scene.play_all("another node", rows);
    scene.guest.release(other, fh).unwrap();
    scene.guest.releasedir(ROOT, dir_fh).unwrap();
    scene.finish();
}

#[test]
fn files_and_directories_have_handles_of_their_own_kind() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let rows: Vec<Row> = samples(&target)
        .iter()
        .filter_map(|sample| {
            // The same node, but the opcodes of the other kind.
            let (opcode, fh) = match sample.opcode {
                opcode::READ => (opcode::READDIR, target.fh),
                opcode::RELEASE => (opcode::RELEASEDIR, target.fh),
                opcode::FSYNC => (opcode::FSYNCDIR, target.fh),
                opcode::READDIR => (opcode::READ, target.dir_fh),
                opcode::RELEASEDIR => (opcode::RELEASE, target.dir_fh),
                opcode::FSYNCDIR => (opcode::FSYNC, target.dir_fh),
                _ => return None,
            };
            let mut request = sample.with_handle(fh)?;
            request.opcode = opcode;
            Some(Row::new(
                format!("{} of the other kind", sample.name),
                request,
                EBADF,
            ))
        })
        .collect();
    assert_eq!(rows.len(), 6);
    scene.play(rows);
    // The handles are as they were.
    assert_eq!(
        scene.guest.read(target.file, target.fh, 0, 64).unwrap(),
        b"inside"
    );
    assert!(
        !scene
            .guest
            .readdir(target.dir, target.dir_fh, 0, 4096)
            .unwrap()
            .is_empty()
    );
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_handle_is_released_once() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let release = |fh: u64| Encoder::new().u64(fh).u32(0).u32(0).u64(0).bytes();
    scene.guest.release(target.file, target.fh).unwrap();
    scene.guest.releasedir(target.dir, target.dir_fh).unwrap();
    for _ in 0..100 {
        let file = Request::new(opcode::RELEASE, target.file, release(target.fh));
        let dir = Request::new(opcode::RELEASEDIR, target.dir, release(target.dir_fh));
        scene.play_all(
            "released twice",
            [
                Row::new("RELEASE twice", file, EBADF),
                Row::new("RELEASEDIR twice", dir, EBADF),
            ],
        );
    }
    scene.finish();
}

#[test]
fn an_open_file_outlives_its_name_and_its_forgotten_node() {
    let mut scene = Scene::new();
    let entry = scene.guest.put(ROOT, "short-lived", b"data").unwrap();
    let fh = scene
        .guest
        .open(entry.node, libc::O_RDWR as u32)
        .unwrap()
        .fh;
    scene.guest.unlink(ROOT, "short-lived").unwrap();
    assert_eq!(scene.guest.read(entry.node, fh, 0, 64).unwrap(), b"data");
    scene.guest.release(entry.node, fh).unwrap();
    scene.guest.forget(entry.node, 1).unwrap();
    scene.check("a file unlinked while open");
    scene.finish();
}
