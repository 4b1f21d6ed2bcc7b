//! Mounts of ordinary users, and whose files are in them.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::mounting::{Mounted, cannot_mount, is_mounted};
use crate::process::{Daemon, NOBODY, Place, nobodys_program, outcome, vfsd, wait_until};

#[test]
fn an_ordinary_user_mounts_through_fusermount3_or_is_told_to_install_it() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let (point, program) = (place.path("mnt"), nobodys_program(&place));
    let mut command = as_nobody(&program);
    command.args(["mount", "memory:"]).arg(&point);
    let mut daemon = Daemon::start(&mut command);
    wait_until("the mount, or the end", || {
        !daemon.runs() || is_mounted(&point)
    });
    if !daemon.runs() {
        let errors = daemon.errors();
        assert_eq!(daemon.end().code(), Some(1));
        assert!(
            errors.lines().last().unwrap().contains("fusermount3"),
            "{errors}"
        );
        eprintln!("skipped in part: {errors}");
        return;
    }
    let (code, _, errors) = outcome(as_nobody("touch").arg(point.join("f")));
    assert_eq!(code, 0, "{errors}");
    daemon.stop(Signal::TERM);
    assert!(!is_mounted(&point));
}

#[test]
fn an_ordinary_users_dead_mount_is_taken_away_by_his_next_one() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let (point, program) = (place.path("mnt"), nobodys_program(&place));
    let mount = || {
        let mut command = as_nobody(&program);
        let mut daemon = Daemon::start(command.args(["mount", "memory:"]).arg(&point));
        wait_until("the mount, or the end", || {
            !daemon.runs() || outcome(as_nobody("ls").arg(&point)).0 == 0 && is_mounted(&point)
        });
        daemon
    };
    let mut killed = mount();
    if !killed.runs() {
        eprintln!("skipped: {}", killed.errors());
        return;
    }
    kill_process(killed.pid(), Signal::KILL).unwrap();
    killed.end();
    wait_until("a dead mount", || {
        outcome(as_nobody("ls").arg(&point))
            .2
            .contains("not connected")
    });
    let mut daemon = mount();
    assert!(daemon.runs(), "{}", daemon.errors());
    daemon.stop(Signal::TERM);
    assert!(!is_mounted(&point));
    let errors = daemon.errors();
    assert!(
        errors.contains("took away fuse.vfsd of memory:"),
        "{errors}"
    );
}

#[test]
fn a_volume_that_an_ordinary_user_makes_is_his_to_write_to() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let (point, program) = (place.path("mnt"), nobodys_program(&place));
    let volume = format!("volume:file:{}", place.path("volume").display());
    let (code, _, errors) = outcome(as_nobody(&program).args(["volume", "create", &volume]));
    assert_eq!(code, 0, "{errors}");
    // It is mounted by root, so that this does not depend on fusermount3. Root's daemon may do no more than root's files let it.
    let moved = outcome(
        Command::new("chown")
            .args(["-R", "0:0"])
            .arg(place.path("volume")),
    );
    assert_eq!(moved.0, 0, "{}", moved.2);
    let mut mounted = Mounted::new(&place, &["--allow-other"], &volume);
    let (code, _, errors) = outcome(as_nobody("touch").arg(point.join("f")));
    assert_eq!(code, 0, "{errors}");
    let owner = std::fs::metadata(&point).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (NOBODY, NOBODY));
    mounted.daemon.stop(Signal::TERM);
}

#[test]
fn who_has_a_volume_open_is_told_by_the_number_that_the_host_knows() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let volume = format!("volume:file:{}", place.path("volume").display());
    let (code, _, errors) = outcome(&mut vfsd(["volume", "create", &volume]));
    assert_eq!(code, 0, "{errors}");
    let mut mounted = Mounted::new(&place, &[], &volume);
    // It is mounted before the volume is open.
    std::fs::read_dir(&mounted.point).unwrap();
    let process = format!("process {}", mounted.serving().as_raw_nonzero());
    let (_, told, errors) = outcome(&mut vfsd(["volume", "stat", &volume]));
    assert!(
        told.contains(&format!("used_by {process}\n")),
        "{told}{errors}"
    );
    let (code, _, errors) = outcome(&mut vfsd(["volume", "check", &volume]));
    assert_eq!(code, 1, "{errors}");
    assert!(
        errors.contains(&format!("in use by {process}: stop")),
        "{errors}"
    );
    mounted.daemon.stop(Signal::TERM);
}

#[test]
fn the_root_of_a_volume_is_whose_it_was_said_to_be() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let make = |name: &str, words: &[&str]| {
        let volume = format!("volume:file:{}", place.path(name).display());
        let (code, _, errors) = outcome(vfsd(["volume", "create", &volume]).args(words));
        assert_eq!(code, 0, "{errors}");
        let mut mounted = Mounted::new(&place, &[], &volume);
        let found = std::fs::metadata(place.path("mnt")).unwrap();
        mounted.daemon.stop(Signal::TERM);
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(make("usual", &[]), (0, 0, 0o755));
    let given = make("given", &["--owner", "1000:100", "--mode", "1770"]);
    assert_eq!(given, (1000, 100, 0o1770));
}

/// A command of an ordinary user.
fn as_nobody(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .arg("--clear-groups")
        .arg(program);
    command
}
