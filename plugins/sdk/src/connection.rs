//! One connection to the daemon: a session like any guest's, with the socket as its transport.

use std::collections::HashSet;
use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use vfsd_backend::Backend;
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{Unique, WriteIn};
use vfsd_plugin_protocol::{
    AreaIn, Features, HelloError, HostHello, MAX_ARGUMENTS, MAX_DATA, POLICY, PluginHello, Poller,
    ReceiveError, Receiver, WRITE_AREA, send_all,
};
use vfsd_server::{
    CacheMode, CachePolicy, Exports, HEADER_LENGTH, Incoming, Offer, RequestWorker, Session,
    SessionOptions, inline_length,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::area::{Area, Range};
use crate::exchange::{Data, PluginExchange, Request};
use crate::numbers::Numbers;

/// Requests that are taken before the first is answered.
const IN_FLIGHT: u32 = 4096;

/// Requests that follow within this are waited for without sleeping.
const NEXT: Duration = Duration::from_micros(50);

/// Why a connection to the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other side does not speak the protocol.
    #[error("the daemon's greeting is wrong: {0}")]
    Hello(#[from] HelloError),
    /// The other side speaks it badly.
    #[error("the daemon sent a request that is {0} bytes long")]
    Length(usize),
    /// The memory for data of writes is not there, or does not have them.
    #[error("the daemon shares no memory where it says that data are")]
    Area,
    /// The socket failed.
    #[error("the connection to the daemon broke: {0}")]
    Receive(#[from] ReceiveError),
    /// The socket failed.
    #[error("the connection to the daemon broke: {0}")]
    Send(#[from] io::Error),
}

/// The way to the daemon.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    sending: Mutex<()>,
    /// Descriptors that the daemon has.
    pub(crate) numbers: Numbers,
    /// Requests that wait for a lock.
    lock_waits: Mutex<HashSet<Unique>>,
    lock_wait_ended: Condvar,
}

/// How long a wait for a lock may take to end that was interrupted. It takes no time, unless a storage does not let go.
const LETTING_GO: Duration = Duration::from_secs(1);

impl Connection {
    /// Sends a message whole.
    ///
    /// # Errors
    /// When the daemon has left. The connection is then of no use to anybody.
    pub(crate) fn send(
        &self,
        parts: &[&[u8]],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let _one_at_a_time = self.sending.lock();
        send_all(&self.stream, parts, descriptor).inspect_err(|_| {
            let _ = self.stream.shutdown(Shutdown::Both);
        })
    }

    fn lock_wait_begins(&self, unique: Unique) {
        self.lock_waits.lock().insert(unique);
    }

    /// A request is ended that may have waited for a lock.
    pub(crate) fn lock_wait_ends(&self, unique: Unique) {
        if self.lock_waits.lock().remove(&unique) {
            self.lock_wait_ended.notify_all();
        }
    }

    /// Waits until a wait for a lock is over that was interrupted. The requests that follow may be about that lock: whoever gave
    /// it up must not be the one who gets it.
    fn await_end(&self, unique: Unique) {
        let mut waits = self.lock_waits.lock();
        let deadline = Instant::now().checked_add(LETTING_GO);
        while let (true, Some(deadline)) = (waits.contains(&unique), deadline) {
            if self
                .lock_wait_ended
                .wait_until(&mut waits, deadline)
                .timed_out()
            {
                return;
            }
        }
    }
}

/// Serves a storage to the daemon at the other end of a socket, until it leaves. Requests that are not answered at once
/// go on in `runtime`, which has to be a multi-threaded one with timers.
///
/// # Errors
/// When the daemon does not speak the protocol, or the socket fails.
pub fn serve_connection(
    stream: UnixStream,
    storage: Arc<dyn Backend>,
    runtime: &Handle,
) -> Result<(), ConnectionError> {
    let mut receiver = Receiver::new(stream.try_clone()?);
    let mut hello = HostHello::new_zeroed();
    receiver.exactly(hello.as_mut_bytes())?;
    hello.check()?;
    let features = hello.features();
    let limit = match features.contains(Features::DESCRIPTORS) {
        true => hello.descriptors,
        false => 0,
    };
    let connection = Arc::new(Connection {
        stream,
        sending: Mutex::new(()),
        numbers: Numbers::new(limit),
        lock_waits: Mutex::default(),
        lock_wait_ended: Condvar::new(),
    });
    let area = match features.contains(Features::AREA) {
        true => hello.area,
        false => 0,
    };
    let in_flight = hello.in_flight.min(IN_FLIGHT);
    let answer = PluginHello::new(storage.capabilities(), features, in_flight);
    connection.send(&[answer.as_bytes()], None)?;
    let session = Session::new(Exports::single(storage, false), options(), runtime.clone());
    let room = usize::try_from(hello.max_data.min(MAX_DATA)).unwrap_or(usize::MAX);
    let mut requests = Requests {
        receiver,
        connection,
        room,
        area: Shared::of(area),
    };
    let result = requests.take(session.worker().as_mut());
    session.reset();
    result
}

/// What the daemon decides about its guest is not decided here a second time.
fn options() -> SessionOptions {
    SessionOptions {
        cache: CachePolicy {
            mode: CacheMode::Auto,
            attribute_ttl: POLICY,
            entry_ttl: POLICY,
            negative_ttl: POLICY,
        },
        kill_privileges: true,
        posix_acl: Offer::Auto,
        security_label: Offer::Auto,
        ..SessionOptions::default()
    }
}

/// What comes from the daemon.
struct Requests {
    receiver: Receiver<UnixStream>,
    connection: Arc<Connection>,
    /// Bytes that a reply may have behind its header, and a WRITE behind its arguments.
    room: usize,
    area: Shared,
}

/// Memory for the data of WRITEs.
enum Shared {
    /// All data come with their requests.
    Nothing,
    /// So many bytes of it come with the first request.
    Announced(u32),
    Here(Arc<Area>),
}

impl Shared {
    fn of(bytes: u32) -> Self {
        match bytes {
            0 => Self::Nothing,
            bytes => Self::Announced(bytes),
        }
    }
}

impl Requests {
    fn take(
        &mut self,
        worker: &mut dyn RequestWorker<PluginExchange>,
    ) -> Result<(), ConnectionError> {
        let most = self.room.saturating_add(MAX_ARGUMENTS);
        let mut poller = Poller::new(NEXT, NEXT);
        loop {
            worker.pause();
            let header = self.receiver.header_soon::<HEADER_LENGTH>(&mut poller)?;
            let Some(header) = header else {
                return Ok(());
            };
            if let Shared::Announced(bytes) = self.area {
                let descriptor = self.receiver.descriptor();
                let area = descriptor.and_then(|descriptor| Area::map(&descriptor, bytes));
                self.area = Shared::Here(area.ok_or(ConnectionError::Area)?);
            }
            let request = Request::of(&header);
            let length = request.length;
            if length < HEADER_LENGTH || length > most {
                return Err(ConnectionError::Length(length));
            }
            let split = inline_length(&header, length).max(HEADER_LENGTH);
            let mut inline = worker.buffer();
            inline.extend_from_slice(&header);
            inline.resize(split, 0);
            self.receiver
                .exactly(inline.get_mut(HEADER_LENGTH..).unwrap_or_default())?;
            let mut payload = vec![0; length.saturating_sub(split)];
            self.receiver.exactly(&mut payload)?;
            // A request that other transports would have cut: only a WRITE has a payload.
            debug_assert!(payload.is_empty() || request.opcode == Some(Opcode::Write));
            let shared = match request.opcode {
                Some(Opcode::Write) => self.shared(&mut inline, &payload)?,
                _ => None,
            };
            let data = shared.map_or(Data::Sent(payload), Data::Shared);
            let readable = split.saturating_add(data.bytes().len());
            if request.opcode == Some(Opcode::Setlkw) {
                self.connection.lock_wait_begins(request.unique);
            }
            let interrupted = match request.opcode {
                Some(Opcode::Interrupt) => inline
                    .get(HEADER_LENGTH..)
                    .and_then(|arg| arg.first_chunk()),
                _ => None,
            };
            let interrupted = interrupted.map(|unique| Unique(u64::from_ne_bytes(*unique)));
            let connection = Arc::clone(&self.connection);
            worker.submit(Incoming {
                inline,
                readable,
                exchange: PluginExchange::new(connection, request, data, self.room),
            });
            if let Some(unique) = interrupted {
                self.connection.await_end(unique);
            }
        }
    }

    /// The data of a WRITE, if they are in the area. Its header and arguments then say what they would if the data had come with
    /// them.
    fn shared(&self, inline: &mut [u8], payload: &[u8]) -> Result<Option<Range>, ConnectionError> {
        let length = inline.len();
        let (Shared::Here(area), Some((header, arguments))) =
            (&self.area, inline.split_at_mut_checked(HEADER_LENGTH))
        else {
            return Ok(None);
        };
        let Ok(arg) = WriteIn::read_from_bytes(arguments) else {
            return Ok(None);
        };
        if arg.write_flags & WRITE_AREA == 0 {
            return Ok(None);
        }
        let place = AreaIn::read_from_bytes(payload);
        let range = place.ok().and_then(|at| area.range(at.offset, arg.size));
        let range = range.ok_or(ConnectionError::Area)?;
        let write_flags = arg.write_flags & !WRITE_AREA;
        let arg = WriteIn { write_flags, ..arg };
        arguments.copy_from_slice(arg.as_bytes());
        let length = u32::try_from(length).map_or(u32::MAX, |split| split.saturating_add(arg.size));
        if let Some(place) = header.first_chunk_mut() {
            *place = length.to_ne_bytes();
        }
        Ok(Some(range))
    }
}
