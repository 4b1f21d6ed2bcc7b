//! Bad replies, each to one kind of request.

use vfsd_backend::{LockKind, OpenFlags, SeekFrom};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{
    AttrOut, Dirent, EntryOut, FileLock, LseekOut, OutHeader, StatxOut, Unique, WriteOut,
};
use vfsd_plugin_protocol::{DESCRIPTOR_DROP, DESCRIPTOR_PUT, EXTENT, ExtentOut, Note};
use vfsd_testkit::place::{Outcome, Place};
use zerocopy::{FromZeros, IntoBytes};

use super::scripted::replies::{DIRECTORY, FILE, entry, message};
use super::scripted::{Asked, reply};

/// A call that meets the bad reply.
pub(super) type Call = fn(&Place) -> Outcome<()>;
/// What the plugin sends instead of its reply.
pub(super) type Bad = fn(&Asked) -> Vec<u8>;

pub(super) fn look_up(root: &Place) -> Outcome<()> {
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

pub(super) fn dirent(name: &[u8], change: fn(&mut Dirent)) -> Vec<u8> {
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

pub(super) fn note(what: i32, number: u32) -> Vec<u8> {
    let note = Note {
        descriptor: number,
        reserved: 0,
    };
    message(0, what, note.as_bytes())
}

pub(super) fn extent(asked: &Asked, descriptor: u32, length: u32, offset: u64) -> Vec<u8> {
    let extent = ExtentOut {
        descriptor,
        length,
        offset,
    };
    message(asked.unique, EXTENT, extent.as_bytes())
}

/// Each with what is called, which request is answered badly, and how.
pub(super) const CASES: &[(&str, Call, Opcode, Bad)] = &[
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
