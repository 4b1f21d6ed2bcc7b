//! Storages that fail, hang or make the daemon panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;
use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, Errno, Error, FileKind, Lookup, Name, Node,
    NodeIdentity,
};
use vfsd_fuse::Opcode;
use vfsd_server::{Budget, Exports, SessionOptions};

use crate::guest::{Guest, memory};

const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;

/// A directory in which names decide what goes wrong.
struct Trouble {
    root: Arc<dyn Node>,
    released: Arc<Notify>,
    waits: Arc<AtomicU32>,
}

impl Backend for Trouble {
    fn root(&self) -> Arc<dyn Node> {
        let (released, waits) = (Arc::clone(&self.released), Arc::clone(&self.waits));
        Arc::new(Self {
            root: Arc::clone(&self.root),
            released,
            waits,
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Trouble {
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
        match name.as_bytes() {
            b"panic" => panic!("asked for"),
            b"late-panic" => Answer::blocking(|| panic!("asked for")),
            b"storage" => Answer::ready(Err(Error::Storage("the disk is on fire".into()))),
            b"descriptors" => Answer::error(Errno::MFILE),
            b"wait" => Answer::later(async {
                self.waits.fetch_add(1, Ordering::SeqCst);
                self.released.notified().await;
                Err(Errno::NOENT.into())
            }),
            _ => self.root.lookup(name),
        }
    }
}

fn trouble() -> (Guest, Arc<Notify>, Arc<AtomicU32>) {
    let (released, waits) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let root = memory().root();
    let backend = Trouble {
        root,
        released: Arc::clone(&released),
        waits: Arc::clone(&waits),
    };
    (
        Guest::with(backend, SessionOptions::default()),
        released,
        waits,
    )
}

#[test]
fn a_panic_is_an_error_of_one_request() {
    let (guest, ..) = trouble();
    for name in ["panic", "late-panic"] {
        assert_eq!(guest.lookup(1, name).unwrap_err(), EIO);
        assert_eq!(
            guest.lookup(1, "none").unwrap_err(),
            2,
            "the session goes on"
        );
    }
    while guest.session.metrics().panics != 2 {
        std::thread::yield_now();
    }
}

#[test]
fn failures_of_the_storage_and_of_the_daemon_have_an_errno_of_their_own() {
    let (guest, ..) = trouble();
    assert_eq!(guest.lookup(1, "storage").unwrap_err(), EIO);
    assert_eq!(guest.lookup(1, "descriptors").unwrap_err(), ENFILE);
}

#[test]
fn a_storage_that_waits_holds_up_nobody_and_loses_no_reply_when_the_session_ends() {
    let (guest, released, waits) = trouble();
    let pending: Vec<_> = (0..100)
        .map(|_| {
            (
                guest.submit(Opcode::Lookup, 1, &[b"wait\0"]),
                guest.last_unique(),
            )
        })
        .collect();
    assert_eq!(guest.lookup(1, "none").unwrap_err(), 2);
    while waits.load(Ordering::SeqCst) < 100 {
        std::thread::yield_now();
    }
    assert!(pending.iter().all(|(answer, _)| answer.try_recv().is_err()));
    guest.session.reset();
    guest.init().unwrap();
    while Arc::strong_count(&released) > 0 && !pending.is_empty() {
        released.notify_waiters();
        if pending
            .iter()
            .all(|(answer, unique)| guest.result(answer, *unique) == Err(2))
        {
            break;
        }
    }
    assert_eq!(
        guest.lookup(1, "none").unwrap_err(),
        2,
        "the new session is untouched"
    );
}

#[test]
fn what_a_session_before_holds_counts_until_its_last_request_ends() {
    let files = Arc::new(memory());
    let maker = Guest::of(
        Exports::single(Arc::clone(&files) as _, false),
        SessionOptions::default(),
    );
    for name in ["a", "b"] {
        maker.mkdir(1, name).unwrap();
    }
    let (released, waits) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let backend = Trouble {
        root: files.root(),
        released: Arc::clone(&released),
        waits: Arc::clone(&waits),
    };
    let budget = Budget {
        nodes: 3,
        ..Budget::default()
    };
    let options = SessionOptions {
        budget,
        ..SessionOptions::default()
    };
    let guest = Guest::with(backend, options);
    let both = || [guest.lookup(1, "a"), guest.lookup(1, "b")].map(|found| found.map(drop));
    assert_eq!(both(), [Ok(()); 2]);
    let pending = guest.submit(Opcode::Lookup, 1, &[b"wait\0"]);
    let unique = guest.last_unique();
    while waits.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        guest.init().expect("a guest can always mount");
        assert_eq!(both(), [Err(ENOMEM); 2]);
    }
    // Stored for the one that waits, or will in a moment.
    released.notify_one();
    assert_eq!(guest.result(&pending, unique), Err(2));
    assert_eq!(both(), [Ok(()); 2]);
    assert_eq!(guest.nodes(), 3);
}

#[test]
fn what_nobody_knows_is_not_implemented_and_counted() {
    let guest = Guest::on_memory();
    for opcode in [0u32, 7, 19, 54, 4096, u32::MAX] {
        let answer = guest.submit_bytes(guest.request(opcode, 1, &[&[0; 64]]));
        assert_eq!(guest.result(&answer, guest.last_unique()), Err(38));
    }
    assert_eq!(guest.session.metrics().unknown, 6);
    for opcode in [
        Opcode::Bmap,
        Opcode::Poll,
        Opcode::Setupmapping,
        Opcode::Removemapping,
    ] {
        assert_eq!(
            guest.call(opcode, 1, &[&[0; 64]]),
            Err(38),
            "{}",
            opcode.name()
        );
    }
}
