//! A guest without rings: requests as bytes, replies through a channel.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use vfsd_backend::{Backend, BufferSink, ReadSink, SliceSource, WriteSource};
use vfsd_backend::{Result as BackendResult, Wait};
use vfsd_fuse::wire::{EntryOut, InHeader, InitOut, NodeId, OpenIn, OpenOut, OutHeader, Unique};
use vfsd_fuse::{InitFlags, Opcode};
use vfsd_memory::{Memory, Settings};
use vfsd_server::{
    Body, Delivery, Exchange, Exports, HEADER_LENGTH, Incoming, Session, SessionOptions,
    inline_length,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How long a test waits for what has to come.
const TIME_LIMIT: Duration = Duration::from_secs(20);

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
});

/// What came back for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Reply(Vec<u8>),
    Nothing,
}

/// The way back of one request.
pub struct Wire {
    payload: Vec<u8>,
    taken: usize,
    reply: Vec<u8>,
    filled: usize,
    delivery: Delivery,
    sender: Option<Sender<Answer>>,
}

impl ReadSink for Wire {
    fn room(&self) -> usize {
        self.reply.len().saturating_sub(16 + self.filled)
    }

    fn put(&mut self, bytes: &[u8]) -> BackendResult<usize> {
        let mut sink = BufferSink::new(self.reply.get_mut(16 + self.filled..).unwrap_or_default());
        let taken = sink.put(bytes)?;
        self.filled += taken;
        Ok(taken)
    }

    fn put_from(
        &mut self,
        file: std::os::fd::BorrowedFd<'_>,
        offset: u64,
        length: usize,
        wait: Wait,
    ) -> BackendResult<usize> {
        let mut sink = BufferSink::new(self.reply.get_mut(16 + self.filled..).unwrap_or_default());
        let taken = sink.put_from(file, offset, length, wait)?;
        self.filled += taken;
        Ok(taken)
    }
}

impl WriteSource for Wire {
    fn remaining(&self) -> usize {
        self.payload.len() - self.taken
    }

    fn take(&mut self, buffer: &mut [u8]) -> BackendResult<usize> {
        let taken = SliceSource::new(&self.payload[self.taken..]).take(buffer)?;
        self.taken += taken;
        Ok(taken)
    }

    fn take_into(
        &mut self,
        file: std::os::fd::BorrowedFd<'_>,
        offset: u64,
        wait: Wait,
    ) -> BackendResult<usize> {
        let taken = SliceSource::new(&self.payload[self.taken..]).take_into(file, offset, wait)?;
        self.taken += taken;
        Ok(taken)
    }
}

impl Exchange for Wire {
    fn capacity(&self) -> usize {
        self.reply.len()
    }

    fn payload(&mut self) -> &mut dyn WriteSource {
        self
    }

    fn sink(&mut self) -> &mut dyn ReadSink {
        self
    }

    fn reply(mut self, header: [u8; 16], body: Body<'_>) -> Delivery {
        let length = match body {
            Body::Bytes(bytes) => {
                self.reply[16..16 + bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
            Body::Sunk(length) => length,
        };
        self.reply[..16].copy_from_slice(&header);
        self.reply.truncate(16 + length);
        let reply = std::mem::take(&mut self.reply);
        let _ = self.sender.take().unwrap().send(Answer::Reply(reply));
        self.delivery
    }

    fn discard(mut self) {
        let _ = self.sender.take().unwrap().send(Answer::Nothing);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Answer::Nothing);
        }
    }
}

/// A guest of one session.
pub struct Guest {
    pub session: Arc<Session>,
    pub uid: u32,
    pub gid: u32,
    /// What is offered at INIT.
    pub offer: InitFlags,
    /// Room for replies, header included.
    pub capacity: usize,
    /// Whether replies arrive.
    pub delivery: Delivery,
    unique: std::cell::Cell<u64>,
}

impl Guest {
    pub fn of(exports: Exports, options: SessionOptions) -> Self {
        Self::on(&RUNTIME, exports, options)
    }

    pub fn on(runtime: &Runtime, exports: Exports, options: SessionOptions) -> Self {
        let session = Session::new(exports, options, runtime.handle().clone());
        let guest = Self {
            session,
            uid: 0,
            gid: 0,
            offer: InitFlags::all(),
            capacity: 1 << 20,
            delivery: Delivery::Sent,
            unique: std::cell::Cell::new(2),
        };
        guest.init().unwrap();
        guest
    }

    pub fn with(backend: impl Backend + 'static, options: SessionOptions) -> Self {
        Self::of(Exports::single(Arc::new(backend), false), options)
    }

    pub fn on_memory() -> Self {
        Self::with(memory(), SessionOptions::default())
    }

    /// Another thread's hold on the same session.
    pub fn same_session(&self) -> Self {
        let unique = std::cell::Cell::new(1 << 32);
        Self {
            session: Arc::clone(&self.session),
            unique,
            ..*self
        }
    }

    /// Submits a request and lets its answer come when it comes.
    pub fn submit_bytes(&self, request: Vec<u8>) -> Receiver<Answer> {
        let (sender, receiver) = channel();
        let mut header = [0; HEADER_LENGTH];
        let have = request.len().min(HEADER_LENGTH);
        header[..have].copy_from_slice(&request[..have]);
        let split = inline_length(&header, request.len());
        let (inline, payload) = request.split_at(split);
        let exchange = Wire {
            payload: payload.to_vec(),
            taken: 0,
            reply: vec![0; self.capacity],
            filled: 0,
            delivery: self.delivery,
            sender: Some(sender),
        };
        let (inline, readable) = (inline.to_vec(), request.len());
        let incoming = Incoming {
            inline,
            readable,
            exchange,
        };
        self.session.worker().submit(incoming);
        receiver
    }

    /// Whether a transport would submit one more.
    pub fn has_room(&self) -> bool {
        self.session.worker::<Wire>().has_room()
    }

    pub fn request(&self, opcode: u32, node: u64, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        self.unique.set(self.unique.get() + 2);
        let header = InHeader {
            len: u32::try_from(40 + body.len()).unwrap(),
            opcode,
            unique: Unique(self.unique.get()),
            nodeid: NodeId(node),
            uid: self.uid,
            gid: self.gid,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        };
        [header.as_bytes(), &body].concat()
    }

    /// The `unique` of the last request.
    pub fn last_unique(&self) -> u64 {
        self.unique.get()
    }

    pub fn submit(&self, opcode: Opcode, node: u64, body: &[&[u8]]) -> Receiver<Answer> {
        self.submit_bytes(self.request(opcode.number(), node, body))
    }

    /// Makes a request and checks its reply's header: the body, or the errno.
    pub fn call(&self, opcode: Opcode, node: u64, body: &[&[u8]]) -> Result<Vec<u8>, i32> {
        let receiver = self.submit(opcode, node, body);
        self.result(&receiver, self.last_unique())
    }

    pub fn result(&self, receiver: &Receiver<Answer>, unique: u64) -> Result<Vec<u8>, i32> {
        match receiver
            .recv_timeout(TIME_LIMIT)
            .expect("every request is answered")
        {
            Answer::Nothing => panic!("no reply"),
            Answer::Reply(bytes) => {
                let (header, body) = OutHeader::read_from_prefix(&bytes).unwrap();
                assert_eq!(header.unique.0, unique);
                assert_eq!(usize::try_from(header.len).unwrap(), bytes.len());
                match header.error {
                    0 => Ok(body.to_vec()),
                    error => {
                        assert_eq!(bytes.len(), 16, "an error has no body");
                        Err(-error)
                    }
                }
            }
        }
    }

    pub fn init(&self) -> Result<InitOut, i32> {
        let (low, high) = self.offer.words();
        let body = [7u32, 45, 131_072, low, high];
        self.call(Opcode::Init, 0, &[body.as_bytes(), &[0; 44]])
            .map(|reply| structure(&reply))
    }

    pub fn lookup(&self, parent: u64, name: &str) -> Result<EntryOut, i32> {
        self.call(Opcode::Lookup, parent, &[name.as_bytes(), b"\0"])
            .map(|reply| structure(&reply))
    }

    pub fn mkdir(&self, parent: u64, name: &str) -> Result<EntryOut, i32> {
        let mode = [0o755u32, 0];
        self.call(
            Opcode::Mkdir,
            parent,
            &[mode.as_bytes(), name.as_bytes(), b"\0"],
        )
        .map(|reply| structure(&reply))
    }

    pub fn create(&self, parent: u64, name: &str) -> Result<(EntryOut, OpenOut), i32> {
        let arg = [2u32, 0o644, 0, 0];
        self.call(
            Opcode::Create,
            parent,
            &[arg.as_bytes(), name.as_bytes(), b"\0"],
        )
        .map(|reply| {
            let (entry, rest) = EntryOut::read_from_prefix(&reply).unwrap();
            (entry, structure(rest))
        })
    }

    pub fn open(&self, opcode: Opcode, node: u64, flags: u32) -> Result<OpenOut, i32> {
        let arg = OpenIn {
            flags,
            open_flags: 0,
        };
        self.call(opcode, node, &[arg.as_bytes()])
            .map(|reply| structure(&reply))
    }

    pub fn forget(&self, node: u64, count: u64) {
        let receiver = self.submit(Opcode::Forget, node, &[&count.to_le_bytes()]);
        assert_eq!(receiver.recv_timeout(TIME_LIMIT).unwrap(), Answer::Nothing);
    }

    pub fn nodes(&self) -> usize {
        self.session.metrics().gauges.nodes
    }

    pub fn handles(&self) -> usize {
        self.session.metrics().gauges.handles
    }
}

/// A structure, and nothing behind it.
pub fn structure<T: FromBytes + Immutable>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).expect("a reply of exactly this structure")
}

pub fn memory() -> Memory {
    Memory::new(Settings::default()).unwrap()
}
