//! A daemon that a service manager runs.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::images::layout;
use crate::mounting::cannot_mount;
use crate::process::{Daemon, Place, ask, not_root, outcome, text, vfsd};

/// Waits for what a manager is told first.
pub(crate) fn told(manager: &UnixDatagram) -> String {
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut line = [0; 100];
    let length = manager.recv(&mut line).unwrap();
    String::from_utf8_lossy(&line[..length]).into_owned()
}

#[test]
fn a_service_manager_is_told_when_a_guest_can_be_served() {
    if not_root() {
        return;
    }
    for sandbox in ["--sandbox=namespace", "--sandbox=chroot", "--sandbox=none"] {
        let place = Place::new();
        let (socket, control, share) = (place.socket(), place.path("control"), place.share());
        let name = format!("vfsd-test-{}", place.path("").display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let path = place.path("notify");
        for (manager, variable) in [
            (UnixDatagram::bind(&path), text(&path).to_owned()),
            (UnixDatagram::bind_addr(&address), format!("@{name}")),
        ] {
            let words = [
                "serve",
                sandbox,
                "--socket-path",
                text(&socket),
                "--control",
                text(&control),
                text(&share),
            ];
            let mut daemon = Daemon::start(vfsd(words).env("NOTIFY_SOCKET", &variable));
            assert_eq!(told(&manager.unwrap()), "READY=1\n", "{sandbox} {variable}");
            assert!(socket.exists() && ask(&control, "status").contains("export /"));
            daemon.stop(Signal::TERM);
        }
    }
}

#[test]
fn a_service_manager_is_told_when_a_mount_can_be_used() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let (path, point) = (place.path("notify"), place.path("mnt"));
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut command = vfsd(["mount", "memory:", text(&point)]);
    let mut daemon = Daemon::start(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(told(&manager), "READY=1\n");
    std::fs::write(point.join("f"), b"kept").unwrap();
    daemon.stop(Signal::TERM);
}

#[test]
fn a_manager_that_cannot_be_reached_is_no_reason_not_to_serve() {
    let place = Place::new();
    let socket = place.socket();
    let words = ["serve", "--socket-path", text(&socket), "memory:"];
    let mut command = vfsd(words);
    command.env("NOTIFY_SOCKET", place.path("none"));
    let mut daemon = Daemon::listening(&mut command, &socket);
    daemon.wait_for_threads();
    daemon.stop(Signal::TERM);
    let errors = daemon.errors();
    assert!(errors.contains("cannot reach NOTIFY_SOCKET"), "{errors}");
}

#[test]
fn signals_that_are_meant_for_other_programs_end_nothing() {
    let place = Place::new();
    let (socket, control) = (place.socket(), place.path("control"));
    let words = [
        "serve",
        "--socket-path",
        text(&socket),
        "--control",
        text(&control),
        "memory:",
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    daemon.wait_for_threads();
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::STKFLT,
    ] {
        daemon.signal(signal);
        rustix::process::kill_process(daemon.serving(), signal).unwrap();
        assert!(ask(&control, "status").contains("memory:"));
    }
    // A real-time signal has no name.
    for pid in [daemon.pid(), daemon.serving()] {
        let pid = pid.to_string();
        let sent = Command::new("kill").args(["-40", &pid]).status();
        assert!(sent.unwrap().success());
        assert!(ask(&control, "status").contains("memory:"));
    }
    daemon.stop(Signal::HUP);
}

#[test]
fn what_it_was_started_to_ignore_ends_nothing() {
    let place = Place::new();
    let (socket, control) = (place.socket(), place.path("control"));
    let ignored = [Signal::HUP, Signal::INT, Signal::QUIT];
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP INT QUIT TERM; exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_vfsd"), "serve", "--socket-path"])
        .args([&socket, Path::new("--control"), &control])
        .arg("memory:");
    let mut daemon = Daemon::listening(&mut command, &socket);
    daemon.wait_for_threads();
    for signal in ignored {
        daemon.signal(signal);
        rustix::process::kill_process(daemon.serving(), signal).unwrap();
        assert!(ask(&control, "status").contains("memory:"));
    }
    // That is how it is told to end by all who do so.
    daemon.stop(Signal::TERM);
}

#[test]
fn of_several_exports_the_one_that_cannot_be_served_is_named() {
    let place = Place::new();
    let (file, socket) = (place.path("vfsd.toml"), place.socket());
    let empty = place.path("volume");
    std::fs::create_dir(&empty).unwrap();
    for source in [
        "/no/such/place".to_owned(),
        format!("volume:file:{}", empty.display()),
    ] {
        let exports = format!(
            "[[export]]\nname = 'good'\nsource = 'memory:'\n[[export]]\nname = 'wrong'\nsource = '{source}'\n"
        );
        std::fs::write(&file, exports).unwrap();
        let words = [
            "serve",
            "--config",
            text(&file),
            "--socket-path",
            text(&socket),
        ];
        let (code, _, errors) = outcome(&mut vfsd(words));
        let last = errors.lines().last().unwrap_or_default();
        assert_eq!(code, 1, "{errors}");
        assert!(last.starts_with("vfsd: export \"wrong\": "), "{errors}");
    }
}

#[test]
fn of_several_exports_the_log_says_which_a_line_is_about() {
    let place = Place::new();
    let (file, socket, control) = (
        place.path("vfsd.toml"),
        place.socket(),
        place.path("control"),
    );
    let cache = place.path("cache");
    let folder = place.path("layout");
    layout(&folder, "content");
    let exports = format!(
        "[[export]]\nname = 'none'\nsource = 'memory:'\n[[export]]\nname = 'image'\nsource = 'oci:{}:t'\n",
        folder.display()
    );
    std::fs::write(&file, exports).unwrap();
    let words = [
        "serve",
        "--config",
        text(&file),
        "--cache-dir",
        text(&cache),
        "--socket-path",
        text(&socket),
        "--control",
        text(&control),
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    assert!(ask(&control, "status").contains("export /image"));
    daemon.stop(Signal::TERM);
    let errors = daemon.errors();
    let line = |words: &str| {
        errors
            .lines()
            .find(|line| line.contains(words))
            .unwrap_or_default()
    };
    let indexing = line("indexing layer");
    assert!(indexing.contains("export{name=\"image\"}"), "{errors}");
}
