//! Several storages under one root.

use std::sync::{Arc, Condvar, Mutex};

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, FileKind, Lookup, Name, Node, NodeIdentity,
};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{
    ATTR_SUBMOUNT, AttrOut, GetattrIn, GetxattrIn, HandleId, OpenOut, ReadIn, fopen,
};
use vfsd_memory::Memory;
use vfsd_server::{Export, Exports, ExportsError, SessionOptions};
use zerocopy::IntoBytes;

use crate::guest::{Guest, memory, structure};

const EXDEV: i32 = 18;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const ENODATA: i32 = 61;

fn two() -> Guest {
    let exports = Exports::named(vec![
        Export::new("data", Arc::new(memory()), false),
        Export::new("tools", Arc::new(memory()), true),
    ]);
    Guest::of(exports.unwrap(), SessionOptions::default())
}

#[test]
fn each_export_is_a_mount_of_its_own_below_a_read_only_root() {
    let guest = two();
    let data = guest.lookup(1, "data").unwrap();
    let tools = guest.lookup(1, "tools").unwrap();
    assert_ne!(
        data.nodeid.0, tools.nodeid.0,
        "the same inode number in both, but not the same file"
    );
    assert_eq!(
        (data.attr.flags, tools.attr.flags),
        (ATTR_SUBMOUNT, ATTR_SUBMOUNT)
    );
    let arg = GetattrIn {
        getattr_flags: 0,
        dummy: 0,
        fh: HandleId(0),
    };
    let root = guest.call(Opcode::Getattr, 1, &[arg.as_bytes()]).unwrap();
    let root: AttrOut = structure(&root);
    assert!(
        ![data.attr.ino, tools.attr.ino].contains(&root.attr.ino),
        "it would be taken for a loop"
    );
    assert_eq!(guest.lookup(1, "other").unwrap_err(), 2);
    assert_eq!(guest.mkdir(1, "new").unwrap_err(), EROFS);
    assert_eq!(guest.mkdir(tools.nodeid.0, "new").unwrap_err(), EROFS);
    assert!(guest.mkdir(data.nodeid.0, "new").is_ok());
    assert_eq!(guest.lookup(data.nodeid.0, "new").unwrap().attr.flags, 0);
}

/// A storage without extended attributes.
struct Plain(Memory);

impl Backend for Plain {
    fn root(&self) -> Arc<dyn Node> {
        self.0.root()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().difference(Capabilities::XATTR)
    }
}

#[test]
fn a_guest_need_not_ask_for_extended_attributes_that_no_export_has() {
    let ask = |guest: &Guest, node| {
        let arg = GetxattrIn {
            size: 0,
            padding: 0,
        };
        let body: [&[u8]; 2] = [arg.as_bytes(), b"security.capability\0"];
        guest.call(Opcode::Getxattr, node, &body).unwrap_err()
    };
    let export = |name: &str, plain| match plain {
        true => Export::new(name, Arc::new(Plain(memory())), false),
        false => Export::new(name, Arc::new(memory()), false),
    };
    for (second_is_plain, errno) in [(true, ENOSYS), (false, ENODATA)] {
        let exports = Exports::named(vec![export("a", true), export("b", second_is_plain)]);
        let guest = Guest::of(exports.unwrap(), SessionOptions::default());
        let node = guest.lookup(1, "b").unwrap().nodeid.0;
        assert_eq!(ask(&guest, node), errno);
    }
}

/// A storage that says that nobody changes it but who is served, and whose files have to be opened.
struct Private(Memory);

impl Backend for Private {
    fn root(&self) -> Arc<dyn Node> {
        self.0.root()
    }

    fn capabilities(&self) -> Capabilities {
        let without = Capabilities::POSIX_LOCKS | Capabilities::FLOCK | Capabilities::REOPEN;
        (self.0.capabilities() - without) | Capabilities::PRIVATE
    }
}

#[test]
fn what_nobody_else_changes_is_remembered_for_good_and_what_lies_beside_it_is_not() {
    const YEAR: u64 = 31_536_000;
    let own = Arc::new(Private(memory()));
    let maker = Exports::single(Arc::clone(&own) as Arc<dyn Backend>, false);
    let maker = Guest::of(maker, SessionOptions::default());
    maker.create(1, "file").unwrap();
    let exports = Exports::named(vec![
        Export::new("own", own, true),
        Export::new("data", Arc::new(memory()), false),
    ]);
    let guest = Guest::of(exports.unwrap(), SessionOptions::default());
    let own = guest.lookup(1, "own").unwrap();
    let file = guest.lookup(own.nodeid.0, "file").unwrap();
    assert_eq!((file.entry_valid, file.attr_valid), (YEAR, YEAR));
    let missing = guest.lookup(own.nodeid.0, "missing").unwrap();
    assert_eq!((missing.nodeid.0, missing.entry_valid), (0, YEAR));
    let arg = GetattrIn {
        getattr_flags: 0,
        dummy: 0,
        fh: HandleId(0),
    };
    let attributes = guest.call(Opcode::Getattr, file.nodeid.0, &[arg.as_bytes()]);
    assert_eq!(structure::<AttrOut>(&attributes.unwrap()).attr_valid, YEAR);
    let opened = guest.open(Opcode::Open, file.nodeid.0, 0).unwrap();
    assert!(opened.open_flags & fopen::KEEP_CACHE != 0);
    let listed = guest.open(Opcode::Opendir, own.nodeid.0, 0).unwrap();
    assert_eq!(listed.open_flags, fopen::KEEP_CACHE | fopen::CACHE_DIR);

    let data = guest.lookup(1, "data").unwrap();
    assert_eq!((data.entry_valid, data.attr_valid), (1, 1));
    assert_eq!(guest.lookup(data.nodeid.0, "missing").unwrap_err(), 2);
    let listed = guest.open(Opcode::Opendir, data.nodeid.0, 0).unwrap();
    assert_eq!(listed.open_flags, 0);
}

#[test]
fn a_close_sends_no_flush_where_no_lock_depends_on_it() {
    let flags = |backend: Arc<dyn Backend>| {
        let guest = Guest::of(Exports::single(backend, false), SessionOptions::default());
        let created = guest.create(1, "file").unwrap();
        let opened = guest.open(Opcode::Open, created.0.nodeid.0, 0).unwrap();
        let noflush = |out: OpenOut| out.open_flags & fopen::NOFLUSH != 0;
        (noflush(created.1), noflush(opened))
    };
    assert_eq!(flags(Arc::new(Private(memory()))), (true, true));
    assert_eq!(flags(Arc::new(memory())), (false, false), "locks are real");
}

#[test]
fn the_root_lists_the_exports() {
    let guest = two();
    let fh = guest.open(Opcode::Opendir, 1, 0).unwrap().fh.0;
    let read = |opcode, offset| {
        let arg = ReadIn {
            fh: HandleId(fh),
            offset,
            size: 4096,
            read_flags: 0,
            lock_owner: 0,
            flags: 0,
            padding: 0,
        };
        guest.call(opcode, 1, &[arg.as_bytes()]).unwrap()
    };
    let all = read(Opcode::Readdir, 0);
    assert!(all.windows(4).any(|at| at == b"data") && all.windows(5).any(|at| at == b"tools"));
    let last = read(Opcode::Readdir, 3);
    assert!(!last.windows(4).any(|at| at == b"data") && last.windows(5).any(|at| at == b"tools"));
    assert_eq!(read(Opcode::Readdir, 4), [], "the end");
    assert_eq!(
        read(Opcode::Readdir, u64::MAX),
        [],
        "a cookie that was never given"
    );
    read(Opcode::Readdirplus, 0);
    assert_eq!(guest.nodes(), 3);
}

#[test]
fn nothing_is_moved_or_linked_from_one_export_to_another() {
    let exports = Exports::named(vec![
        Export::new("a", Arc::new(memory()), false),
        Export::new("b", Arc::new(memory()), false),
    ]);
    let guest = Guest::of(exports.unwrap(), SessionOptions::default());
    let a = guest.lookup(1, "a").unwrap().nodeid.0;
    let b = guest.lookup(1, "b").unwrap().nodeid.0;
    let (file, open) = guest.create(a, "file").unwrap();
    let (other, other_open) = guest.create(b, "other").unwrap();
    let rename = guest.call(Opcode::Rename, a, &[&b.to_le_bytes(), b"file\0file\0"]);
    assert_eq!(rename, Err(EXDEV));
    let link = guest.call(Opcode::Link, b, &[&file.nodeid.0.to_le_bytes(), b"file\0"]);
    assert_eq!(link, Err(EXDEV));
    let copy = [open.fh.0, 0, other.nodeid.0, other_open.fh.0, 0, 10, 0];
    assert_eq!(
        guest.call(Opcode::CopyFileRange, file.nodeid.0, &[copy.as_bytes()]),
        Err(EXDEV)
    );
}

#[test]
fn exports_need_names_that_can_be_directories() {
    let export = |name: &str| Export::new(name, Arc::new(memory()), false);
    assert_eq!(Exports::named(vec![]).unwrap_err(), ExportsError::Empty);
    for bad in ["", ".", "..", "a/b", &"x".repeat(256)] {
        let error = Exports::named(vec![export(bad)]).unwrap_err();
        assert_eq!(error, ExportsError::BadName(bad.into()));
    }
    let error = Exports::named(vec![export("a"), export("b"), export("a")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two exports are named \"a\": rename one of them"
    );
}

/// A storage whose lookups need a thread, until it is free; which all are until it answers.
#[derive(Clone)]
struct Slow {
    root: Arc<dyn Node>,
    answers: Arc<(Mutex<bool>, Condvar)>,
}

impl Slow {
    fn new(answers: bool) -> Self {
        Self {
            root: memory().root(),
            answers: Arc::new((Mutex::new(answers), Condvar::new())),
        }
    }

    fn wait(&self) {
        let (answers, changed) = self.answers.as_ref();
        let waiting = changed.wait_while(answers.lock().unwrap(), |answers| !*answers);
        drop(waiting.unwrap());
    }

    fn answer(&self) {
        let (answers, changed) = self.answers.as_ref();
        *answers.lock().unwrap() = true;
        changed.notify_all();
    }
}

impl Backend for Slow {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(self.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Slow {
    fn identity(&self) -> NodeIdentity {
        self.root.identity()
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.root.getattr()
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        Answer::blocking(|| {
            self.wait();
            Ok(())
        })
        .then(move |_| self.root.lookup(name))
    }
}

#[test]
fn an_export_that_does_not_answer_leaves_the_threads_of_the_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .build();
    // Its end would wait for the export, if anything fails before that answers.
    let runtime = Box::leak(Box::new(runtime.unwrap()));
    let (hung, well) = (Slow::new(false), Slow::new(true));
    let exports = Exports::named(vec![
        Export::new("hung", Arc::new(hung.clone()), false).with_threads(2),
        Export::new("well", Arc::new(well), false).with_threads(2),
    ]);
    let guest = Guest::on(runtime, exports.unwrap(), SessionOptions::default());
    let directory = guest.lookup(1, "hung").unwrap().nodeid.0;
    let pending: Vec<_> = (0..20)
        .map(|_| {
            let answer = guest.submit(Opcode::Lookup, directory, &[b"none\0"]);
            (answer, guest.last_unique())
        })
        .collect();
    for _ in 0..20 {
        let other = guest.lookup(1, "well").unwrap().nodeid.0;
        assert_eq!(guest.lookup(other, "none").unwrap_err(), 2);
    }
    assert!(pending.iter().all(|(answer, _)| answer.try_recv().is_err()));
    hung.answer();
    for (answer, unique) in &pending {
        assert_eq!(guest.result(answer, *unique), Err(2));
    }
}
