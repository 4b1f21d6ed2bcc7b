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
use vfsd_fuse::wire::Unique;
use vfsd_plugin_protocol::{
    Features, HelloError, HostHello, MAX_DATA, POLICY, PluginHello, ReceiveError, Receiver,
    send_all,
};
use vfsd_server::{CacheMode, CachePolicy, Exports, Offer, Session, SessionOptions};
use zerocopy::{FromZeros, IntoBytes};

use crate::numbers::Numbers;
use crate::reader;
use crate::requests::Requests;

/// Requests that are taken before the first is answered.
const IN_FLIGHT: u32 = 4096;

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
    /// No thread can be started that reads.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// The thread that reads has panicked.
    #[error("a fault of the plugin's own")]
    Panicked,
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

    pub(crate) fn lock_wait_begins(&self, unique: Unique) {
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
    pub(crate) fn await_end(&self, unique: Unique) {
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
    let requests = Requests::new(receiver, connection, room, area);
    let result = reader::read_all(requests, Arc::clone(&session));
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
