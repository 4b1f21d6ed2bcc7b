//! Descriptors that a plugin should not send, and what is read from those that it may.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use vfsd_backend::{Errno, OpenFlags};
use vfsd_fuse::Opcode;
use vfsd_plugin_host::{Options, Plugin};
use vfsd_plugin_protocol::DESCRIPTOR_PUT;

use super::cases::{extent, look_up, note};
use super::scripted::{self, Asked, Script, Then, patiently};
use super::silence::short;

/// Descriptors with a number, none of which is taken.
fn bad_descriptors() -> Vec<(&'static str, u32, OwnedFd)> {
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let unsealed = memfd_create(c"unsealed", sealable).unwrap();
    let fine = || scripted::sealed(b"content");
    vec![
        (
            "a directory",
            0,
            std::fs::File::open("/tmp").unwrap().into(),
        ),
        ("a pipe", 0, std::io::pipe().unwrap().0.into()),
        (
            "a socket",
            0,
            std::os::unix::net::UnixStream::pair().unwrap().0.into(),
        ),
        (
            "a device",
            0,
            std::fs::File::open("/dev/zero").unwrap().into(),
        ),
        (
            "a file of another file system",
            0,
            std::fs::File::open("/proc/version").unwrap().into(),
        ),
        ("a memfd that can shrink", 0, unsealed),
        ("a number above the limit", 256, fine()),
        ("the greatest number", u32::MAX, fine()),
    ]
}

#[test]
fn a_bad_descriptor_is_eio_and_not_kept() {
    for (name, number, descriptor) in bad_descriptors() {
        let script = Script::new(move |asked: &Asked| match asked.opcode {
            Opcode::Lookup => {
                let descriptor = descriptor.try_clone().unwrap();
                Then::Send(note(DESCRIPTOR_PUT, number), Some(descriptor))
            }
            _ => Then::Well,
        });
        let plugin = Plugin::new(script, Options::default()).expect(name);
        let root = scripted::root(&plugin);
        assert_eq!(look_up(&root), Err(Errno::IO), "{name}");
        patiently(name, || root.attributes().is_ok());
    }
}

#[test]
fn a_number_is_not_given_twice() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Lookup => Then::Send(note(DESCRIPTOR_PUT, 3), Some(scripted::sealed(b"x"))),
        _ => Then::Well,
    });
    let options = Options {
        deadlines: short(),
        ..Options::default()
    };
    let plugin = Plugin::new(script, options).unwrap();
    let root = scripted::root(&plugin);
    // The first is taken, though the lookup gets no answer; the second is one too many.
    let both = std::thread::scope(|scope| {
        let one = scope.spawn(|| look_up(&root));
        let other = scope.spawn(|| look_up(&root));
        [one.join().unwrap(), other.join().unwrap()]
    });
    assert_eq!(both, [Err(Errno::IO), Err(Errno::IO)]);
    patiently("healed", || root.attributes().is_ok());
}

#[test]
fn data_are_read_from_a_descriptor_and_no_further_than_it_reaches() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Read => Then::Send(extent(asked, 5, 100, 2), None),
        Opcode::Open => Then::Before(
            note(DESCRIPTOR_PUT, 5),
            Some(scripted::sealed(b"..content")),
        ),
        _ => Then::Well,
    });
    let plugin = Plugin::new(script, Options::default()).unwrap();
    let handle = scripted::root(&plugin)
        .lookup("file")
        .unwrap()
        .open(OpenFlags::READ)
        .unwrap();
    assert_eq!(handle.read(0, 100).unwrap(), b"content");
}

#[test]
fn descriptors_that_nobody_announced_end_the_connection() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Lookup => Then::Flood(50),
        _ => Then::Well,
    });
    let plugin = Plugin::new(script, Options::default()).unwrap();
    let root = scripted::root(&plugin);
    assert_eq!(look_up(&root), Err(Errno::IO));
    patiently("healed", || root.attributes().is_ok());
}
