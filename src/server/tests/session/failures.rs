//! Storages that fail, hang or make the daemon panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;
use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, DirEntry, DirSink, Directory, Errno, Error,
    FileKind, Lookup, Name, Node, NodeIdentity, Ttl,
};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::EntryOut;
use vfsd_server::{Budget, Exports, SessionOptions};
use zerocopy::IntoBytes;

use crate::guest::{Guest, RUNTIME, Wire, memory};
use crate::tables::read_in;

const EINTR: i32 = 4;
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
            b"wait" => self.wait(),
            _ => self.root.lookup(name),
        }
    }

    fn unlink<'a>(&'a self, _name: Name<'a>) -> Answer<'a, ()> {
        self.wait()
    }
}

impl Trouble {
    /// An answer that comes when it is let go.
    fn wait<T: Send + 'static>(&self) -> Answer<'_, T> {
        Answer::later(async {
            self.waits.fetch_add(1, Ordering::SeqCst);
            self.released.notified().await;
            Err(Errno::NOENT.into())
        })
    }
}

fn trouble() -> (Guest, Arc<Notify>, Arc<AtomicU32>) {
    trouble_within(Budget::default())
}

fn trouble_within(budget: Budget) -> (Guest, Arc<Notify>, Arc<AtomicU32>) {
    let (released, waits) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let root = memory().root();
    let backend = Trouble {
        root,
        released: Arc::clone(&released),
        waits: Arc::clone(&waits),
    };
    let options = SessionOptions {
        budget,
        ..SessionOptions::default()
    };
    (Guest::with(backend, options), released, waits)
}

#[test]
fn a_session_with_enough_deferred_requests_has_room_again_when_one_has_ended() {
    let (guest, released, waits) = trouble_within(Budget {
        deferred: 3,
        ..Budget::default()
    });
    let pending: Vec<_> = (0..3)
        .map(|_| {
            assert!(guest.has_room());
            // What changes something is not broken off.
            let answer = guest.submit(Opcode::Unlink, 1, &[b"wait\0"]);
            (answer, guest.last_unique())
        })
        .collect();
    assert!(!guest.has_room());
    assert_eq!(guest.session.metrics().gauges.deferred, 3);
    assert_eq!(guest.lookup(1, "none").unwrap_err(), 2, "for who asks");
    while waits.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    guest.session.reset();
    guest.init().unwrap();
    assert!(
        !guest.has_room(),
        "what the session before left to do counts"
    );
    let session = Arc::clone(&guest.session);
    let waiter = std::thread::spawn(move || {
        RUNTIME.handle().block_on(session.worker::<Wire>().room());
    });
    released.notify_one();
    waiter.join().unwrap();
    released.notify_one();
    released.notify_one();
    for (answer, unique) in &pending {
        assert_eq!(guest.result(answer, *unique), Err(2));
    }
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
        .map(|number| {
            let opcode = [Opcode::Lookup, Opcode::Unlink][number % 2];
            let answer = guest.submit(opcode, 1, &[b"wait\0"]);
            (opcode, answer, guest.last_unique())
        })
        .collect();
    assert_eq!(guest.lookup(1, "none").unwrap_err(), 2);
    while waits.load(Ordering::SeqCst) < 100 {
        std::thread::yield_now();
    }
    assert!(
        pending
            .iter()
            .all(|(_, answer, _)| answer.try_recv().is_err())
    );
    guest.session.reset();
    guest.init().unwrap();
    // What changes nothing is not waited for any more.
    let of = |wanted| pending.iter().filter(move |(opcode, ..)| *opcode == wanted);
    for (_, answer, unique) in of(Opcode::Lookup) {
        assert_eq!(guest.result(answer, *unique), Err(EIO));
    }
    assert!(of(Opcode::Unlink).all(|(_, answer, _)| answer.try_recv().is_err()));
    for _ in of(Opcode::Unlink) {
        released.notify_one();
    }
    for (_, answer, unique) in of(Opcode::Unlink) {
        assert_eq!(guest.result(answer, *unique), Err(2));
    }
    assert_eq!(
        guest.lookup(1, "none").unwrap_err(),
        2,
        "the new session is untouched"
    );
}

#[test]
fn an_interrupt_ends_the_wait_for_an_answer_that_changes_nothing() {
    let (guest, released, waits) = trouble();
    let pending = [Opcode::Lookup, Opcode::Lookup, Opcode::Unlink].map(|opcode| {
        let answer = guest.submit(opcode, 1, &[b"wait\0"]);
        (answer, guest.last_unique())
    });
    while waits.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    let [looked, other, unlinked] = pending;
    for (_, unique) in [&looked, &unlinked] {
        guest.submit(Opcode::Interrupt, 0, &[&unique.to_le_bytes()]);
    }
    assert_eq!(guest.result(&looked.0, looked.1), Err(EINTR));
    assert!(other.0.try_recv().is_err() && unlinked.0.try_recv().is_err());
    released.notify_one();
    released.notify_one();
    assert_eq!(guest.result(&other.0, other.1), Err(2));
    assert_eq!(guest.result(&unlinked.0, unlinked.1), Err(2));
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
    let pending = guest.submit(Opcode::Unlink, 1, &[b"wait\0"]);
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

/// A directory of which most names are gone when they are looked up.
struct Vanishing(Arc<dyn Node>);

const LISTED: u64 = 2000;
const GONE: u64 = 1900;

impl Backend for Vanishing {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Vanishing {
    fn identity(&self) -> NodeIdentity {
        self.0.identity()
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.0.getattr()
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        let number: u64 = std::str::from_utf8(name.as_bytes())
            .unwrap()
            .parse()
            .unwrap();
        if number <= GONE {
            return Answer::ok(Lookup::Missing { ttl: Ttl::Policy });
        }
        Answer::error(Errno::ACCESS)
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::ok(Arc::new(Numbers))
    }
}

/// The names 1, 2, 3 and so on; a cookie is the number before.
struct Numbers;

impl Directory for Numbers {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        for number in cookie + 1..=LISTED {
            let name = number.to_string();
            let entry = DirEntry {
                name: name.as_bytes(),
                inode: number,
                kind: Some(FileKind::Regular),
                next: number,
            };
            if sink.entry(&entry).is_break() {
                break;
            }
        }
        Answer::ok(())
    }
}

#[test]
fn a_listing_goes_on_behind_many_names_that_vanished() {
    let guest = Guest::with(Vanishing(memory().root()), SessionOptions::default());
    let open = guest.open(Opcode::Opendir, 1, 0).unwrap();
    let mut offset = 0;
    let mut listed = 0;
    loop {
        let arg = read_in(open.fh.0, offset, 4096);
        let reply = guest
            .call(Opcode::Readdirplus, 1, &[arg.as_bytes()])
            .unwrap();
        if reply.is_empty() {
            break;
        }
        // Entry, inode, offset, length of the name, type, name.
        let mut rest = &reply[..];
        while !rest.is_empty() {
            let number = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
            let entry = size_of::<EntryOut>();
            offset = number(entry + 8);
            let name = usize::try_from(number(entry + 16) & u64::from(u32::MAX)).unwrap();
            rest = &rest[entry + (24 + name).next_multiple_of(8)..];
            listed += 1;
        }
    }
    assert_eq!((listed, offset), (LISTED - GONE, LISTED));
}
