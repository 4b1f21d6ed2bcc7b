//! The thread that reads a connection and answers what can be answered at once; and another when the storage holds that
//! one up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vfsd_exec::{BlockingSection, HandOff, Monitor, MonitoredQueue, MonitoredWorker};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::Unique;
use vfsd_server::{HEADER_LENGTH, Incoming, RequestWorker, Session};

use crate::connection::{Connection, ConnectionError};
use crate::exchange::PluginExchange;
use crate::requests::Requests;

/// How a connection ended.
type Ended = Result<(), ConnectionError>;

/// What the threads of a connection share, of which one reads.
#[derive(Debug)]
struct Reader {
    /// Locked for each request: who takes over while one is served must get at the rest.
    requests: Mutex<Requests>,
    connection: Arc<Connection>,
    session: Arc<Session>,
    state: HandOff,
    monitor: Arc<Monitor>,
    ended: SyncSender<Ended>,
}

/// Reads requests and has them answered until the daemon leaves.
///
/// # Errors
/// When the daemon does not speak the protocol, the socket fails, or there is no thread for it.
pub(crate) fn read_all(requests: Requests, session: Arc<Session>) -> Ended {
    let monitor = Monitor::new();
    // The thread whose turn it is says it once.
    let (sender, ended) = sync_channel(1);
    let reader = Arc::new(Reader {
        connection: Arc::clone(requests.connection()),
        requests: Mutex::new(requests),
        session,
        state: HandOff::default(),
        monitor: Arc::clone(&monitor),
        ended: sender,
    });
    let watched: Weak<Reader> = Arc::downgrade(&reader);
    monitor.include(watched);
    let started = reader.spawn(|_| true);
    let result = match started {
        Ok(()) => ended.recv().unwrap_or(Err(ConnectionError::Panicked)),
        Err(error) => Err(ConnectionError::Threads(error)),
    };
    monitor.end();
    result
}

impl MonitoredQueue for Reader {
    fn state(&self) -> &HandOff {
        &self.state
    }

    fn hand_off(self: Arc<Self>, section: BlockingSection) {
        if let Err(error) = self.spawn(move |reader| reader.state.claim(section)) {
            eprintln!("plugin: no thread reads on while the storage is waited for: {error}");
        }
    }
}

impl Reader {
    /// Starts a thread that reads, if it can claim that.
    fn spawn(
        self: &Arc<Self>,
        claim: impl FnOnce(&Self) -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let reader = Arc::clone(self);
        let body = move || {
            if claim(&reader) {
                reader.run();
            }
        };
        std::thread::Builder::new()
            .name("plugin-reader".to_owned())
            .spawn(body)
            .map(drop)
    }

    fn run(self: &Arc<Self>) {
        let worker = MonitoredWorker::new(Arc::clone(self), Arc::clone(&self.monitor));
        let worker = Rc::new(worker);
        vfsd_exec::register(Rc::clone(&worker) as Rc<dyn vfsd_exec::Worker>);
        let read = || self.read(&worker, self.session.worker().as_mut());
        let result = catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(ConnectionError::Panicked));
        // Otherwise another thread says how it ended.
        if !worker.is_handed_off() {
            // Who waited for it has left only if it was said.
            let _ = self.ended.try_send(result);
        }
    }

    /// Reads until the daemon leaves, or another thread does.
    fn read(
        &self,
        worker: &MonitoredWorker<Self>,
        session: &mut dyn RequestWorker<PluginExchange>,
    ) -> Ended {
        while !worker.is_handed_off() {
            session.pause();
            let incoming = self.requests.lock().next(session.buffer())?;
            let Some(incoming) = incoming else {
                return Ok(());
            };
            let interrupted = interrupted(&incoming);
            session.submit(incoming);
            if let Some(unique) = interrupted {
                self.connection.await_end(unique);
            }
        }
        Ok(())
    }
}

/// Which request an INTERRUPT is about.
fn interrupted(incoming: &Incoming<PluginExchange>) -> Option<Unique> {
    if incoming.exchange.opcode() != Some(Opcode::Interrupt) {
        return None;
    }
    let arguments = incoming.inline.get(HEADER_LENGTH..)?;
    let unique = arguments.first_chunk()?;
    Some(Unique(u64::from_ne_bytes(*unique)))
}
