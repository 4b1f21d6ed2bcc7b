//! Locks on files of a mount.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::mounting::{Mounted, cannot_mount, sources};
use crate::process::{Helper, Place, text};

/// How a process asks for a lock.
const STYLES: [&str; 2] = ["flock", "fcntl"];

fn lock(file: &File, style: &str, operation: FlockOperation) -> rustix::io::Result<()> {
    match style {
        "flock" => rustix::fs::flock(file, operation),
        _ => rustix::fs::fcntl_lock(file, operation),
    }
}

/// What [`a_wait_for_a_lock_ends_with_the_process_that_waits`] starts: a process that waits.
#[test]
#[ignore = "another test starts it as a process"]
fn waits_for_a_lock() {
    let Ok(path) = std::env::var("VFSD_TEST_LOCK_FILE") else {
        return;
    };
    let style = std::env::var("VFSD_TEST_LOCK_STYLE").unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    lock(&file, &style, FlockOperation::LockExclusive).unwrap();
}

fn start_waiting(file: &Path, style: &str) -> Helper {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mount_locks::waits_for_a_lock", "--ignored"])
        .env("VFSD_TEST_LOCK_FILE", file)
        .env("VFSD_TEST_LOCK_STYLE", style)
        .stdout(Stdio::null())
        .spawn();
    Helper(child.unwrap())
}

#[test]
fn a_wait_for_a_lock_ends_with_the_process_that_waits() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    for source in sources(&place) {
        for style in STYLES {
            // Said, because a tree that is one guest's own leaves locks to it otherwise.
            let mut mounted = Mounted::new(&place, &["--cache=auto"], &source);
            let path = mounted.path("f");
            let file = File::create(&path).unwrap();
            lock(&file, style, FlockOperation::LockExclusive).unwrap();

            // Without an answer to the kernel's INTERRUPT it could not even be killed.
            let mut interrupted = start_waiting(&path, style);
            mounted.wait_for_lock_waits(1);
            assert!(interrupted.ends_by(Signal::TERM), "{style} on {source}");
            mounted.wait_for_lock_waits(0);

            // The lock itself is not lost with it: the next waits until it is free, and gets it.
            let mut next = start_waiting(&path, style);
            mounted.wait_for_lock_waits(1);
            lock(&file, style, FlockOperation::Unlock).unwrap();
            assert!(next.0.wait().unwrap().success(), "{style} on {source}");
            drop(file);
            mounted.daemon.stop(Signal::TERM);
        }
    }
}

#[test]
fn local_locks_exclude_nobody_outside() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let source = format!("dir:{}", text(&place.share()));
    let host = File::create(place.share().join("f")).unwrap();
    for style in STYLES {
        lock(&host, style, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
    for (options, shared) in [
        (&[][..], &STYLES[..]),
        (&["--local-locks"], &[]),
        (&["--local-locks=flock"], &["fcntl"]),
        (&["--local-locks=posix"], &["flock"]),
    ] {
        let mut mounted = Mounted::new(&place, options, &source);
        let file = File::options().write(true).open(mounted.path("f")).unwrap();
        for style in STYLES {
            let taken = lock(&file, style, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(
                taken.is_err(),
                shared.contains(&style),
                "{style} {options:?}"
            );
        }
        let other = File::options().write(true).open(mounted.path("f")).unwrap();
        let taken = lock(&other, "flock", FlockOperation::NonBlockingLockExclusive);
        assert!(
            taken.is_err(),
            "users of the mount exclude each other: {options:?}"
        );
        drop((file, other));
        mounted.daemon.stop(Signal::TERM);
    }
}
