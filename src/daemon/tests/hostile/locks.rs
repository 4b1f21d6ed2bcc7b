//! Locks that are waited for.

use std::collections::HashMap;

use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::wire::{Encoder, opcode};

use crate::answer::{Answer, Row};
use crate::opcodes::Target;
use crate::scene::{Scene, Setting};

/// A device with one request ring more than the hostile one and the neighbour's.
fn three_rings() -> Setting {
    Setting {
        device: Options {
            request_queues: 3,
            ..Options::default()
        },
        ..Setting::default()
    }
}

#[test]
fn a_lock_that_is_waited_for_holds_no_queue() {
    let mut scene = Scene::set(three_rings());
    let target = Target::open(&mut scene.guest);
    let lock = |number, owner: u64, kind: u32| {
        let body = Encoder::new()
            .u64(target.fh)
            .u64(owner)
            .u64(0)
            .u64(i64::MAX as u64)
            .u32(kind)
            .u32(1)
            .u32(0)
            .u32(0)
            .bytes();
        Request::new(number, target.file, body)
    };
    let (write, unlock) = (libc::F_WRLCK as u32, libc::F_UNLCK as u32);
    scene.ask(&Row::new(
        "SETLK",
        lock(opcode::SETLK, 1, write),
        Answer::Fine,
    ));
    let refused = Answer::Refused(&[libc::EAGAIN, libc::EACCES]);
    scene.ask(&Row::new(
        "SETLK of another owner",
        lock(opcode::SETLK, 2, write),
        refused,
    ));
    let mut waiting = HashMap::new();
    for owner in 100..140 {
        let unique = scene
            .guest
            .channel
            .submit(&lock(opcode::SETLKW, owner, write))
            .unwrap();
        waiting.insert(unique, owner);
    }
    scene.check_served("locks waited for");
    // On a ring of its own, because a waiter may return before the unlock that lets it.
    let mut unlocker = scene.guest_on(3);
    let mut holder = 1;
    while !waiting.is_empty() {
        unlocker
            .channel
            .call(&lock(opcode::SETLK, holder, unlock))
            .unwrap();
        let returned = scene.guest.channel.wait_any().unwrap();
        Answer::Fine.judge("SETLKW", &returned);
        holder = waiting
            .remove(&returned.unique)
            .expect("each waiter returns once");
    }
    unlocker
        .channel
        .call(&lock(opcode::SETLK, holder, unlock))
        .unwrap();
    scene.check_served("all locks granted");
    target.close(&mut scene.guest);
    scene.finish();
}

/// The owner of an open-file-description lock is the open file, for which no FLUSH ever comes.
#[test]
fn a_lock_whose_owner_is_never_flushed_ends_with_its_open_file() {
    let mut scene = Scene::set(Setting::default());
    let target = Target::open(&mut scene.guest);
    let second = scene.guest.open(target.file, libc::O_RDWR as u32).unwrap();
    let lock = |fh: u64, owner: u64| {
        let body = Encoder::new().u64(fh).u64(owner).u64(0).u64(9);
        let body = body.u32(libc::F_WRLCK as u32).u32(1).u64(0);
        Request::new(opcode::SETLK, target.file, body.bytes())
    };
    scene.ask(&Row::new("SETLK", lock(target.fh, 1), Answer::Fine));
    let other = Row::new(
        "SETLK of another open file",
        lock(second.fh, 2),
        Answer::Refused(&[libc::EAGAIN]),
    );
    scene.ask(&other);
    scene.guest.release(target.file, target.fh).unwrap();
    scene.ask(&Row {
        answer: Answer::Fine,
        ..other
    });
    let rest = Target {
        fh: second.fh,
        ..target
    };
    rest.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_session_that_ends_returns_the_locks_waited_for() {
    let mut scene = Scene::set(three_rings());
    let neighbour = scene.pause_neighbour();
    let target = Target::open(&mut scene.guest);
    let lock = |number, owner| {
        let body = Encoder::new()
            .u64(target.fh)
            .u64(owner)
            .u64(0)
            .u64(9)
            .u32(1)
            .u32(1)
            .u64(0);
        Request::new(number, target.file, body.bytes())
    };
    scene.ask(&Row::new("SETLK", lock(opcode::SETLK, 1), Answer::Fine));
    for owner in 2..10 {
        scene
            .guest
            .channel
            .submit(&lock(opcode::SETLKW, owner))
            .unwrap();
    }
    const OVER: Answer = Answer::FineOr(&[
        libc::EINTR,
        libc::EIO,
        libc::EBADF,
        libc::EAGAIN,
        libc::ESTALE,
    ]);
    let mut other = scene.guest_on(3);
    other.destroy().unwrap();
    for _ in 2..10 {
        let returned = scene.guest.channel.wait_any().unwrap();
        OVER.judge("SETLKW as the session ends", &returned);
    }
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}
