//! Mounts on this host.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::process::{
    Daemon, ENDING, Place, ask, children, not_root, outcome, status, text, vfsd, wait_until,
};

/// How many file systems are mounted there, one over another.
fn mounts(point: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().map(|line| line.split(' ').nth(4));
    points.filter(|at| *at == point.to_str()).count()
}

/// Whether a file system is mounted there.
pub(crate) fn is_mounted(point: &Path) -> bool {
    mounts(point) > 0
}

/// A place where nothing is mounted any more when this is dropped.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        while is_mounted(&self.0) {
            rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

pub(crate) fn cannot_mount() -> bool {
    let missing = !Path::new("/dev/fuse").exists();
    if missing {
        eprintln!("skipped: it takes /dev/fuse");
    }
    missing || not_root()
}

/// Unmounts what nobody uses. A process that another test starts has, until its program begins, all open that is open
/// here.
pub(crate) fn unmount_idle(point: &Path) {
    wait_until("the mount to be idle", || {
        match rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => false,
            other => {
                other.unwrap();
                true
            }
        }
    });
}

/// A mounted source, unmounted when dropped, whatever becomes of the test.
pub(crate) struct Mounted {
    pub(crate) daemon: Daemon,
    pub(crate) point: PathBuf,
    control: PathBuf,
}

impl Mounted {
    pub(crate) fn new(place: &Place, options: &[&str], source: &str) -> Self {
        let (point, control) = (place.path("mnt"), place.path("control"));
        let mut words = vec!["mount", "--control", text(&control)];
        words.extend(options);
        words.extend([source, text(&point)]);
        let mut mounted = Self {
            daemon: Daemon::start(&mut vfsd(words)),
            point,
            control,
        };
        wait_until("the mount", || {
            assert!(mounted.daemon.runs(), "{}", mounted.daemon.errors());
            is_mounted(&mounted.point)
        });
        mounted
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// The process that answers.
    pub(crate) fn serving(&self) -> Pid {
        self.daemon.serving()
    }

    /// Waits until as many requests wait for a lock.
    pub(crate) fn wait_for_lock_waits(&self, count: usize) {
        let line = format!("lock_waits {count}\n");
        wait_until(&line, || ask(&self.control, "status").contains(&line));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mounted(&self.point) {
            // A test that fails leaves nothing behind.
            let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Both storages of this version.
pub(crate) fn sources(place: &Place) -> [String; 2] {
    [
        "memory:".to_owned(),
        format!("dir:{}", text(&place.share())),
    ]
}

#[test]
fn files_are_written_and_read_through_a_mount() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    for source in sources(&place) {
        for sandbox in ["--sandbox=namespace", "--sandbox=none"] {
            let mut mounted = Mounted::new(&place, &[sandbox], &source);
            let large: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_ne_bytes).collect();
            std::fs::create_dir(mounted.path("d")).unwrap();
            std::fs::write(mounted.path("d/large"), &large).unwrap();
            std::os::unix::fs::symlink("large", mounted.path("d/link")).unwrap();
            std::fs::rename(mounted.path("d"), mounted.path("e")).unwrap();
            assert!(
                std::fs::read(mounted.path("e/link")).unwrap() == large,
                "{source}"
            );
            let names: Vec<_> = std::fs::read_dir(&mounted.point)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(names, ["e"], "{source}");
            std::fs::remove_dir_all(mounted.path("e")).unwrap();
            mounted.daemon.stop(Signal::TERM);
            assert!(!is_mounted(&mounted.point), "{source}");
        }
    }
}

#[test]
fn a_signal_unmounts_and_ends_with_0() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    for signal in ENDING {
        let mut mounted = Mounted::new(&place, &[], "memory:");
        mounted.daemon.stop(signal);
        assert!(!is_mounted(&mounted.point), "{signal:?}");
        assert!(!mounted.control.exists(), "{signal:?}");
    }
}

#[test]
fn a_mount_in_use_goes_too_and_loses_nothing_that_was_written() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let source = format!("dir:{}", text(&place.share()));
    for options in [&[][..], &["--writeback"]] {
        let mut mounted = Mounted::new(&place, options, &source);
        let mut open = File::create(mounted.path("f")).unwrap();
        open.write_all(b"kept").unwrap();
        mounted.daemon.stop(Signal::TERM);
        assert!(!is_mounted(&mounted.point), "{options:?}");
        assert_eq!(
            std::fs::read(place.share().join("f")).unwrap(),
            b"kept",
            "{options:?}"
        );
        let lost = open.write_all(b"lost");
        lost.and_then(|()| open.sync_all()).unwrap_err();
        // It could finish what it does at its end.
        let errors = mounted.daemon.errors();
        assert!(!errors.contains("killed"), "{options:?}: {errors}");
    }
}

#[test]
fn a_mount_under_load_is_cut_off_and_its_daemon_ends_with_0() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    for _ in 0..8 {
        let mut mounted = Mounted::new(&place, &[], "memory:");
        let users: Vec<_> = (0..6)
            .map(|number| {
                let file = File::create(mounted.path(&number.to_string())).unwrap();
                std::thread::spawn(move || while file.write_all_at(b"some", 0).is_ok() {})
            })
            .collect();
        mounted.daemon.stop(Signal::TERM);
        for user in users {
            user.join().unwrap();
        }
        assert!(!is_mounted(&mounted.point));
    }
}

#[test]
fn the_daemon_ends_with_0_when_somebody_unmounts() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    for sandbox in ["--sandbox=namespace", "--sandbox=none"] {
        let mut mounted = Mounted::new(&place, &[sandbox], "memory:");
        assert!(std::fs::read_dir(&mounted.point).unwrap().next().is_none());
        unmount_idle(&mounted.point);
        let status = mounted.daemon.end();
        assert_eq!(
            status.code(),
            Some(0),
            "{sandbox}: {}",
            mounted.daemon.errors()
        );
    }
}

#[test]
fn a_server_that_is_killed_leaves_no_dead_mount() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:");
    std::fs::write(mounted.path("f"), "").unwrap();
    kill_process(mounted.daemon.serving(), Signal::KILL).unwrap();
    assert_eq!(mounted.daemon.end().code(), Some(1));
    assert!(!is_mounted(&mounted.point));
    let errors = mounted.daemon.errors();
    assert!(
        errors.lines().last().unwrap().contains("signal 9"),
        "{errors}"
    );
}

#[test]
fn who_is_told_twice_at_once_to_end_does_so_in_order() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:");
    std::fs::write(mounted.path("f"), "").unwrap();
    let (first, serving) = (mounted.daemon.pid(), mounted.daemon.serving());
    kill_process(serving, Signal::STOP).unwrap();
    // As timeout(1) does: the process, and then its group.
    for _ in 0..2 {
        mounted.daemon.signal(Signal::TERM);
        wait_until("the signal to be taken", || {
            let pending = u64::from_str_radix(&status(first, "ShdPnd:"), 16).unwrap();
            pending & 1 << (Signal::TERM.as_raw() - 1) == 0
        });
    }
    kill_process(serving, Signal::CONT).unwrap();
    assert_eq!(mounted.daemon.end().code(), Some(0));
    assert!(!is_mounted(&mounted.point));
    let errors = mounted.daemon.errors();
    assert!(!errors.contains("killed"), "{errors}");
}

#[test]
fn a_dead_mount_is_taken_away_by_the_next_one() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let link = place.path("link");
    std::os::unix::fs::symlink(place.path("mnt"), &link).unwrap();
    for options in [&[][..], &["--sandbox=none"]] {
        let mut killed = Mounted::new(&place, options, "memory:");
        std::fs::write(killed.path("f"), "").unwrap();
        // All of them, the last one first to be told nothing: nobody is left to unmount.
        let mut line = vec![killed.daemon.pid()];
        while let Some(child) = children(line[line.len() - 1]).first() {
            line.push(*child);
        }
        kill_process(line[0], Signal::KILL).unwrap();
        killed.daemon.end();
        wait_until("a dead mount", || {
            // Unlike attributes it is not remembered.
            let asked = rustix::fs::statfs(&killed.point);
            asked.err() == Some(rustix::io::Errno::NOTCONN)
        });
        // Also by another name of the place.
        let mut command = vfsd(["mount", "memory:"]);
        let mut daemon = Daemon::start(command.args(options).arg(&link));
        wait_until("the new mount", || {
            assert!(daemon.runs(), "{}", daemon.errors());
            std::fs::read_dir(&killed.point).is_ok_and(|names| names.count() == 0)
                && is_mounted(&killed.point)
        });
        daemon.stop(Signal::TERM);
        assert!(!is_mounted(&killed.point));
        let errors = daemon.errors();
        assert!(
            errors.contains("took away fuse.vfsd of memory:"),
            "{errors}"
        );
    }
}

#[test]
fn a_dead_mount_of_another_program_is_named_and_left() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let point = place.path("mnt");
    // Its server ends at once.
    let mounted = Command::new("sh")
        .args(["-c", "exec 3<>/dev/fuse && mount -i -t fuse.other -o fd=3,rootmode=40000,user_id=0,group_id=0 nfs:/x \"$1\""])
        .arg("mount")
        .arg(&point)
        .status();
    assert!(mounted.unwrap().success());
    let (code, _, errors) = outcome(vfsd(["mount", "memory:"]).arg(&point));
    assert_eq!(code, 1, "{errors}");
    let told = format!(
        "vfsd: {0} is a mount, fuse.other of nfs:/x, whose server has ended: take it away with `umount -l {0}`\n",
        text(&point)
    );
    assert!(errors.ends_with(&told), "{errors}");
    assert!(is_mounted(&point));
    let unmounted = Command::new("umount").arg("-l").arg(&point).status();
    assert!(unmounted.unwrap().success());
}

#[test]
fn another_mount_at_the_same_place_is_left_alone() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:");
    unmount_idle(&mounted.point);
    let other = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&mounted.point)
        .status();
    assert!(other.unwrap().success());
    assert_eq!(mounted.daemon.end().code(), Some(0));
    assert!(is_mounted(&mounted.point));
    unmount_idle(&mounted.point);
}

#[test]
fn a_readonly_mount_refuses_changes() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    std::fs::write(place.share().join("f"), "content").unwrap();
    let source = format!("dir:{}", text(&place.share()));
    let mut mounted = Mounted::new(&place, &["--readonly"], &source);
    assert_eq!(std::fs::read(mounted.path("f")).unwrap(), b"content");
    let error = std::fs::write(mounted.path("g"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    mounted.daemon.stop(Signal::TERM);
}

#[test]
fn a_single_file_is_mounted_on_a_file() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let (file, point) = (place.path("file"), place.path("point"));
    std::fs::write(&file, "content").unwrap();
    std::fs::write(&point, "covered").unwrap();
    let mut daemon = Daemon::start(&mut vfsd(["mount", text(&file), text(&point)]));
    wait_until("the mount", || daemon.runs() && is_mounted(&point));
    assert_eq!(std::fs::read(&point).unwrap(), b"content");
    daemon.stop(Signal::TERM);
    assert_eq!(std::fs::read(&point).unwrap(), b"covered");
}

#[test]
fn what_is_mounted_on_the_other_kind_is_refused_and_leaves_no_mount() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let (file, directory) = (place.path("file"), place.path("directory"));
    std::fs::write(&file, "content").unwrap();
    std::fs::create_dir(&directory).unwrap();
    for (source, point) in [(&directory, &file), (&file, &directory)] {
        let mut daemon = Daemon::start(&mut vfsd(["mount", text(source), text(point)]));
        assert_eq!(daemon.end().code(), Some(2));
        let errors = daemon.errors();
        assert!(errors.contains("mount point is a"), "{errors}");
        assert!(!is_mounted(point));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
}

#[test]
fn other_users_have_access_to_roots_mounts_unless_told_otherwise() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let outer = place.path("mnt").parent().unwrap().to_owned();
    rustix::fs::chmod(&outer, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    for (options, expected) in [(&[][..], true), (&["--no-allow-other"], false)] {
        let mut mounted = Mounted::new(&place, options, "memory:");
        let mut look = Command::new("setpriv");
        look.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"])
            .arg(&mounted.point);
        assert_eq!(outcome(&mut look).0 == 0, expected, "{options:?}");
        mounted.daemon.stop(Signal::TERM);
    }
}

#[test]
fn a_tree_in_memory_is_as_large_as_it_was_said_to_be() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:?size=8M");
    let size = || rustix::fs::statvfs(&mounted.point).unwrap();
    assert_eq!(size().f_blocks * size().f_frsize, 8 << 20);
    let error = std::fs::write(mounted.path("f"), vec![1; 9 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(size().f_bfree < 16);
    std::fs::remove_file(mounted.path("f")).unwrap();
    // The kernel gives it up after the removal.
    wait_until("the room of the file", || {
        size().f_bfree * size().f_frsize >= 7 << 20
    });
    std::fs::write(mounted.path("g"), vec![1; 7 << 20]).unwrap();
    mounted.daemon.stop(Signal::TERM);
}

/// The names in a directory, by a program that a test can leave behind.
fn names(directory: &Path) -> String {
    let mut listing = Command::new("timeout");
    listing.args(["20", "ls"]).arg(directory);
    let (code, names, errors) = outcome(&mut listing);
    assert_eq!(code, 0, "{}: {errors}", directory.display());
    names.replace('\n', " ")
}

#[test]
fn a_source_is_mounted_over_itself_or_below_and_does_not_contain_the_mount() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let below = place.path("mnt/sub/point");
    std::fs::create_dir_all(&below).unwrap();
    let bound = place.path("bound");
    std::fs::create_dir(&bound).unwrap();
    rustix::mount::mount_bind(place.path("mnt"), &bound).unwrap();
    let _unbound = Unmounted(bound.clone());
    for (source, point) in [
        (place.path("mnt"), place.path("mnt")),
        (place.path("mnt"), below.clone()),
        (place.path("mnt"), bound.join("sub/point")),
        (place.path("mnt/sub/.."), bound.clone()),
        ("/".into(), below.clone()),
    ] {
        let under = mounts(&point);
        let mut daemon = Daemon::start(&mut vfsd(["mount", text(&source), text(&point)]));
        wait_until("the mount", || {
            assert!(daemon.runs(), "{}", daemon.errors());
            mounts(&point) == under + 1
        });
        let _unmounted = Unmounted(point.clone());
        if source == Path::new("/") {
            let again = point.join(below.strip_prefix("/").unwrap());
            assert_eq!(names(&again), "");
        } else {
            let again = point.join("sub/point");
            assert_eq!((names(&point), names(&again)), ("sub ".into(), "".into()));
            std::fs::write(again.join("f"), "written").unwrap();
            assert_eq!(names(&again), "f ");
            std::fs::remove_file(again.join("f")).unwrap();
        }
        daemon.stop(Signal::TERM);
        assert_eq!(mounts(&point), under);
    }
}

#[test]
fn a_mount_below_its_source_is_refused_where_it_cannot_be_kept_out() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let below = place.path("mnt/sub");
    std::fs::create_dir(&below).unwrap();
    for (source, point) in [
        (place.path("mnt"), place.path("mnt")),
        (place.path("mnt"), below.clone()),
        (place.path(""), below),
    ] {
        let words = ["mount", "--sandbox=none", text(&source), text(&point)];
        let mut daemon = Daemon::start(&mut vfsd(words));
        assert_eq!(daemon.end().code(), Some(1));
        let errors = daemon.errors();
        assert!(errors.contains("choose another place"), "{errors}");
        assert!(!is_mounted(&point));
    }
    // Beside a writable layer is not in it.
    let upper = place.path("upper");
    let mut mounted = Mounted::new(
        &place,
        &[
            "--sandbox=none",
            "--upper-xattr=user",
            "--upper",
            text(&upper),
        ],
        text(&place.share()),
    );
    std::fs::write(mounted.path("f"), "").unwrap();
    mounted.daemon.stop(Signal::TERM);
}

#[test]
fn a_write_beyond_the_limit_of_a_files_size_ends_nothing() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let source = format!("dir:{}", text(&place.share()));
    // The first process of a namespace survives most signals in any case.
    let mut mounted = Mounted::new(&place, &["--sandbox=none"], &source);
    mounted.daemon.wait_for_threads();
    let limit = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    prlimit(Some(mounted.daemon.serving()), Resource::Fsize, limit).unwrap();
    let error = std::fs::write(mounted.path("f"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    std::fs::write(mounted.path("g"), b"on").unwrap();
    assert_eq!(std::fs::read(mounted.path("g")).unwrap(), b"on");
    mounted.daemon.stop(Signal::TERM);
}

#[test]
fn the_process_that_mounts_is_not_the_one_that_serves() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mut mounted = Mounted::new(&place, &[], "memory:");
    mounted.daemon.wait_for_threads();
    assert_eq!(children(mounted.daemon.pid()).len(), 1);
    let serving = mounted.daemon.serving();
    assert_eq!(
        crate::process::status(serving, "CapEff:"),
        "0000000000000000"
    );
    assert_eq!(crate::process::status(serving, "Seccomp:"), "2");
    mounted.daemon.stop(Signal::TERM);
}
