//! A guest that opens nothing, because the tree is its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, File, FileCaching, FileKind, Node, NodeIdentity,
    OpenRequest, Opened, ReadRequest, ReadSink, WriteRequest, WriteSource,
};
use vfsd_fuse::wire::{
    CopyFileRangeIn, Dirent, EntryOut, FallocateIn, FsyncIn, GETATTR_FH, GetattrIn, HandleId,
    IoctlIn, LseekIn, NodeId, OpenOut, ReadIn, ReleaseIn, SetattrIn, WriteIn, WriteOut, fattr,
};
use vfsd_fuse::{InitFlags, Opcode};
use vfsd_memory::Memory;
use vfsd_server::{Budget, Export, Exports, SessionOptions};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::guest::{Guest, memory, structure};

const EPERM: i32 = 1;
const EBADF: i32 = 9;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const ELOOP: i32 = 40;
const ESTALE: i32 = 116;

const O_APPEND: u32 = 0o2000;
const S_IFREG: u32 = 0o100_000;
const S_IFIFO: u32 = 0o010_000;

/// A tree that nobody but the guest changes, or locks.
struct Own(Memory);

impl Backend for Own {
    fn root(&self) -> Arc<dyn Node> {
        self.0.root()
    }

    fn capabilities(&self) -> Capabilities {
        let locks = Capabilities::POSIX_LOCKS | Capabilities::FLOCK;
        (self.0.capabilities() | Capabilities::PRIVATE) - locks
    }
}

fn alone() -> Guest {
    Guest::with(Own(memory()), SessionOptions::default())
}

impl Guest {
    fn mknod(&self, parent: u64, name: &str, mode: u32) -> EntryOut {
        let arg = [mode, 0u32, 0, 0];
        let body: [&[u8]; 3] = [arg.as_bytes(), name.as_bytes(), b"\0"];
        structure(&self.call(Opcode::Mknod, parent, &body).unwrap())
    }

    fn file(&self, name: &str) -> u64 {
        self.mknod(1, name, S_IFREG | 0o644).nodeid.0
    }

    fn read(&self, node: u64, fh: u64, offset: u64) -> Result<Vec<u8>, i32> {
        self.call(Opcode::Read, node, &[read(fh, offset).as_bytes()])
    }

    fn write_with(&self, node: u64, fh: u64, flags: u32, data: &[u8]) -> Result<u32, i32> {
        let arg = WriteIn {
            fh: HandleId(fh),
            flags,
            size: u32::try_from(data.len()).unwrap(),
            ..WriteIn::new_zeroed()
        };
        self.call(Opcode::Write, node, &[arg.as_bytes(), data])
            .map(|reply| structure::<WriteOut>(&reply).size)
    }

    fn write(&self, node: u64, data: &[u8]) -> Result<u32, i32> {
        self.write_with(node, 0, 0, data)
    }

    fn implied(&self) -> usize {
        self.session.metrics().gauges.implied_files
    }

    fn ioctl(&self, node: u64, cmd: u32, input: &[u8]) -> Result<Vec<u8>, i32> {
        let arg = IoctlIn {
            cmd,
            in_size: u32::try_from(input.len()).unwrap(),
            out_size: if input.is_empty() { 4 } else { 0 },
            ..IoctlIn::new_zeroed()
        };
        self.call(Opcode::Ioctl, node, &[arg.as_bytes(), input])
    }

    /// Names of a listing from a cookie on, with theirs.
    fn list(&self, node: u64, cookie: u64, size: u32) -> Vec<(String, u64)> {
        let arg = ReadIn {
            size,
            ..read(0, cookie)
        };
        let reply = self.call(Opcode::Readdir, node, &[arg.as_bytes()]).unwrap();
        let mut rest = &reply[..];
        let mut names = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
            let length = usize::try_from(word(16) & u64::from(u32::MAX)).unwrap();
            let name = String::from_utf8(rest[24..24 + length].to_vec()).unwrap();
            names.push((name, word(8)));
            rest = &rest[(24 + length).next_multiple_of(8)..];
        }
        names
    }
}

fn read(fh: u64, offset: u64) -> ReadIn {
    ReadIn {
        fh: HandleId(fh),
        offset,
        size: 4096,
        ..ReadIn::new_zeroed()
    }
}

#[test]
fn nothing_need_be_opened_closed_or_flushed() {
    let guest = alone();
    let node = guest.file("file");
    assert_eq!(guest.open(Opcode::Open, node, 0).unwrap_err(), ENOSYS);
    assert_eq!(guest.open(Opcode::Opendir, 1, 0).unwrap_err(), ENOSYS);
    assert_eq!(guest.create(1, "new").unwrap_err(), ENOSYS);
    let flush = guest.call(Opcode::Flush, node, &[&[0; 24]]);
    assert_eq!(flush.unwrap_err(), ENOSYS);
    assert_eq!(guest.handles(), 0);
}

#[test]
fn every_request_takes_handle_zero_for_the_file_itself() {
    let guest = alone();
    let node = guest.file("file");
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"");
    assert_eq!(guest.write(node, b"content").unwrap(), 7);
    assert_eq!(guest.read(node, 0, 3).unwrap(), b"tent");
    assert_eq!(guest.implied(), 1, "one file serves all requests");

    let fsync = FsyncIn::new_zeroed();
    guest
        .call(Opcode::Fsync, node, &[fsync.as_bytes()])
        .unwrap();
    guest
        .call(Opcode::Fsyncdir, 1, &[fsync.as_bytes()])
        .unwrap();
    let getattr = GetattrIn {
        getattr_flags: GETATTR_FH,
        ..GetattrIn::new_zeroed()
    };
    guest
        .call(Opcode::Getattr, node, &[getattr.as_bytes()])
        .unwrap();
    let setattr = SetattrIn {
        valid: fattr::SIZE | fattr::FH,
        size: 4,
        ..SetattrIn::new_zeroed()
    };
    guest
        .call(Opcode::Setattr, node, &[setattr.as_bytes()])
        .unwrap();
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"cont");
    let fallocate = FallocateIn {
        length: 6,
        ..FallocateIn::new_zeroed()
    };
    guest
        .call(Opcode::Fallocate, node, &[fallocate.as_bytes()])
        .unwrap();
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"cont\0\0");
    let lseek = LseekIn {
        whence: 3,
        ..LseekIn::new_zeroed()
    };
    guest
        .call(Opcode::Lseek, node, &[lseek.as_bytes()])
        .unwrap();
    let target = guest.file("target");
    let copy = CopyFileRangeIn {
        nodeid_out: NodeId(target),
        len: 4,
        ..CopyFileRangeIn::new_zeroed()
    };
    guest
        .call(Opcode::CopyFileRange, node, &[copy.as_bytes()])
        .unwrap();
    assert_eq!(guest.read(target, 0, 0).unwrap(), b"cont");
    const GETFLAGS: u32 = 0x8008_6601;
    guest.ioctl(node, GETFLAGS, &[]).unwrap();
    guest.ioctl(1, GETFLAGS, &[]).unwrap();
    assert_eq!(guest.handles(), 0);
}

#[test]
fn a_tree_that_others_use_is_opened_as_ever() {
    let exports = Exports::named(vec![
        Export::new("own", Arc::new(Own(memory())), false),
        Export::new("shared", Arc::new(memory()), false),
    ]);
    let mut old = alone();
    old.offer = InitFlags::all() - InitFlags::NO_OPEN_SUPPORT - InitFlags::NO_OPENDIR_SUPPORT;
    old.init().unwrap();
    let two = Guest::of(exports.unwrap(), SessionOptions::default());
    let own = two.lookup(1, "own").unwrap().nodeid.0;
    for (guest, parent) in [(Guest::on_memory(), 1), (two, own), (old, 1)] {
        let (file, open) = guest.create(parent, "file").unwrap();
        assert_ne!(open.fh.0, 0);
        assert_eq!(guest.read(file.nodeid.0, 0, 0).unwrap_err(), EBADF);
        assert_eq!(guest.write(file.nodeid.0, b"data").unwrap_err(), EBADF);
        let list = guest.call(Opcode::Readdir, parent, &[read(0, 0).as_bytes()]);
        assert_eq!(list.unwrap_err(), EBADF);
        assert_eq!(guest.implied(), 0);
    }
}

#[test]
fn several_exports_that_are_all_the_guests_own_need_not_be_opened() {
    let exports = Exports::named(vec![
        Export::new("data", Arc::new(Own(memory())), false),
        Export::new("tools", Arc::new(Own(memory())), true),
    ]);
    let guest = Guest::of(exports.unwrap(), SessionOptions::default());
    assert_eq!(guest.open(Opcode::Opendir, 1, 0).unwrap_err(), ENOSYS);
    let names: Vec<String> = guest.list(1, 0, 4096).into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, [".", "..", "data", "tools"]);
}

#[test]
fn what_an_open_would_refuse_is_refused_to_each_request() {
    let guest = alone();
    let directory = guest.mkdir(1, "directory").unwrap().nodeid.0;
    let fifo = guest.mknod(1, "fifo", S_IFIFO | 0o644).nodeid.0;
    let link = guest
        .call(Opcode::Symlink, 1, &[b"link\0target\0"])
        .unwrap();
    let link = structure::<EntryOut>(&link).nodeid.0;
    let file = guest.file("file");
    let fallocate = FallocateIn {
        length: 6,
        ..FallocateIn::new_zeroed()
    };
    for (node, errno) in [(directory, EISDIR), (fifo, EBADF), (link, ELOOP)] {
        assert_eq!(guest.read(node, 0, 0).unwrap_err(), errno);
        assert_eq!(guest.write(node, b"data").unwrap_err(), errno);
        let result = guest.call(Opcode::Fallocate, node, &[fallocate.as_bytes()]);
        assert_eq!(result.unwrap_err(), errno);
    }
    let list = guest.call(Opcode::Readdir, file, &[read(0, 0).as_bytes()]);
    assert_eq!(list.unwrap_err(), ENOTDIR);
    assert_eq!(guest.read(0xdead, 0, 0).unwrap_err(), ESTALE);
    assert_eq!(guest.read(file, 7, 0).unwrap_err(), EBADF, "no such handle");
    assert_eq!(guest.implied(), 0);

    let backend = Own(memory());
    let readonly = Guest::of(
        Exports::single(Arc::new(backend), true),
        SessionOptions::default(),
    );
    assert_eq!(readonly.write(1, b"data").unwrap_err(), EROFS);
    let result = readonly.call(Opcode::Fallocate, 1, &[fallocate.as_bytes()]);
    assert_eq!(result.unwrap_err(), EROFS);
}

#[test]
fn a_file_without_a_name_is_there_until_the_guest_forgets_it() {
    let guest = alone();
    let node = guest.file("file");
    guest.write(node, b"content").unwrap();
    guest.call(Opcode::Unlink, 1, &[b"file\0"]).unwrap();
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"content");
    // Enough others to close it.
    for index in 0..10_000 {
        let other = guest.file(&format!("other-{index}"));
        guest.write(other, &other.to_le_bytes()).unwrap();
    }
    assert!(
        (4_000..=4_096).contains(&guest.implied()),
        "{}",
        guest.implied()
    );
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"content");
    assert_eq!(guest.write(node, b"CON").unwrap(), 3);
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"CONtent");
    let before = guest.implied();
    guest.forget(node, 1);
    assert_eq!(guest.implied(), before - 1);
    assert_eq!(guest.read(node, 0, 0).unwrap_err(), ESTALE);
}

#[test]
fn a_file_that_is_made_without_a_name_has_handle_zero() {
    let guest = alone();
    let arg = [1u32, 0o600, 0, 0];
    let made = guest
        .call(Opcode::Tmpfile, 1, &[arg.as_bytes(), b"/\0"])
        .unwrap();
    let (entry, open) = EntryOut::read_from_prefix(&made).unwrap();
    assert_eq!(structure::<OpenOut>(open).fh.0, 0);
    let node = entry.nodeid.0;
    assert_eq!(guest.write(node, b"data").unwrap(), 4);
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"data");
    let release = ReleaseIn::new_zeroed();
    guest
        .call(Opcode::Release, node, &[release.as_bytes()])
        .unwrap();
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"data");
    guest.forget(node, 1);
    assert_eq!((guest.implied(), guest.handles()), (0, 0));
}

#[test]
fn a_listing_goes_on_while_its_names_are_removed() {
    let guest = alone();
    let directory = guest.mkdir(1, "directory").unwrap().nodeid.0;
    let names: BTreeSet<String> = (0..300).map(|index| format!("name-{index}")).collect();
    for name in &names {
        guest.mknod(directory, name, S_IFREG | 0o644);
    }
    let mut cookie = 0;
    let mut listed = BTreeSet::new();
    loop {
        let some = guest.list(directory, cookie, 512);
        let Some((_, last)) = some.last() else { break };
        cookie = *last;
        for (name, _) in some.iter().filter(|(name, _)| name.starts_with("name")) {
            let name = format!("{name}\0");
            guest
                .call(Opcode::Unlink, directory, &[name.as_bytes()])
                .unwrap();
        }
        // Another listing of the same directory begins meanwhile.
        guest.list(directory, 0, 128);
        listed.extend(some.into_iter().map(|(name, _)| name));
    }
    assert!(names.is_subset(&listed));
    guest.call(Opcode::Rmdir, 1, &[b"directory\0"]).unwrap();
}

#[test]
fn a_listing_brings_no_more_entries_than_the_guest_may_know() {
    const NODES: usize = 10;
    let guest = Guest::with(
        Own(memory()),
        SessionOptions {
            budget: Budget {
                nodes: NODES,
                ..Budget::default()
            },
            ..SessionOptions::default()
        },
    );
    for index in 0..100 {
        let arg = [S_IFREG | 0o644, 0u32, 0, 0];
        let name = format!("name-{index}\0");
        // It is made, also if the guest cannot be told.
        let _ = guest.call(Opcode::Mknod, 1, &[arg.as_bytes(), name.as_bytes()]);
    }
    let (mut cookie, mut names, mut known) = (0, 0, BTreeSet::new());
    loop {
        let arg = read(0, cookie);
        let reply = guest
            .call(Opcode::Readdirplus, 1, &[arg.as_bytes()])
            .unwrap();
        let mut rest = &reply[..];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let (entry, dirent) = EntryOut::read_from_prefix(rest).unwrap();
            let (head, name) = Dirent::read_from_prefix(dirent).unwrap();
            (cookie, names) = (head.off, names + 1);
            known.extend((entry.nodeid.0 != 0).then_some(entry.nodeid.0));
            let length = usize::try_from(head.namelen).unwrap().next_multiple_of(8);
            rest = &name[length..];
        }
    }
    assert_eq!(names, 102, "with `.` and `..`");
    assert!((1..=NODES).contains(&known.len()), "{known:?}");
    assert!(guest.session.metrics().gauges.nodes <= NODES + 1);
}

#[test]
fn what_can_only_be_appended_to_is_appended_to() {
    const SETFLAGS: u32 = 0x4008_6602;
    const APPEND_ONLY: u32 = 0x20;
    const ZERO_RANGE: u32 = 0x10;
    let guest = alone();
    let node = guest.file("log");
    guest.write(node, b"one").unwrap();
    guest.ioctl(node, SETFLAGS, APPEND_ONLY.as_bytes()).unwrap();
    // The file that was open for the first write serves no other any more.
    assert_eq!(guest.write(node, b"two").unwrap_err(), EPERM);
    assert_eq!(guest.write_with(node, 0, O_APPEND, b"two").unwrap(), 3);
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"onetwo");
    let fallocate = |mode| {
        let arg = FallocateIn {
            mode,
            length: 8,
            ..FallocateIn::new_zeroed()
        };
        guest.call(Opcode::Fallocate, node, &[arg.as_bytes()])
    };
    fallocate(0).unwrap();
    assert_eq!(fallocate(ZERO_RANGE).unwrap_err(), EPERM);
    assert_eq!(guest.read(node, 0, 0).unwrap(), b"onetwo\0\0");
}

/// A single file that takes note of how it is synced: with `data_only`, or with all.
#[derive(Clone)]
struct Synced(NodeIdentity, Arc<Mutex<Vec<bool>>>);

impl Backend for Synced {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(self.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::PRIVATE | Capabilities::REOPEN
    }
}

impl Node for Synced {
    fn identity(&self) -> NodeIdentity {
        self.0
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::not_supported()
    }

    fn open(&self, _: OpenRequest) -> Answer<'_, Opened> {
        Answer::ok(Opened {
            file: Arc::new(self.clone()),
            caching: FileCaching::Policy,
        })
    }
}

impl File for Synced {
    fn read<'a>(&'a self, _: ReadRequest, _: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        Answer::ok(0)
    }

    fn write<'a>(&'a self, _: WriteRequest, source: &'a mut dyn WriteSource) -> Answer<'a, usize> {
        Answer::ok(source.remaining())
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        self.1.lock().unwrap().push(data_only);
        Answer::ok(())
    }
}

#[test]
fn what_is_to_be_written_through_is_synced_by_each_write() {
    const O_DSYNC: u32 = 0o10_000;
    const O_SYNC: u32 = 0o4_010_000;
    let backend = Synced(memory().root().identity(), Arc::default());
    let synced = Arc::clone(&backend.1);
    let guest = Guest::with(backend, SessionOptions::default());
    assert_eq!(guest.write_with(1, 0, 0, b"data").unwrap(), 4);
    assert_eq!(*synced.lock().unwrap(), []);
    assert_eq!(guest.write_with(1, 0, O_DSYNC, b"data").unwrap(), 4);
    assert_eq!(guest.write_with(1, 0, O_SYNC, b"data").unwrap(), 4);
    assert_eq!(*synced.lock().unwrap(), [true, false]);
}
