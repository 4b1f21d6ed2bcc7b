//! Replies that no plugin should send: each is EIO to whoever asked, ends the connection, and harms nobody else. The next
//! plugin serves on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

#[allow(dead_code, reason = "other tests use more of it")]
mod scripted;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use vfsd_backend::{Errno, LockKind, OpenFlags, SeekFrom};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{
    AttrOut, Dirent, EntryOut, FileLock, LseekOut, OutHeader, StatxOut, Unique, WriteOut,
};
use vfsd_plugin_host::{Deadlines, Options, Plugin, StartError};
use vfsd_plugin_protocol::{DESCRIPTOR_DROP, DESCRIPTOR_PUT, EXTENT, ExtentOut, Note};
use vfsd_testkit::place::{Outcome, Place};
use zerocopy::{FromZeros, IntoBytes};

use scripted::replies::{DIRECTORY, FILE, entry, message};
use scripted::{Asked, Script, Then, patiently, reply};

/// A call that meets the bad reply.
type Call = fn(&Place) -> Outcome<()>;
/// What the plugin sends instead of its reply.
type Bad = fn(&Asked) -> Vec<u8>;

fn look_up(root: &Place) -> Outcome<()> {
    root.lookup("file").map(drop)
}

fn list(root: &Place) -> Outcome<()> {
    root.list().map(drop)
}

fn read(root: &Place) -> Outcome<()> {
    let handle = root.lookup("file")?.open(OpenFlags::READ)?;
    handle.read(0, 100).map(drop)
}

fn write(root: &Place) -> Outcome<()> {
    let handle = root.lookup("file")?.open_both()?;
    handle.write(0, b"four").map(drop)
}

fn attributes(root: &Place) -> Outcome<()> {
    root.attributes().map(drop)
}

fn with_attributes(change: fn(&mut EntryOut)) -> EntryOut {
    let mut out = entry(2, FILE);
    change(&mut out);
    out
}

fn dirent(name: &[u8], change: fn(&mut Dirent)) -> Vec<u8> {
    let mut head = Dirent {
        ino: 7,
        off: 1,
        namelen: name.len() as u32,
        r#type: 8,
    };
    change(&mut head);
    let mut body = [head.as_bytes(), name].concat();
    body.resize(body.len().next_multiple_of(8), 0);
    body
}

fn note(what: i32, number: u32) -> Vec<u8> {
    let note = Note {
        descriptor: number,
        reserved: 0,
    };
    message(0, what, note.as_bytes())
}

fn extent(asked: &Asked, descriptor: u32, length: u32, offset: u64) -> Vec<u8> {
    let extent = ExtentOut {
        descriptor,
        length,
        offset,
    };
    message(asked.unique, EXTENT, extent.as_bytes())
}

/// Each with what is called, which request is answered badly, and how.
const CASES: &[(&str, Call, Opcode, Bad)] = &[
    (
        "a length shorter than the header",
        look_up,
        Opcode::Lookup,
        |asked| {
            let header = OutHeader {
                len: 15,
                error: 0,
                unique: Unique(asked.unique),
            };
            header.as_bytes().to_vec()
        },
    ),
    ("a length of 4 GiB", look_up, Opcode::Lookup, |asked| {
        let header = OutHeader {
            len: u32::MAX,
            error: 0,
            unique: Unique(asked.unique),
        };
        header.as_bytes().to_vec()
    }),
    ("no body", look_up, Opcode::Lookup, |asked| {
        reply(asked, &[])
    }),
    ("a byte too many", look_up, Opcode::Lookup, |asked| {
        reply(asked, &[entry(2, FILE).as_bytes(), b"x"].concat())
    }),
    (
        "a body where there is none",
        |root| root.unlink("file"),
        Opcode::Unlink,
        |asked| reply(asked, b"x"),
    ),
    (
        "a number that was never issued",
        look_up,
        Opcode::Lookup,
        |asked| message(asked.unique + 2, 0, entry(2, FILE).as_bytes()),
    ),
    ("a number of the greeting", look_up, Opcode::Lookup, |_| {
        message(1, 0, &[])
    }),
    ("a message to nobody", look_up, Opcode::Lookup, |_| {
        message(0, 0, &[])
    }),
    (
        "a notice that there is not",
        look_up,
        Opcode::Lookup,
        |_| note(4, 0),
    ),
    ("a positive errno", look_up, Opcode::Lookup, |asked| {
        message(asked.unique, 5, &[])
    }),
    (
        "an errno of the kernel's own",
        look_up,
        Opcode::Lookup,
        |asked| message(asked.unique, -512, &[]),
    ),
    ("the least errno", look_up, Opcode::Lookup, |asked| {
        message(asked.unique, i32::MIN, &[])
    }),
    ("an errno with a body", look_up, Opcode::Lookup, |asked| {
        message(asked.unique, -2, b"12345678")
    }),
    ("the root's number", look_up, Opcode::Lookup, |asked| {
        reply(asked, entry(1, FILE).as_bytes())
    }),
    (
        "a type that there is not",
        look_up,
        Opcode::Lookup,
        |asked| {
            reply(
                asked,
                with_attributes(|out| out.attr.mode = 0o030_644).as_bytes(),
            )
        },
    ),
    ("no type", look_up, Opcode::Lookup, |asked| {
        reply(
            asked,
            with_attributes(|out| out.attr.mode = 0o644).as_bytes(),
        )
    }),
    (
        "a size above that of any file",
        look_up,
        Opcode::Lookup,
        |asked| {
            reply(
                asked,
                with_attributes(|out| out.attr.size = 1 << 63).as_bytes(),
            )
        },
    ),
    (
        "a second of nanoseconds",
        look_up,
        Opcode::Lookup,
        |asked| {
            reply(
                asked,
                with_attributes(|out| out.attr.mtimensec = 1_000_000_000).as_bytes(),
            )
        },
    ),
    (
        "a lifetime with a second of nanoseconds",
        look_up,
        Opcode::Lookup,
        |asked| {
            reply(
                asked,
                with_attributes(|out| out.entry_valid_nsec = u32::MAX).as_bytes(),
            )
        },
    ),
    (
        "one number for two types",
        |root| {
            let _known = root.lookup("file")?;
            root.lookup("other").map(drop)
        },
        Opcode::Lookup,
        |asked| {
            let mode = if asked.body.starts_with(b"file") {
                FILE
            } else {
                DIRECTORY
            };
            reply(asked, entry(2, mode).as_bytes())
        },
    ),
    (
        "a directory in itself",
        |root| root.lookup("dir")?.lookup("again").map(drop),
        Opcode::Lookup,
        |asked| reply(asked, entry(2, DIRECTORY).as_bytes()),
    ),
    (
        "another type than was made",
        |root| root.mkdir("new").map(drop),
        Opcode::Mkdir,
        |asked| reply(asked, entry(2, FILE).as_bytes()),
    ),
    (
        "no file where one was made",
        |root| root.mkdir("new").map(drop),
        Opcode::Mkdir,
        |asked| reply(asked, EntryOut::new_zeroed().as_bytes()),
    ),
    (
        "a file that changes its type",
        attributes,
        Opcode::Statx,
        |asked| {
            let mut out = StatxOut::new_zeroed();
            out.stat.mode = FILE as u16;
            reply(asked, out.as_bytes())
        },
    ),
    ("another structure", attributes, Opcode::Statx, |asked| {
        reply(asked, AttrOut::new_zeroed().as_bytes())
    }),
    (
        "a link to nowhere",
        |root| root.lookup("link")?.readlink().map(drop),
        Opcode::Readlink,
        |asked| reply(asked, b""),
    ),
    (
        "a link with a NUL",
        |root| root.lookup("link")?.readlink().map(drop),
        Opcode::Readlink,
        |asked| reply(asked, b"a\0b"),
    ),
    ("a name with a slash", list, Opcode::Readdir, |asked| {
        reply(asked, &dirent(b"../etc/passwd", |_| ()))
    }),
    ("a name with a NUL", list, Opcode::Readdir, |asked| {
        reply(asked, &dirent(b"a\0b", |_| ()))
    }),
    ("no name", list, Opcode::Readdir, |asked| {
        reply(asked, &dirent(b"", |_| ()))
    }),
    (
        "a name longer than the listing",
        list,
        Opcode::Readdir,
        |asked| reply(asked, &dirent(b"name", |head| head.namelen = 1000)),
    ),
    ("a name of 4 GiB", list, Opcode::Readdir, |asked| {
        reply(asked, &dirent(b"name", |head| head.namelen = u32::MAX))
    }),
    ("an entry that leads back", list, Opcode::Readdir, |asked| {
        reply(asked, &dirent(b"name", |head| head.off = 0))
    }),
    ("an entry of no type", list, Opcode::Readdir, |asked| {
        reply(asked, &dirent(b"name", |head| head.r#type = 99))
    }),
    ("half an entry", list, Opcode::Readdir, |asked| {
        reply(asked, &[1; 20])
    }),
    (
        "a listing that is too long",
        list,
        Opcode::Readdir,
        |asked| reply(asked, &vec![0; 40_000]),
    ),
    (
        "more data than were asked for",
        read,
        Opcode::Read,
        |asked| reply(asked, &[0; 101]),
    ),
    (
        "data in a descriptor that is not there",
        read,
        Opcode::Read,
        |asked| extent(asked, 0, 10, 0),
    ),
    ("more data in a descriptor", read, Opcode::Read, |asked| {
        extent(asked, 0, 101, 0)
    }),
    (
        "data behind the end of any file",
        read,
        Opcode::Read,
        |asked| extent(asked, 0, 10, u64::MAX - 4),
    ),
    ("an extent that is cut", read, Opcode::Read, |asked| {
        message(asked.unique, EXTENT, b"12345678")
    }),
    (
        "a descriptor where there are no data",
        look_up,
        Opcode::Lookup,
        |asked| extent(asked, 0, 10, 0),
    ),
    (
        "a descriptor that does not come",
        look_up,
        Opcode::Lookup,
        |_| note(DESCRIPTOR_PUT, 0),
    ),
    (
        "a descriptor that was not there",
        look_up,
        Opcode::Lookup,
        |_| note(DESCRIPTOR_DROP, 0),
    ),
    (
        "more written than was sent",
        write,
        Opcode::Write,
        |asked| {
            reply(
                asked,
                WriteOut {
                    size: 5,
                    padding: 0,
                }
                .as_bytes(),
            )
        },
    ),
    (
        "data found before where they were looked for",
        |root| {
            let handle = root.lookup("file")?.open(OpenFlags::READ)?;
            handle.seek(SeekFrom::Data, 10).map(drop)
        },
        Opcode::Lseek,
        |asked| reply(asked, LseekOut { offset: 9 }.as_bytes()),
    ),
    (
        "a lock of no kind",
        |root| {
            let handle = root.lookup("file")?.open(OpenFlags::READ)?;
            handle.conflict(1, LockKind::Write, (0, 9)).map(drop)
        },
        Opcode::Getlk,
        |asked| {
            reply(
                asked,
                FileLock {
                    start: 0,
                    end: 9,
                    r#type: 3,
                    pid: 1,
                }
                .as_bytes(),
            )
        },
    ),
    (
        "a lock that ends before it starts",
        |root| {
            let handle = root.lookup("file")?.open(OpenFlags::READ)?;
            handle.conflict(1, LockKind::Write, (0, 9)).map(drop)
        },
        Opcode::Getlk,
        |asked| {
            reply(
                asked,
                FileLock {
                    start: 9,
                    end: 8,
                    r#type: 1,
                    pid: 1,
                }
                .as_bytes(),
            )
        },
    ),
    (
        "names of attributes that do not end",
        |root| root.xattr_names().map(drop),
        Opcode::Listxattr,
        |asked| reply(asked, b"user.x"),
    ),
    (
        "names of attributes that are empty",
        |root| root.xattr_names().map(drop),
        Opcode::Listxattr,
        |asked| reply(asked, b"\0\0"),
    ),
    (
        "a value above 64 KiB",
        |root| root.getxattr("user.x").map(drop),
        Opcode::Getxattr,
        |asked| reply(asked, &vec![0; 65_537]),
    ),
];

#[test]
fn a_bad_reply_is_eio_and_the_next_plugin_serves_on() {
    for (name, call, opcode, bad) in CASES {
        let script = Script::new(move |asked: &Asked| match asked.opcode == *opcode {
            true => Then::Send(bad(asked), None),
            false => Then::Well,
        });
        let ended = script.ended();
        let plugin = Plugin::new(script, Options::default()).expect(name);
        let root = scripted::root(&plugin);
        assert_eq!(call(&root), Err(Errno::IO), "{name}");
        patiently(name, || ended.load(std::sync::atomic::Ordering::Acquire));
        patiently(name, || root.attributes().is_ok());
        root.put("healed", b"by another plugin").expect(name);
    }
}

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

#[test]
fn a_reply_that_comes_twice_ends_the_connection() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Unlink => Then::Send([reply(asked, &[]), reply(asked, &[])].concat(), None),
        _ => Then::Well,
    });
    let ended = script.ended();
    let plugin = Plugin::new(script, Options::default()).unwrap();
    let root = scripted::root(&plugin);
    // The first of them is a good answer.
    let _ = root.unlink("file");
    patiently("ended", || ended.load(std::sync::atomic::Ordering::Acquire));
}

/// Short for fsync, which the scripts do not answer. What is answered has the time that a busy machine takes.
fn short() -> Deadlines {
    let long = Duration::from_secs(60);
    Deadlines {
        greeting: long,
        metadata: long,
        data: long,
        durability: Duration::from_millis(300),
    }
}

#[test]
fn a_plugin_that_says_nothing_is_eio_after_the_deadline_and_given_up() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Fsync => Then::Nothing,
        _ => Then::Well,
    });
    let ended = script.ended();
    let options = Options {
        deadlines: short(),
        ..Options::default()
    };
    let plugin = Plugin::new(script, options).unwrap();
    let root = scripted::root(&plugin);
    let handle = root.lookup("file").unwrap().open_both().unwrap();
    assert_eq!(handle.fsync(), Err(Errno::IO));
    patiently("ended", || ended.load(std::sync::atomic::Ordering::Acquire));
    patiently("healed", || root.attributes().is_ok());
}

#[test]
fn a_plugin_that_only_one_request_is_too_much_for_is_kept() {
    // The lookup that waits for its reply until the other request has come.
    let held = Arc::new(Mutex::new(None));
    let script = {
        let held = Arc::clone(&held);
        Script::new(move |asked: &Asked| match asked.opcode {
            Opcode::Lookup if asked.body.starts_with(b"held") => {
                *held.lock().unwrap() = Some(asked.unique);
                Then::Nothing
            }
            Opcode::Fsync => {
                let unique = held.lock().unwrap().expect("the lookup came before");
                Then::Send(message(unique, 0, entry(5, FILE).as_bytes()), None)
            }
            _ => Then::Well,
        })
    };
    let ended = script.ended();
    let options = Options {
        deadlines: short(),
        ..Options::default()
    };
    let plugin = Plugin::new(script, options).unwrap();
    let root = scripted::root(&plugin);
    let handle = root.lookup("file").unwrap().open_both().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| root.lookup("held").map(drop));
        patiently("held", || held.lock().unwrap().is_some());
        assert_eq!(handle.fsync(), Err(Errno::IO));
        assert_eq!(other.join().unwrap(), Ok(()));
    });
    assert!(!ended.load(std::sync::atomic::Ordering::Acquire));
    root.lookup("file").unwrap();
}

/// A peer that answers the greeting with these bytes.
fn greeting(bytes: &'static [u8], stay: bool) -> Result<Plugin, StartError> {
    let mut deadlines = short();
    if stay && bytes.is_empty() {
        deadlines.greeting = Duration::from_millis(300);
    }
    let options = Options {
        deadlines,
        ..Options::default()
    };
    let connector = scripted::Raw(move |mut stream: std::os::unix::net::UnixStream| {
        let _ = stream.write_all(bytes);
        if stay {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    Plugin::new(connector, options)
}

#[test]
fn what_is_no_plugin_is_refused_with_a_reason() {
    assert!(matches!(greeting(&[], true), Err(StartError::Silent)));
    assert!(matches!(
        greeting(&[0; 64], true),
        Err(StartError::Hello(_))
    ));
    assert!(matches!(
        greeting(&[b'H'; 1000], true),
        Err(StartError::Hello(_))
    ));
    let left = greeting(b"vfsdplug", false);
    assert!(matches!(
        left,
        Err(StartError::Left | StartError::Connect(_))
    ));
    let error = greeting(&[0; 64], true).unwrap_err().to_string();
    assert!(
        error.contains("does not speak the plugin protocol"),
        "{error}"
    );
}

/// Calls that between them read every kind of reply that the script knows.
fn everything(root: &Place) {
    let _ = root.lookup("dir").and_then(|dir| dir.list());
    let _ = root.lookup("link").and_then(|link| link.readlink());
    let _ = root.list();
    let _ = root.attributes();
    let _ = root.xattr_names();
    let _ = root.mkdir("new");
    if let Ok(handle) = root.lookup("file").and_then(|file| file.open_both()) {
        let _ = handle.read(0, 100);
        let _ = handle.write(0, b"four");
        let _ = handle.seek(SeekFrom::Data, 0);
        let _ = handle.conflict(1, LockKind::Write, (0, 9));
    }
}

#[test]
fn replies_with_random_bytes_break_nothing_but_their_connection() {
    for seed in 1..=60_u64 {
        let state = std::sync::Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let script = Script::new(move |asked: &Asked| {
            // xorshift64.
            let mut state = state.lock().unwrap();
            let mut random = move || {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                usize::try_from(*state >> 16).unwrap()
            };
            if matches!(asked.opcode, Opcode::Init) || asked.unique == 1 {
                return Then::Well;
            }
            let mut bytes = match random() % 3 {
                0 => scripted::good(asked),
                1 => reply(asked, &vec![0; random() % 300]),
                _ => reply(asked, &dirent(b"a name", |_| ())),
            };
            for _ in 0..random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random().to_ne_bytes()[0];
            }
            Then::Send(bytes, None)
        });
        let options = Options {
            deadlines: Deadlines {
                greeting: Duration::from_secs(5),
                metadata: Duration::from_millis(50),
                data: Duration::from_millis(50),
                durability: Duration::from_millis(50),
            },
            ..Options::default()
        };
        let plugin = Plugin::new(script, options).unwrap();
        let root = scripted::root(&plugin);
        everything(&root);
        // Silence ends it, if nothing else has.
        patiently("healed", || {
            root.put("healed", b"by another plugin").is_ok() || {
                everything(&root);
                false
            }
        });
    }
}
