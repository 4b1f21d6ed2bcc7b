//! Mounts on this host of which another mount namespace has a copy, and a server that does not answer when it is to end.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};

use crate::mounting::{Mounted, cannot_mount, is_mounted, unmount_idle};
use crate::process::{Helper, Place, text, wait_until};

/// What a process does in a mount namespace of its own, which has copies of all mounts. Those of other tests would keep
/// their daemons.
const HOLD: &str = r#"
    while read -r _ point kind _; do
        [ "$kind" != fuse.vfsd ] || [ "$point" = "$1" ] || umount --lazy "$point"
    done </proc/self/mounts
    exec 3>"$2" && printf kept >&3 && exec sleep 100 >&3
"#;

/// A process in a mount namespace of its own, which has written through its copy of a mount and holds the file open.
fn in_another_namespace(mounted: &Mounted, file: &Path) -> Helper {
    let child = Command::new("timeout")
        .args(["100", "unshare", "--mount", "sh", "-c", HOLD, "hold"])
        .args([&mounted.point, file])
        .stdout(Stdio::null())
        .spawn();
    let holder = Helper(child.unwrap());
    wait_until("the file of the other namespace", || {
        std::fs::metadata(file).is_ok_and(|file| file.len() == 4)
    });
    holder
}

#[test]
fn a_mount_that_another_namespace_has_too_is_cut_off_by_the_first_signal_and_loses_nothing() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let source = format!("dir:{}", text(&place.share()));
    for options in [&[][..], &["--writeback"], &["--sandbox=none"]] {
        let mut mounted = Mounted::new(&place, options, &source);
        let _holder = in_another_namespace(&mounted, &mounted.path("f"));
        mounted.daemon.stop(Signal::TERM);
        assert!(!is_mounted(&mounted.point), "{options:?}");
        let written = std::fs::read(place.share().join("f")).unwrap();
        assert_eq!(written, b"kept", "{options:?}");
        let errors = mounted.daemon.errors();
        assert!(
            errors.contains("another mount namespace has") && !errors.contains("killed"),
            "{options:?}: {errors}"
        );
        std::fs::remove_file(place.share().join("f")).unwrap();
    }
}

#[test]
fn a_copy_in_another_namespace_is_served_after_the_unmount_until_the_first_signal() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:");
    let _holder = in_another_namespace(&mounted, &mounted.path("f"));
    unmount_idle(&mounted.point);
    assert!(mounted.daemon.runs());
    mounted.daemon.stop(Signal::TERM);
    let errors = mounted.daemon.errors();
    assert!(errors.contains("another mount namespace has"), "{errors}");
}

#[test]
fn a_second_signal_ends_a_daemon_whose_server_does_not_answer() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:");
    mounted.daemon.wait_for_threads();
    kill_process(mounted.serving(), Signal::STOP).unwrap();
    // Signals that wait together are one.
    wait_until("the end", || {
        let runs = mounted.daemon.runs();
        if runs {
            mounted.daemon.signal(Signal::TERM);
        }
        !runs
    });
    assert_eq!(mounted.daemon.end().code(), Some(0));
    assert!(!is_mounted(&mounted.point));
}
