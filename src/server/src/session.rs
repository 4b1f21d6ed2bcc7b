//! One guest's session: takes requests in, and ends each of them once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use vfsd_backend::{Errno, FileKind};
use vfsd_fuse::wire::{NodeId, Unique};
use vfsd_fuse::{
    DecodeError, Layout, Opcode, Operation, ReplyKind, Request, RequestHeader, decode,
};

use crate::dispatch::Call;
use crate::epoch::{Epoch, Holdings};
use crate::exchange::{Exchange, Incoming};
use crate::export::ExportId;
use crate::exports::Exports;
use crate::log_throttle::LogThrottle;
use crate::metrics::{Gauges, Metrics, MetricsSnapshot};
use crate::negotiation::{Negotiation, negotiate};
use crate::options::{SessionOptions, Transport};
use crate::responder::{Reply, Responder, Sent};
use crate::threads::Threads;
use crate::worker::{RequestWorker, Served, SessionWorker};

/// How long the answer to an INTERRUPT waits for the request that it is about: the kernel asks again at once.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// One guest: what it negotiated, knows and has open, and what it is served.
///
/// Two guests never share a session.
pub struct Session {
    exports: Exports,
    options: SessionOptions,
    pub(crate) metrics: Metrics,
    pub(crate) runtime: Handle,
    epoch: ArcSwapOption<Epoch>,
    pub(crate) holdings: Holdings,
    /// Sessions that the guest starts.
    inits: LogThrottle,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("exports", &self.exports)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that waits for INIT. Requests that are not answered at once go on in `runtime`,
    /// which has to be a multi-threaded one with timers.
    pub fn new(exports: Exports, options: SessionOptions, runtime: Handle) -> Arc<Self> {
        let epoch = ArcSwapOption::empty();
        let holdings = Holdings::new(options.budget);
        Arc::new(Self {
            exports,
            options,
            metrics: Metrics::new(),
            runtime,
            epoch,
            holdings,
            inits: LogThrottle::default(),
        })
    }

    /// Takes in the requests of the calling thread, which counts as one of the runtime's until the
    /// worker is dropped: storages find timers and tasks there. A thread has one worker at a time.
    pub fn worker<E: Exchange>(self: &Arc<Self>) -> Box<dyn RequestWorker<E> + '_> {
        Box::new(SessionWorker::new(self, serve::<E>))
    }

    /// What the root of the file system is. A guest mounts nothing but a directory; the host's kernel
    /// mounts a regular file, too.
    pub fn root_kind(&self) -> FileKind {
        self.exports.root_kind()
    }

    /// Ends all waits for locks; their requests are answered with EAGAIN. For a ring that has to be drained.
    pub fn cancel_waits(&self) {
        if let Some(epoch) = self.epoch.load_full() {
            epoch.waits.end_lock_waits();
        }
    }

    /// The device was reset or the front end has left: the guest forgets everything and closes
    /// everything. The next request has to be INIT.
    pub fn reset(&self) {
        if let Some(epoch) = self.epoch.swap(None) {
            epoch.waits.close();
        }
    }

    /// Counters since the session was made, over all its guests' mounts.
    pub fn metrics(&self) -> MetricsSnapshot {
        let gauges = self
            .epoch
            .load()
            .as_ref()
            .map_or_else(Gauges::default, |epoch| Gauges {
                nodes: epoch.nodes.live(),
                handles: epoch.handles.live(),
                implied_files: epoch.implied.files.len(),
                lock_waits: epoch.waits.lock_waits(),
                ..Gauges::default()
            });
        let deferred = self.holdings.admission.count();
        let gauges = Gauges { deferred, ..gauges };
        self.metrics.snapshot(gauges)
    }

    /// The threads that requests about a node may hold.
    pub(crate) fn threads_of(&self, node: Option<NodeId>) -> Arc<Threads> {
        let epoch = self.epoch.load();
        let export = epoch
            .as_ref()
            .zip(node)
            .and_then(|(epoch, node)| epoch.nodes.get(node).ok())
            .map_or_else(ExportId::default, |record| record.export);
        Arc::clone(&self.exports.get(export).threads)
    }

    /// Waits until the guest has forgotten much of what it knew: a good time to give memory back to
    /// the system.
    pub async fn shrunk(&self) {
        self.holdings.shrunk.notified().await;
    }

    /// INIT. One while a session runs ends that session first: the guest has rebooted.
    fn init(&self, arg: &vfsd_fuse::InitIn) -> Result<Reply<'static>, Errno> {
        self.reset();
        let suppressed = self.inits.admit();
        if let Some(suppressed @ 1..) = suppressed {
            tracing::warn!(
                suppressed,
                "the guest starts sessions faster than they are logged"
            );
        }
        let capabilities = self.exports.capabilities();
        let without_open = self.exports.open_by_themselves();
        let agreed = negotiate(
            arg,
            capabilities,
            without_open,
            &self.options,
            suppressed.is_some(),
        );
        match agreed? {
            Negotiation::TryAgain { reply } => Ok(Reply::structure(&reply)),
            Negotiation::Agreed { layout, reply } => {
                let waits = self.options.budget.lock_waits;
                let epoch = Epoch::new(&self.exports, &self.holdings, waits, layout)?;
                let before = self
                    .epoch
                    .compare_and_swap(&None::<Arc<Epoch>>, Some(Arc::new(epoch)));
                // Of two INITs at the same time one wins.
                if before.is_some() {
                    Err(Errno::IO)
                } else {
                    Ok(Reply::structure(&reply))
                }
            }
        }
    }

    /// INTERRUPT: ends the wait of the request for a lock, or for an answer that changes nothing. No other work is broken
    /// off.
    ///
    /// The host's kernel wants EAGAIN for a request that is not known, and then asks again at once: it may
    /// have sent the request and the interrupt to different threads.
    async fn interrupt(
        &self,
        epoch: &Epoch,
        unique: Unique,
    ) -> (ReplyKind, Result<Reply<'static>, Errno>) {
        let mut found = epoch.waits.interrupt(unique);
        if !found && self.options.transport == Transport::HostKernel {
            Box::pin(tokio::time::sleep(ASK_AGAIN)).await;
            found = epoch.waits.interrupt(unique);
        }
        match self.options.transport {
            Transport::HostKernel if !found => (ReplyKind::Empty, Err(Errno::AGAIN)),
            Transport::HostKernel | Transport::Virtio => (ReplyKind::Nothing, Ok(Reply::empty())),
        }
    }
}

/// Counts a panic when it unwinds through a request, on whichever thread that is.
struct PanicWatch<'a>(&'a Metrics);

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                "a request made the daemon panic: it was answered with EIO; please report this"
            );
        }
    }
}

/// Serves one request from its bytes to its reply.
async fn serve<E: Exchange>(session: Arc<Session>, incoming: Incoming<E>) -> Served {
    let Incoming {
        inline,
        readable,
        exchange,
    } = incoming;
    let ended = 'ended: {
        let session = session.as_ref();
        let _watch = PanicWatch(&session.metrics);
        let epoch = session.epoch.load();
        let layout = epoch
            .as_ref()
            .map_or_else(Layout::default, |epoch| epoch.layout);
        let Request { header, operation } = match decode(&inline, readable, layout) {
            Ok(request) => request,
            Err(DecodeError::Unanswerable) => {
                session.metrics.unanswerable.fetch_add(1, Ordering::Relaxed);
                exchange.discard();
                break 'ended None;
            }
            Err(DecodeError::Reject { header, errno }) => {
                reject(session, header, errno, epoch.is_some(), exchange);
                break 'ended None;
            }
        };
        let Some(opcode) = header.opcode else {
            exchange.discard();
            break 'ended None;
        };
        let mut responder = Responder::new(exchange, header.unique, opcode.reply());
        let result = match (&operation, epoch.as_ref()) {
            (Operation::Init { arg }, _) => session.init(arg),
            (_, None) => Err(Errno::IO),
            (Operation::Destroy {}, Some(_)) => {
                session.reset();
                Ok(Reply::empty())
            }
            (Operation::Interrupt { arg }, Some(epoch)) => {
                let (kind, result) = session.interrupt(epoch, arg.unique).await;
                responder.expect(kind);
                result
            }
            (_, Some(epoch)) => {
                let call = Call {
                    exports: &session.exports,
                    options: &session.options,
                    epoch,
                    header,
                    opcode,
                };
                match call.admit(&operation) {
                    Ok(()) => call.or_errno(call.dispatch(operation, &mut responder).await),
                    Err(errno) => Err(errno),
                }
            }
        };
        let (body, grants) = Reply::split(result);
        let sent = if grants.is_empty() {
            drop(grants);
            // The tables of an epoch that this request outlived go before the reply, as DESTROY
            // promises.
            drop(epoch);
            responder.finish(body)
        } else {
            let sent = responder.finish(body);
            if sent == Sent::Reply {
                grants.keep();
            }
            sent
        };
        if let Sent::Lost { .. } = sent {
            session.metrics.lost.fetch_add(1, Ordering::Relaxed);
        }
        Some((opcode, sent.failed()))
    };
    Served {
        session,
        inline,
        ended,
    }
}

/// Refuses a request that was not understood.
fn reject<E: Exchange>(
    session: &Session,
    header: RequestHeader,
    errno: Errno,
    running: bool,
    exchange: E,
) {
    let RequestHeader {
        unique,
        opcode,
        opcode_number,
        ..
    } = header;
    let counter = match opcode {
        None => &session.metrics.unknown,
        Some(_) => &session.metrics.rejected,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(
        "refused request {}, opcode {opcode_number} ({}), with {errno}",
        unique.0,
        opcode.map_or("unknown", Opcode::name)
    );
    let errno = if running || opcode == Some(Opcode::Init) {
        errno
    } else {
        Errno::IO
    };
    let kind = opcode.map_or(ReplyKind::Empty, Opcode::reply);
    let _ = Responder::new(exchange, unique, kind).finish(Err(errno));
}
