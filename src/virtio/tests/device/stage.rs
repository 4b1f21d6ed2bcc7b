//! A device in this process, with a session that does what the request's opcode says.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{MemfdFlags, memfd_create};
use vfsd_backend::{Answer, Wait};
use vfsd_server::{Body, Delivery, Exchange, Incoming, RequestWorker, Submitted};
use vfsd_testkit::frontend::channel::{Channel, Request};
use vfsd_testkit::frontend::device::{Device as FrontEnd, Options};
use vfsd_testkit::frontend::wire::opcode;
use vfsd_virtio::{ChainExchange, Device, DeviceOptions, End, Error, GuestSession, ShutdownHandle};

/// The reply is what follows the header.
pub(crate) const ECHO: u32 = opcode::LOOKUP;
/// No reply.
pub(crate) const SILENT: u32 = opcode::FORGET;
/// The session panics.
pub(crate) const PANIC: u32 = opcode::STATFS;
/// The exchange is dropped.
pub(crate) const DROP: u32 = opcode::ACCESS;
/// The exchange is kept until waits are cancelled.
pub(crate) const HOLD: u32 = opcode::SETLKW;
/// The exchange is kept until [`Play::release`], and has taken its room.
pub(crate) const KEEP: u32 = opcode::FSYNC;
/// The thread is in a blocking section until [`Play::free`], then answers like an echo.
pub(crate) const STUCK: u32 = opcode::MKDIR;
/// The thread waits outside of any section until [`Play::free`], then answers like an echo.
pub(crate) const BLOCK: u32 = opcode::RMDIR;
/// The reply claims a byte more than it has.
pub(crate) const LIE: u32 = opcode::FLUSH;
/// Data from the file, as many as the reply has room for.
pub(crate) const READ: u32 = opcode::READ;
/// Data to the file; the reply says how many bytes.
pub(crate) const WRITE: u32 = opcode::WRITE;

/// What the session noted and keeps.
#[derive(Debug)]
pub(crate) struct Play {
    pub(crate) file: File,
    pub(crate) resets: AtomicUsize,
    pub(crate) cancels: AtomicUsize,
    /// Replies that went out, and that did not.
    pub(crate) sent: AtomicUsize,
    pub(crate) lost: AtomicUsize,
    held: Mutex<Vec<Incoming<ChainExchange>>>,
    kept: Mutex<Vec<Incoming<ChainExchange>>>,
    /// So many there is room for.
    room: AtomicUsize,
    /// So many there were at most.
    most_kept: AtomicUsize,
    held_up: Mutex<Vec<Waker>>,
    arrived: Condvar,
    stuck: Mutex<Stuck>,
    freed: Condvar,
}

/// Requests whose work waits in a blocking section.
#[derive(Debug, Default)]
struct Stuck {
    waiting: usize,
    free: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Actor(pub(crate) Arc<Play>);

impl Play {
    fn answer(&self, exchange: ChainExchange, header: [u8; 16], body: Body<'_>) {
        let counter = match exchange.reply(header, body) {
            Delivery::Sent => &self.sent,
            Delivery::Lost => &self.lost,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    fn echo(&self, request: Incoming<ChainExchange>) {
        let Incoming {
            inline, exchange, ..
        } = request;
        let body = &inline[40..];
        self.answer(
            exchange,
            header(&inline, 16 + body.len()),
            Body::Bytes(body),
        );
    }

    /// Waits until a KEEP request is here.
    pub(crate) fn wait_kept(&self, count: usize) {
        let mut kept = self.kept.lock();
        while kept.len() < count {
            self.arrived.wait(&mut kept);
        }
    }

    /// Waits until freed, and says whether it did: not where a thread may not block.
    fn get_stuck(&self) -> bool {
        let mut answer = pin!(Answer::brief(|| {
            self.block();
            Ok(())
        }));
        answer
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    /// Waits until freed.
    fn block(&self) {
        let mut stuck = self.stuck.lock();
        stuck.waiting += 1;
        self.arrived.notify_all();
        while !stuck.free {
            self.freed.wait(&mut stuck);
        }
        stuck.waiting -= 1;
    }

    /// Waits until so many threads are stuck.
    pub(crate) fn wait_stuck(&self, count: usize) {
        let mut stuck = self.stuck.lock();
        while stuck.waiting < count {
            self.arrived.wait(&mut stuck);
        }
    }

    /// Lets go all that are stuck, and those to come.
    pub(crate) fn free(&self) {
        self.stuck.lock().free = true;
        self.freed.notify_all();
    }

    /// Answers what is kept, like an echo.
    pub(crate) fn release(&self) {
        for request in std::mem::take(&mut *self.kept.lock()) {
            self.echo(request);
        }
        self.held_up.lock().drain(..).for_each(Waker::wake);
    }

    /// Leaves room for so many KEEP requests at a time.
    pub(crate) fn leave_room(&self, count: usize) {
        self.room.store(count, Ordering::SeqCst);
    }

    /// How many KEEP requests there were at most.
    pub(crate) fn most_kept(&self) -> usize {
        self.most_kept.load(Ordering::SeqCst)
    }
}

fn header(inline: &[u8], length: usize) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&(length as u32).to_le_bytes());
    header[8..].copy_from_slice(&inline[8..16]);
    header
}

impl RequestWorker<ChainExchange> for Actor {
    fn submit(&mut self, mut request: Incoming<ChainExchange>) -> Submitted {
        let play = &self.0;
        let opcode = u32::from_le_bytes(request.inline[4..8].try_into().unwrap());
        let file = play.file.as_fd();
        match opcode {
            SILENT => request.exchange.discard(),
            PANIC => panic!("as asked"),
            DROP => drop(request),
            HOLD => play.held.lock().push(request),
            KEEP => {
                let mut kept = play.kept.lock();
                kept.push(request);
                play.most_kept.fetch_max(kept.len(), Ordering::SeqCst);
                play.arrived.notify_all();
                return Submitted::Deferred;
            }
            STUCK => {
                assert!(play.get_stuck(), "the thread may block");
                play.echo(request);
            }
            BLOCK => {
                play.block();
                play.echo(request);
            }
            LIE => {
                let header = header(&request.inline, 17);
                play.answer(request.exchange, header, Body::Bytes(&[]));
            }
            READ => {
                let sink = request.exchange.sink();
                let room = sink.room();
                let count = sink.put_from(file, 0, room, Wait::Allowed).unwrap();
                let header = header(&request.inline, 16 + count);
                play.answer(request.exchange, header, Body::Sunk(count));
            }
            WRITE => {
                let source = request.exchange.payload();
                let count = source.take_into(file, 0, Wait::Allowed).unwrap();
                let left = source.remaining();
                let header = header(&request.inline, 32);
                let body = [(count as u64).to_le_bytes(), (left as u64).to_le_bytes()].concat();
                play.answer(request.exchange, header, Body::Bytes(&body));
            }
            _ => play.echo(request),
        }
        Submitted::Ended
    }

    fn has_room(&self) -> bool {
        self.0.kept.lock().len() < self.0.room.load(Ordering::SeqCst)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::poll_fn(|context| {
            self.0.held_up.lock().push(context.waker().clone());
            match self.has_room() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }))
    }
}

impl GuestSession for Actor {
    fn worker(&self) -> Box<dyn RequestWorker<ChainExchange> + '_> {
        Box::new(self.clone())
    }

    fn cancel_waits(&self) {
        self.0.cancels.fetch_add(1, Ordering::SeqCst);
        for request in std::mem::take(&mut *self.0.held.lock()) {
            self.0.echo(request);
        }
    }

    fn reset(&self) {
        self.0.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// A device that serves on a thread of its own.
pub(crate) struct Served {
    pub(crate) play: Arc<Play>,
    pub(crate) socket: PathBuf,
    pub(crate) device: Arc<Device>,
    pub(crate) handle: ShutdownHandle,
    thread: Option<JoinHandle<Result<End, Error>>>,
    _directory: tempfile::TempDir,
}

impl Served {
    pub(crate) fn new(options: &DeviceOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let play = Arc::new(Play {
            file: File::from(memfd_create("file", MemfdFlags::CLOEXEC).unwrap()),
            resets: AtomicUsize::new(0),
            cancels: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            held: Mutex::default(),
            kept: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            most_kept: AtomicUsize::new(0),
            held_up: Mutex::default(),
            arrived: Condvar::new(),
            stuck: Mutex::default(),
            freed: Condvar::new(),
        });
        let device =
            Arc::new(Device::new(listener, Arc::new(Actor(Arc::clone(&play))), options).unwrap());
        let handle = device.shutdown_handle();
        let server = Arc::clone(&device);
        let thread = std::thread::spawn(move || server.serve());
        Self {
            play,
            socket,
            device,
            handle,
            thread: Some(thread),
            _directory: directory,
        }
    }

    /// One that waits for the next front end when one left.
    pub(crate) fn patient() -> Self {
        Self::new(&DeviceOptions {
            reconnect: true,
            ..DeviceOptions::default()
        })
    }

    /// What serving ended with.
    pub(crate) fn join(mut self) -> Result<End, Error> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Connects a front end that starts all its rings.
    pub(crate) fn connect(&self, options: &Options) -> FrontEnd {
        FrontEnd::connect(&self.socket, options).unwrap()
    }

    pub(crate) fn popped_less_pushed(&self) -> u64 {
        let counters = self.device.counters();
        counters.chains_popped - counters.chains_pushed - counters.chains_lost
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.play.free();
        self.handle.shut_down();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Requests over ring `index`.
pub(crate) fn channel(front_end: &FrontEnd, index: u16) -> Channel {
    Channel::new(front_end.ring(index).unwrap(), u64::from(index) << 32)
}

pub(crate) fn request(opcode: u32, body: &[u8]) -> Request {
    Request::new(opcode, 1, body.to_vec())
}
