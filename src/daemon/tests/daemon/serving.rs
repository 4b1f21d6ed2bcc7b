//! Sockets, the files beside them, signals and front ends that come and go.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::process::Signal;

use crate::managed::told;
use crate::process::{Daemon, ENDING, Place, ask, not_root, outcome, text, vfsd, wait_until};

/// Ways to keep the daemon in, as far as they are permitted here.
fn sandboxes() -> &'static [&'static str] {
    if not_root() {
        &["none", "namespace"]
    } else {
        &["none", "namespace", "chroot"]
    }
}

#[test]
fn a_signal_ends_the_daemon_with_0_and_removes_its_files() {
    for sandbox in sandboxes() {
        for signal in ENDING {
            let place = Place::new();
            let (socket, share) = (place.socket(), place.share());
            let control = place.path("control");
            let words = [
                "serve",
                "--sandbox",
                sandbox,
                "--socket-path",
                text(&socket),
                "--control",
                text(&control),
                text(&share),
            ];
            let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
            wait_until("the control socket", || control.exists());
            assert_eq!(socket.metadata().unwrap().mode() & 0o7777, 0o600);
            assert_eq!(control.metadata().unwrap().mode() & 0o7777, 0o600);
            daemon.stop(signal);
            assert!(!socket.exists(), "{sandbox} {signal:?}");
            assert!(!control.exists(), "{sandbox} {signal:?}");
        }
    }
}

#[test]
fn the_daemon_ends_with_0_when_its_front_end_leaves() {
    for sandbox in sandboxes() {
        let place = Place::new();
        let (socket, share) = (place.socket(), place.share());
        let words = [
            "serve",
            "--sandbox",
            sandbox,
            "--socket-path",
            text(&socket),
            text(&share),
        ];
        let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
        drop(UnixStream::connect(&socket).unwrap());
        let status = daemon.end();
        assert_eq!(status.code(), Some(0), "{sandbox}: {}", daemon.errors());
        assert!(!socket.exists(), "{sandbox}");
    }
}

#[test]
fn with_reconnect_the_next_front_end_is_served() {
    let place = Place::new();
    let (socket, control) = (place.socket(), place.path("control"));
    let words = [
        "serve",
        "--reconnect",
        "--socket-path",
        text(&socket),
        "--control",
        text(&control),
        "memory:",
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    for count in 1..=20 {
        drop(UnixStream::connect(&socket).unwrap());
        let line = format!("connections {count}\n");
        wait_until("the connection to be counted", || {
            ask(&control, "status").contains(&line)
        });
    }
    assert!(daemon.runs());
    daemon.stop(Signal::TERM);
}

#[test]
fn virtiofsd_keeps_a_locked_file_with_its_process_id() {
    let place = Place::new();
    let (socket, share) = (place.socket(), place.share());
    let pid_file = place.path("socket.pid");
    let words = [
        "virtiofsd",
        "--socket-path",
        text(&socket),
        "--shared-dir",
        text(&share),
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    let content = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(content, format!("{}\n", daemon.pid().as_raw_nonzero()));

    let (code, _, errors) = outcome(&mut vfsd(words));
    assert_eq!(code, 1);
    assert!(
        errors.lines().last().unwrap().contains("socket.pid"),
        "{errors}"
    );
    assert!(daemon.runs());

    daemon.stop(Signal::TERM);
    assert!(!pid_file.exists());
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_is_served_is_not_taken_over() {
    let place = Place::new();
    let socket = place.socket();
    let words = ["serve", "--socket-path", text(&socket), "memory:"];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    let (code, _, errors) = outcome(&mut vfsd(words));
    assert_eq!(code, 1, "{errors}");
    assert!(
        daemon.runs(),
        "the second daemon's question was taken for a front end"
    );
    daemon.stop(Signal::TERM);
}

#[test]
fn a_socket_that_was_left_over_is_replaced() {
    let place = Place::new();
    let socket = place.socket();
    drop(UnixListener::bind(&socket).unwrap());
    let words = ["serve", "--socket-path", text(&socket), "memory:"];
    let mut daemon = Daemon::start(&mut vfsd(words));
    daemon.wait_for_threads();
    assert!(socket.metadata().unwrap().file_type().is_socket());
    drop(UnixStream::connect(&socket).unwrap());
    assert_eq!(daemon.end().code(), Some(0));
}

#[test]
fn the_socket_belongs_to_the_group_that_may_connect() {
    if not_root() {
        return;
    }
    let place = Place::new();
    let socket = place.socket();
    let words = [
        "serve",
        "--socket-path",
        text(&socket),
        "--socket-group",
        "daemon",
        "memory:",
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    daemon.wait_for_threads();
    let metadata = socket.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o660);
    assert_ne!(metadata.gid(), 0);
    daemon.stop(Signal::TERM);
}

#[test]
fn an_inherited_listening_socket_is_served_and_left_in_place() {
    let place = Place::new();
    let socket = place.socket();
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let number = listener.as_raw_fd().to_string();
    let words = [
        "virtiofsd",
        "--fd",
        &number,
        "-o",
        "source=/tmp,cache=auto,flock",
    ];
    let mut daemon = Daemon::start(&mut vfsd(words));
    drop(listener);
    drop(UnixStream::connect(&socket).unwrap());
    assert_eq!(daemon.end().code(), Some(0), "{}", daemon.errors());
    assert!(socket.exists());
}

#[test]
fn several_exports_are_listed_by_the_control_socket() {
    let place = Place::new();
    let (socket, control) = (place.socket(), place.path("control"));
    let (file, share) = (place.path("vfsd.toml"), place.share());
    std::fs::write(
        &file,
        format!(
            "[[export]]\nname = 'home'\nsource = '{}'\nreadonly = true\n\
             [[export]]\nname = 'scratch'\nsource = 'memory:'\n",
            text(&share)
        ),
    )
    .unwrap();
    let words = [
        "serve",
        "--config",
        text(&file),
        "--socket-path",
        text(&socket),
        "--control",
        text(&control),
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    wait_until("the control socket", || control.exists());
    let status = ask(&control, "status");
    assert!(
        status.contains(&format!("export /home dir:{} ro\n", text(&share))),
        "{status}"
    );
    assert!(status.contains("export /scratch memory: rw\n"), "{status}");
    assert!(ask(&control, "metrics").contains("# TYPE vfsd_requests_total counter\n"));
    assert!(ask(&control, "quit").starts_with("error"));
    daemon.stop(Signal::TERM);
}

#[test]
fn log_lines_are_json_when_asked_for() {
    let place = Place::new();
    let (socket, notify) = (place.socket(), place.path("notify"));
    let words = [
        "serve",
        "--log-format",
        "json",
        "--socket-path",
        text(&socket),
        "memory:",
    ];
    let manager = UnixDatagram::bind(&notify).unwrap();
    let mut daemon = Daemon::start(vfsd(words).env("NOTIFY_SOCKET", &notify));
    assert_eq!(told(&manager), "READY=1\n");
    daemon.stop(Signal::TERM);
    let errors = daemon.errors();
    let lines: Vec<serde_json::Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "Waiting for vhost-user socket connection..."),
        "{errors}"
    );
}

#[test]
fn rust_log_wins_over_the_log_level() {
    let place = Place::new();
    let socket = place.socket();
    let words = [
        "serve",
        "--log-level",
        "trace",
        "--socket-path",
        text(&socket),
        "memory:",
    ];
    let mut daemon = Daemon::listening(vfsd(words).env("RUST_LOG", "off"), &socket);
    daemon.wait_for_threads();
    daemon.stop(Signal::TERM);
    assert_eq!(daemon.errors(), "");
    let (code, _, errors) = outcome(vfsd(words).env("RUST_LOG", "vfsd=loudest"));
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("RUST_LOG"), "{errors}");
}

#[test]
fn a_daemon_whose_supervisor_is_killed_ends_too() {
    let place = Place::new();
    let (socket, share) = (place.socket(), place.share());
    let words = ["serve", "--socket-path", text(&socket), text(&share)];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    daemon.wait_for_threads();
    let serving = daemon.serving();
    assert_ne!(serving, daemon.pid());
    daemon.signal(Signal::KILL);
    daemon.end();
    let process = format!("/proc/{}/exe", serving.as_raw_nonzero());
    wait_until("the orphaned daemon's end", || {
        std::fs::read_link(&process).is_err()
    });
}
