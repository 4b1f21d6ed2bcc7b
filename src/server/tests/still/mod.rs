//! A session between a transport and a backend that do nothing, so that what is left is the
//! server's own work.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::runtime::Builder;
use vfsd_backend::{
    Answer, Attributes, Backend, Caller, Capabilities, Created, Device, Entry, Errno, File,
    FileCaching, FileKind, Lookup, Name, NewInode, Node, NodeIdentity, OpenFlags, OpenRequest,
    Opened, ReadRequest, ReadSink, Result, Timestamp, Ttl, Wait, WriteRequest, WriteSource,
    XattrName,
};
use vfsd_fuse::wire::{EntryOut, HandleId, InHeader, NodeId, OpenOut, ReadIn, ReleaseIn, Unique};
use vfsd_fuse::{InitFlags, Opcode};
use vfsd_server::{
    Body, Delivery, Exchange, Exports, Incoming, RequestWorker, Session, SessionOptions,
};
use zerocopy::{FromBytes, IntoBytes};

thread_local! {
    /// The last reply.
    static LAST: Cell<[u8; 160]> = const { Cell::new([0; 160]) };
}

/// Inode number of the root.
const ROOT: u64 = 1;
/// Files have these numbers: where a name leads to depends on nothing else.
const FILES: std::ops::Range<u64> = 1_000..u64::MAX;
/// Bytes of a READ and a WRITE.
const BLOCK: u32 = 4096;

/// A storage in which every number is a name, and the file of that name exists.
struct Still;

impl Backend for Still {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(Thing(ROOT))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

/// A node or an open file: its inode number.
#[derive(Clone, Copy)]
struct Thing(u64);

impl Thing {
    fn attributes(self) -> Attributes {
        let time = Timestamp {
            seconds: 1,
            nanoseconds: 1,
        };
        Attributes {
            inode: self.0,
            kind: self.kind(),
            permissions: 0o755,
            links: 1,
            uid: 0,
            gid: 0,
            device: Device::default(),
            size: 4096,
            blocks: 8,
            block_size: 4096,
            accessed: time,
            modified: time,
            changed: time,
            born: None,
            mount_root: false,
        }
    }

    fn named(name: Name<'_>) -> Result<Self> {
        let digits = str::from_utf8(name.as_bytes()).map_err(|_| Errno::NOENT)?;
        let number = digits.parse().map_err(|_| Errno::NOENT)?;
        FILES
            .contains(&number)
            .then_some(Self(number))
            .ok_or(Errno::NOENT.into())
    }

    fn entry(self, node: Arc<dyn Node>) -> Entry {
        Entry {
            node,
            attributes: self.attributes(),
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }
    }
}

thread_local! {
    /// What a lookup gives, made beforehand: a storage that caches its nodes allocates nothing.
    static CACHED: RefCell<HashMap<u64, Arc<Thing>>> = RefCell::default();
}

impl Thing {
    fn cached(self) -> Arc<Self> {
        CACHED.with_borrow_mut(|cached| match cached.get(&self.0) {
            Some(thing) => Arc::clone(thing),
            None if cached.len() < 64 => Arc::clone(cached.entry(self.0).or_insert(Arc::new(self))),
            None => Arc::new(self),
        })
    }

    fn opened(self) -> Opened {
        Opened {
            file: self.cached(),
            caching: FileCaching::Policy,
        }
    }
}

impl Node for Thing {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 1,
            inode: self.0,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        if self.0 == ROOT {
            FileKind::Directory
        } else {
            FileKind::Regular
        }
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.attributes())
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        Answer::now(|| {
            let found = Thing::named(name)?;
            Ok(Lookup::Found(found.entry(found.cached())))
        })
    }

    fn open(&self, _request: OpenRequest) -> Answer<'_, Opened> {
        Answer::ok(self.opened())
    }

    fn create<'a>(
        &'a self,
        _caller: Caller,
        name: Name<'a>,
        _flags: OpenFlags,
        _inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        Answer::now(|| {
            let made = Thing::named(name)?;
            Ok(Created {
                entry: made.entry(made.cached()),
                opened: made.opened(),
            })
        })
    }

    fn unlink<'a>(&'a self, _name: Name<'a>) -> Answer<'a, ()> {
        Answer::ok(())
    }

    fn getxattr<'a>(&'a self, _name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        Answer::error(Errno::NODATA)
    }
}

impl File for Thing {
    fn read<'a>(&'a self, request: ReadRequest, _sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        Answer::ok(request.length)
    }

    fn write<'a>(
        &'a self,
        _request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        Answer::ok(source.remaining())
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.attributes())
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }
}

/// The way back of a request: its reply can be looked at until the next.
pub(crate) struct Nowhere;

impl ReadSink for Nowhere {
    fn room(&self) -> usize {
        usize::try_from(BLOCK).unwrap()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        Ok(bytes.len())
    }

    fn put_from(&mut self, _: BorrowedFd<'_>, _: u64, length: usize, _: Wait) -> Result<usize> {
        Ok(length)
    }
}

impl WriteSource for Nowhere {
    fn remaining(&self) -> usize {
        usize::try_from(BLOCK).unwrap()
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Ok(buffer.len())
    }

    fn take_into(&mut self, _: BorrowedFd<'_>, _: u64, _: Wait) -> Result<usize> {
        Ok(self.remaining())
    }
}

impl Exchange for Nowhere {
    fn capacity(&self) -> usize {
        16 + usize::try_from(BLOCK).unwrap()
    }

    fn payload(&mut self) -> &mut dyn WriteSource {
        self
    }

    fn sink(&mut self) -> &mut dyn ReadSink {
        self
    }

    fn reply(self, header: [u8; 16], body: Body<'_>) -> Delivery {
        let mut start = [0; 160];
        start[..16].copy_from_slice(&header);
        if let Body::Bytes(bytes) = body {
            start[16..][..bytes.len()].copy_from_slice(bytes);
        }
        LAST.set(start);
        Delivery::Sent
    }

    fn discard(self) {
        LAST.set([0; 160]);
    }
}

/// The body of the last reply, which was no error.
fn last<T: FromBytes>() -> T {
    let reply = LAST.get();
    assert_eq!(reply[4..8], [0; 4], "refused");
    T::read_from_prefix(&reply[16..]).unwrap().0
}

/// A guest of the session.
pub(crate) struct Scene<'a> {
    worker: Box<dyn RequestWorker<Nowhere> + 'a>,
    file: u64,
    handle: u64,
}

impl Scene<'_> {
    /// A guest that knows a file and has it open.
    pub(crate) fn with<T>(work: impl FnOnce(&mut Scene<'_>) -> T) -> T {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let exports = Exports::single(Arc::new(Still), false);
        let session = Session::new(exports, SessionOptions::default(), runtime.handle().clone());
        let mut scene = Scene {
            worker: session.worker(),
            file: 0,
            handle: 0,
        };
        let (low, high) = InitFlags::all().words();
        let init = [7_u32, 45, 131_072, low, high];
        scene.send(Opcode::Init, 0, &[init.as_bytes(), &[0; 44]], 0);
        scene.lookup(FILES.start);
        scene.file = last::<EntryOut>().nodeid.0;
        scene.open();
        scene.handle = last::<OpenOut>().fh.0;
        work(&mut scene)
    }

    /// Looks up that many other files.
    pub(crate) fn learn(&mut self, count: u64) {
        (1..=count).for_each(|count| self.lookup(FILES.start + count));
    }

    fn send(&mut self, opcode: Opcode, node: u64, body: &[&[u8]], payload: u32) {
        let body_length: usize = body.iter().map(|part| part.len()).sum();
        let length = 40 + body_length;
        let header = InHeader {
            len: u32::try_from(length).unwrap() + payload,
            opcode: opcode.number(),
            unique: Unique(2),
            nodeid: NodeId(node),
            uid: 0,
            gid: 0,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        };
        let mut inline = self.worker.buffer();
        inline.extend_from_slice(header.as_bytes());
        body.iter().for_each(|part| inline.extend_from_slice(part));
        self.worker.submit(Incoming {
            inline,
            readable: length + usize::try_from(payload).unwrap(),
            exchange: Nowhere,
        });
    }

    fn lookup(&mut self, number: u64) {
        self.named(Opcode::Lookup, &[], number);
    }

    fn named(&mut self, opcode: Opcode, argument: &[u8], mut number: u64) {
        let mut name = [0; 21];
        let mut at = 20;
        while number > 0 {
            at -= 1;
            name[at] = b'0' + u8::try_from(number % 10).unwrap();
            number /= 10;
        }
        self.send(opcode, 1, &[argument, &name[at..]], 0);
    }

    fn open(&mut self) {
        self.send(Opcode::Open, self.file, &[&[0; 8]], 0);
    }

    fn release(&mut self, node: u64, handle: u64) {
        let argument = ReleaseIn {
            fh: HandleId(handle),
            flags: 0,
            release_flags: 0,
            lock_owner: 0,
        };
        self.send(Opcode::Release, node, &[argument.as_bytes()], 0);
    }

    fn transfer(&mut self, opcode: Opcode, payload: u32) {
        let argument = ReadIn {
            fh: HandleId(self.handle),
            offset: 0,
            size: BLOCK,
            read_flags: 0,
            lock_owner: 0,
            flags: 0,
            padding: 0,
        };
        self.send(opcode, self.file, &[argument.as_bytes()], payload);
    }
}

/// A request, made over and over.
pub(crate) type Round = fn(&mut Scene<'_>);

/// The requests that a busy guest makes.
pub(crate) const REQUESTS: &[(&str, Round)] = &[
    ("lookup", |scene| scene.lookup(FILES.start)),
    ("lookup-missing", |scene| {
        scene.send(Opcode::Lookup, 1, &[b"none\0"], 0);
    }),
    ("getattr", |scene| {
        scene.send(Opcode::Getattr, scene.file, &[&[0; 16]], 0);
    }),
    ("read", |scene| scene.transfer(Opcode::Read, 0)),
    ("write", |scene| scene.transfer(Opcode::Write, BLOCK)),
    ("getxattr", |scene| {
        scene.send(Opcode::Getxattr, scene.file, &[&[0; 8], b"user.none\0"], 0);
    }),
    ("open+release", |scene| {
        scene.open();
        let fh = last::<OpenOut>().fh.0;
        scene.release(scene.file, fh);
    }),
    ("create+release+unlink+forget", |scene| {
        scene.named(Opcode::Create, &[0; 16], u64::MAX - 1);
        let node = last::<EntryOut>().nodeid.0;
        let fh = u64::from_le_bytes(*last::<[u8; 136]>().last_chunk().unwrap());
        scene.send(Opcode::Unlink, 1, &[b"none\0"], 0);
        scene.release(node, fh);
        scene.send(Opcode::Forget, node, &[&1_u64.to_le_bytes()], 0);
    }),
];
