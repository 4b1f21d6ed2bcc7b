//! FIFOs, sockets and devices: they may be there, but are never opened on the host.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use vfsd_testkit::frontend::wire::ROOT;

use crate::scene::{Scene, Setting};

const OPEN_FLAGS: [i32; 5] = [
    libc::O_RDONLY,
    libc::O_WRONLY,
    libc::O_RDWR,
    libc::O_RDONLY | libc::O_NONBLOCK,
    libc::O_WRONLY | libc::O_TRUNC,
];

/// Tries every way to have `node`, whose name in the root is `name`, opened.
fn assert_never_opened(scene: &mut Scene, name: &str, node: u64) {
    for flags in OPEN_FLAGS {
        let refused = scene
            .guest
            .open(node, flags as u32)
            .map_err(|error| error.errno());
        assert_eq!(
            refused,
            Err(Some(libc::EBADF)),
            "OPEN of {name} with {flags:#o}"
        );
        let created = scene.guest.create(ROOT, name, 0o100_644, flags as u32);
        let refused = created.map(drop).map_err(|error| error.errno());
        let allowed = [libc::ESTALE, libc::EEXIST].map(|errno| Err(Some(errno)));
        assert!(
            allowed.contains(&refused),
            "CREATE of {name} with {flags:#o}: {refused:?}"
        );
    }
    let truncated = scene
        .guest
        .truncate(node, 0)
        .map(drop)
        .map_err(|error| error.errno());
    assert!(
        matches!(
            truncated,
            Err(Some(libc::EBADF | libc::EINVAL | libc::EACCES))
        ),
        "{truncated:?}"
    );
    // Refused with an errno or stored; either way nothing is opened and nothing blocks.
    let stored = scene
        .guest
        .setxattr(node, "user.a", b"v", 0)
        .map_err(|error| error.errno());
    assert!(
        matches!(stored, Ok(()) | Err(Some(_))),
        "SETXATTR of {name}: {stored:?}"
    );
    let opened = scene.opened_since_start();
    let on_host = opened.iter().find(|target| target.contains("/dev/"));
    assert_eq!(on_host, None, "{name} is open on the host");
    scene.check_served(name);
}

#[test]
fn special_files_made_by_the_guest_are_never_opened() {
    let mut scene = Scene::new();
    for (name, mode, device) in [
        ("fifo", libc::S_IFIFO, 0),
        ("socket", libc::S_IFSOCK, 0),
        ("null", libc::S_IFCHR, 0x103),
        ("mem", libc::S_IFCHR, 0x101),
        ("loop", libc::S_IFBLK, 0x700),
    ] {
        let entry = match scene.guest.mknod(ROOT, name, mode | 0o666, device) {
            Ok(entry) => entry,
            // Devices may be refused as a policy, FIFOs and sockets not.
            Err(error) => {
                assert!(
                    device != 0 && error.errno() == Some(libc::EPERM),
                    "{name}: {error}"
                );
                continue;
            }
        };
        assert_eq!(entry.attr.mode & libc::S_IFMT, mode, "{name}");
        assert_never_opened(&mut scene, name, entry.node);
        scene.guest.unlink(ROOT, name).unwrap();
        scene.guest.forget(entry.node, 1).unwrap();
    }
    scene.finish();
}

#[test]
fn device_nodes_are_refused_when_told_so() {
    let mut scene = Scene::set(Setting::launched_with(&["--no-device-nodes"]));
    for (mode, device) in [(libc::S_IFCHR, 0x103), (libc::S_IFBLK, 0x700)] {
        let refused = scene
            .guest
            .mknod(ROOT, "node", mode | 0o666, device)
            .unwrap_err()
            .errno();
        assert_eq!(refused, Some(libc::EPERM));
        assert!(!scene.ground.share().join("node").exists());
        scene.check_served("MKNOD of a device");
    }
    let fifo = scene
        .guest
        .mknod(ROOT, "fifo", libc::S_IFIFO | 0o666, 0)
        .unwrap();
    scene.guest.forget(fifo.node, 1).unwrap();
    scene.finish();
}

#[test]
fn nodes_of_no_known_kind_are_refused() {
    let mut scene = Scene::new();
    for kind in [
        0o030_000,
        0o050_000,
        0o070_000,
        0o110_000,
        0o170_000,
        libc::S_IFDIR,
        libc::S_IFLNK,
    ] {
        let refused = scene
            .guest
            .mknod(ROOT, "odd", kind | 0o644, 0)
            .map_err(|e| e.errno());
        assert!(
            matches!(refused, Err(Some(libc::EINVAL | libc::EPERM))),
            "{kind:#o}: {refused:?}"
        );
        scene.check("MKNOD of an odd kind");
    }
    scene.finish();
}

#[test]
fn special_files_that_appear_on_the_host_are_never_opened() {
    let mut scene = Scene::set(Setting::launched_with(&["--sandbox", "none"]));
    let share = scene.ground.share();
    let _listener = UnixListener::bind(share.join("socket")).unwrap();
    for arguments in [&["fifo", "p"][..], &["null", "c", "1", "3"]] {
        let made = Command::new("mknod")
            .arg(share.join(arguments[0]))
            .args(&arguments[1..])
            .status();
        assert!(made.unwrap().success(), "mknod(1) needs root");
    }
    for name in ["socket", "fifo", "null"] {
        let node = scene.guest.lookup(ROOT, name).unwrap().node;
        assert_never_opened(&mut scene, name, node);
    }
    scene.finish();
}

#[test]
fn a_file_the_host_turns_into_a_fifo_after_its_lookup_blocks_nothing() {
    let mut scene = Scene::set(Setting::launched_with(&["--sandbox", "none"]));
    let path = scene.ground.share().join("victim");
    for round in 0..20 {
        fs::write(&path, b"regular").unwrap();
        let node = scene.guest.lookup(ROOT, "victim").unwrap().node;
        fs::remove_file(&path).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        for flags in OPEN_FLAGS {
            if let Ok(opened) = scene.guest.open(node, flags as u32) {
                // The old, now nameless file: a FIFO would have refused or blocked.
                let attr = scene.guest.getattr(node).unwrap();
                assert_eq!(attr.mode & libc::S_IFMT, libc::S_IFREG);
                scene.guest.release(node, opened.fh).unwrap();
            }
        }
        scene.guest.forget(node, 1).unwrap();
        let fifo = scene.guest.lookup(ROOT, "victim").unwrap().node;
        assert_eq!(
            scene.guest.open(fifo, 0).unwrap_err().errno(),
            Some(libc::EBADF)
        );
        scene.guest.forget(fifo, 1).unwrap();
        fs::remove_file(&path).unwrap();
        if round % 5 == 0 {
            scene.check_served("a file turned into a FIFO");
        }
    }
    scene.finish();
}
