//! What a daemon that serves can still do, as the kernel tells it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal};

use crate::process::{Daemon, Place, not_root, outcome, status, text, vfsd};

const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const FOWNER: u64 = 1 << 3;
const FSETID: u64 = 1 << 4;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SYS_ADMIN: u64 = 1 << 21;
const MKNOD: u64 = 1 << 27;
const SETFCAP: u64 = 1 << 31;

const FILES: u64 = CHOWN | DAC_OVERRIDE | FOWNER | FSETID | SETGID | SETUID | SETFCAP | MKNOD;

/// Stands for what a daemon keeps to open files by handle when it may have few descriptors.
const HANDLES: u64 = 1 << 63;

/// Whether a daemon can do without handles. Not every root may have as many open files as it wants.
fn has_many_descriptors(pid: Pid) -> bool {
    let limits = std::fs::read_to_string(proc(pid, "limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3).unwrap();
    soft.parse::<u64>().unwrap() > 401_000
}

/// A daemon in a sandbox, and the process that serves.
fn serve(place: &Place, options: &[&str], source: &str) -> (Daemon, Pid) {
    let socket = place.socket();
    let mut words = vec!["serve", "--socket-path", text(&socket)];
    words.extend(options);
    words.push(source);
    let daemon = Daemon::listening(&mut vfsd(words), &socket);
    daemon.wait_for_threads();
    let pid = daemon.serving();
    (daemon, pid)
}

fn set(pid: Pid, key: &str) -> u64 {
    u64::from_str_radix(&status(pid, key), 16).unwrap()
}

fn proc(pid: Pid, entry: &str) -> String {
    format!("/proc/{}/{entry}", pid.as_raw_nonzero())
}

fn namespace(pid: &str, kind: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

#[test]
fn only_the_capabilities_that_the_storage_needs_are_left_in_any_set() {
    if not_root() {
        return;
    }
    let place = Place::new();
    let share = place.share();
    let directory = text(&share);
    for (options, source, kept) in [
        (&[][..], directory, FILES | HANDLES),
        (
            &["--no-device-nodes"],
            directory,
            (FILES | HANDLES) & !MKNOD,
        ),
        (&["--inode-file-handles=never"], directory, FILES),
        (
            &["--inode-file-handles=prefer"],
            directory,
            FILES | DAC_READ_SEARCH,
        ),
        (
            &["--rlimit-nofile=9999"],
            directory,
            FILES | DAC_READ_SEARCH,
        ),
        (
            &["--rlimit-nofile=9999", "--modcaps=-dac_read_search"],
            directory,
            FILES,
        ),
        (
            &["--modcaps=+sys_admin:-setfcap"],
            directory,
            (FILES | HANDLES | SYS_ADMIN) & !SETFCAP,
        ),
        (&["--sandbox=chroot"], directory, FILES | HANDLES),
        (&["--sandbox=none"], directory, FILES | HANDLES),
        (&[], "memory:", 0),
    ] {
        let (mut daemon, pid) = serve(&place, options, source);
        let kept = match kept & HANDLES {
            0 => kept,
            _ if has_many_descriptors(pid) => kept & !HANDLES,
            _ => kept & !HANDLES | DAC_READ_SEARCH,
        };
        for key in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(set(pid, key), kept, "{key} with {options:?} of {source}");
        }
        for key in ["CapInh:", "CapAmb:"] {
            assert_eq!(set(pid, key), 0, "{key} with {options:?} of {source}");
        }
        daemon.stop(Signal::TERM);
    }
}

#[test]
fn no_descriptor_leads_to_the_rest_of_proc() {
    if not_root() {
        return;
    }
    let place = Place::new();
    let share = place.share();
    for sandbox in ["--sandbox=chroot", "--sandbox=namespace"] {
        let (mut daemon, pid) = serve(&place, &[sandbox], text(&share));
        let mut directories = 0;
        for entry in std::fs::read_dir(proc(pid, "fd")).unwrap().flatten() {
            let open = entry.path();
            if !std::fs::metadata(&open).is_ok_and(|status| status.is_dir()) {
                continue;
            }
            directories += 1;
            // As far as a process of the host can follow it; it starts in the daemon's own mounts.
            let beyond = open.join("../../sys/kernel/core_pattern");
            assert!(!beyond.exists(), "{sandbox}: {}", beyond.display());
        }
        assert!(directories >= 2, "{sandbox}: the share and /proc/self/fd");
        daemon.stop(Signal::TERM);
    }
}

#[test]
fn every_thread_is_confined() {
    let place = Place::new();
    let share = place.share();
    let (mut daemon, pid) = serve(&place, &[], text(&share));
    let threads: Vec<_> = std::fs::read_dir(proc(pid, "task"))
        .unwrap()
        .flatten()
        .collect();
    assert!(threads.len() > 1);
    for thread in threads {
        let thread = Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap()).unwrap();
        assert_eq!(status(thread, "NoNewPrivs:"), "1");
        assert_eq!(status(thread, "Seccomp:"), "2");
        if rustix::process::geteuid().is_root() {
            assert_eq!(status(thread, "Groups:"), "");
        }
    }
    daemon.stop(Signal::TERM);
}

#[test]
fn supplementary_groups_are_left_behind() {
    if not_root() {
        return;
    }
    let place = Place::new();
    let (socket, share) = (place.socket(), place.share());
    let mut command = std::process::Command::new("setpriv");
    command
        .args([
            "--groups",
            "4,24,27",
            env!("CARGO_BIN_EXE_vfsd"),
            "serve",
            "--socket-path",
        ])
        .args([&socket, &share]);
    let mut daemon = Daemon::listening(&mut command, &socket);
    daemon.wait_for_threads();
    assert_eq!(status(daemon.serving(), "Groups:"), "");
    daemon.stop(Signal::TERM);
}

#[test]
fn nothing_of_the_host_is_mounted_in_the_sandbox_but_the_shares() {
    let place = Place::new();
    let share = place.share();
    for (options, access) in [(&[][..], "rw,"), (&["--readonly"], "ro,")] {
        let (mut daemon, pid) = serve(&place, options, text(&share));
        let mounts = std::fs::read_to_string(proc(pid, "mountinfo")).unwrap();
        let mounts: Vec<Vec<&str>> = mounts
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        assert_eq!(mounts[0][4], "/");
        assert!(
            mounts[0][5].starts_with("ro,nosuid,nodev,noexec"),
            "{mounts:?}"
        );
        assert_eq!(mounts[1][4], "/0");
        assert!(mounts[1][5].starts_with(access), "{mounts:?}");
        assert!(mounts[1][5].contains("nosuid,nodev"), "{mounts:?}");
        daemon.stop(Signal::TERM);
    }
}

#[test]
fn the_sandbox_has_namespaces_of_its_own() {
    let place = Place::new();
    let (mut daemon, pid) = serve(&place, &[], "memory:");
    let serving = pid.as_raw_nonzero().to_string();
    for kind in ["mnt", "net", "pid"] {
        assert_ne!(namespace(&serving, kind), namespace("self", kind), "{kind}");
    }
    let same_user = namespace(&serving, "user") == namespace("self", "user");
    assert_eq!(same_user, rustix::process::geteuid().is_root());
    assert!(
        status(pid, "NSpid:").ends_with("\t1"),
        "it is the first of its processes"
    );
    let interfaces = std::fs::read_to_string(proc(pid, "net/dev")).unwrap();
    let names: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|l| l.split(':').next())
        .collect();
    assert_eq!(
        names.iter().map(|name| name.trim()).collect::<Vec<_>>(),
        ["lo"]
    );
    daemon.stop(Signal::TERM);
}

#[test]
fn descriptors_of_whoever_started_the_daemon_do_not_reach_the_sandbox() {
    let place = Place::new();
    let share = place.share();
    let secret = place.path("secret");
    std::fs::write(&secret, "").unwrap();
    let leaked = std::fs::File::open(&secret).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let (mut daemon, pid) = serve(&place, &[], text(&share));
    drop(leaked);
    let open = |pid: Pid| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(proc(pid, "fd")).unwrap().flatten();
        entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .collect()
    };
    assert!(!open(pid).contains(&secret), "{:?}", open(pid));
    assert!(
        open(daemon.pid()).contains(&secret),
        "the supervisor keeps what it was given"
    );
    let inside = |path: &Path| {
        let text = path.to_str().unwrap();
        ["/0", "/", "/dev/null", "/fd"].contains(&text)
            || ["socket:", "pipe:", "anon_inode:", "/dev/pts/", "/proc/"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
    };
    let stray: Vec<_> = open(pid).into_iter().filter(|path| !inside(path)).collect();
    // Standard output is the test's own.
    assert!(stray.len() <= 1, "{stray:?}");
    daemon.stop(Signal::TERM);
}

#[test]
fn no_core_is_dumped_and_open_files_are_limited() {
    let place = Place::new();
    let (mut daemon, pid) = serve(&place, &["--rlimit-nofile", "1500"], "memory:");
    let limits = std::fs::read_to_string(proc(pid, "limits")).unwrap();
    let limit = |name: &str| -> Vec<String> {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max open files"), ["1500", "1500"]);
    daemon.stop(Signal::TERM);
}

#[test]
fn an_ordinary_user_gets_a_sandbox_too() {
    if not_root() {
        return;
    }
    let place = Place::new();
    let (socket, share) = (place.socket(), place.share());
    let nobody = rustix::process::Uid::from_raw(65_534);
    for path in [socket.parent().unwrap(), &share] {
        rustix::fs::chown(path, Some(nobody), None).unwrap();
    }
    // The program may be where an ordinary user cannot reach it.
    let program = place.path("vfsd");
    // By another process: one that is forked meanwhile must not have the program open to write it.
    let copied = std::process::Command::new("cp")
        .args([env!("CARGO_BIN_EXE_vfsd").as_ref(), program.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["serve", "--socket-path"])
        .args([&socket, &share]);
    let mut daemon = Daemon::listening(&mut command, &socket);
    daemon.wait_for_threads();
    let pid = daemon.serving();
    let map = std::fs::read_to_string(proc(pid, "uid_map")).unwrap();
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["65534", "65534", "1"]
    );
    assert_eq!(set(pid, "CapEff:") & !FILES, 0);
    assert_eq!(set(pid, "CapBnd:") & !FILES, 0);
    assert_ne!(
        namespace(&pid.as_raw_nonzero().to_string(), "user"),
        namespace("self", "user")
    );
    daemon.stop(Signal::TERM);
    assert!(!socket.exists());
}

#[test]
fn without_a_sandbox_there_is_one_warning() {
    let place = Place::new();
    let (mut daemon, _) = serve(&place, &["--sandbox=none", "--rlimit-nofile=0"], "memory:");
    daemon.stop(Signal::TERM);
    let errors = daemon.errors();
    assert_eq!(errors.matches("WARN").count(), 1, "{errors}");
    assert!(errors.contains("no sandbox"), "{errors}");
}

#[test]
fn what_a_daemon_keeps_is_for_its_user_alone() {
    let place = Place::new();
    let (layout, cache, volume) = (
        place.path("layout"),
        place.path("cache"),
        place.path("volume"),
    );
    crate::images::layout(&layout, "content");
    // As a host has it where the operator made it.
    std::fs::create_dir(&cache).unwrap();
    let image = format!("oci:{}:t", layout.display());
    let (mut of_image, _) = serve(&place, &["--cache-dir", text(&cache)], &image);
    let other = Place::new();
    std::fs::create_dir(&volume).unwrap();
    let source = format!("volume:file:{}", volume.display());
    let (code, _, errors) = outcome(&mut vfsd(["volume", "create", &source]));
    assert_eq!(code, 0, "{errors}");
    let (mut of_volume, _) = serve(&other, &[], &source);
    let mut seen = 0;
    let mut folders = vec![cache, volume];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, about) = entry.map(|entry| (entry.path(), entry.metadata())).unwrap();
            // Files of SQLite come and go.
            let Ok(about) = about else { continue };
            let mode = about.permissions().mode() & 0o7777;
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            seen += 1;
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen > 10, "{seen}");
    of_image.stop(Signal::TERM);
    of_volume.stop(Signal::TERM);
}
