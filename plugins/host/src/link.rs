//! One connection to a plugin: requests in flight, descriptors, what was agreed.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use vfsd_backend::{Capabilities, Errno, Error, Result};
use vfsd_fuse::wire::{ForgetIn, InterruptIn, NodeId, Unique};
use vfsd_fuse::{InitFlags, Opcode};

use crate::area::{Area, Range};
use crate::ear::Ear;
use crate::options::Options;
use crate::outbox::{Outbox, Unsent};
use crate::receive::Broken;
use crate::reply::Breach;
use crate::request::{Expected, Request, Undo};
use crate::waiter::Waiter;

/// Payload is counted in units of this many bytes, and at least one for each request.
const UNIT: usize = 1024;

/// A successful reply.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Its body.
    Bytes(Vec<u8>),
    /// Where the data of a READ are.
    Extent {
        descriptor: Arc<OwnedFd>,
        offset: u64,
        length: usize,
    },
}

/// What becomes of a request.
pub(crate) type Ending = std::result::Result<Reply, Errno>;

/// A request that the plugin has not answered.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) expected: Expected,
    pub(crate) undo: Undo,
    /// `None` when nobody waits any more.
    pub(crate) waiting: Option<oneshot::Sender<Ending>>,
    /// What it takes up of the limits until then.
    _permits: Permits,
}

#[derive(Debug, Default)]
struct Permits {
    _slot: Option<OwnedSemaphorePermit>,
    _payload: Option<OwnedSemaphorePermit>,
    /// What holds its data, which the plugin may read until then.
    _range: Option<Range>,
}

/// What was agreed in the greetings and INIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed {
    pub(crate) flags: InitFlags,
    /// Largest payload in bytes.
    pub(crate) max_data: usize,
    /// Requests that the plugin takes.
    pub(crate) in_flight: u32,
    /// What the storage can do.
    pub(crate) capabilities: Capabilities,
}

/// How the two sides reach each other.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) ear: Ear,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) area: Option<Arc<Area>>,
}

/// One connection to a plugin.
#[derive(Debug)]
pub(crate) struct Link {
    /// Tells it apart from those before.
    pub(crate) generation: u64,
    pub(crate) agreed: Agreed,
    /// The plugin knows STATX, as far as we know.
    pub(crate) statx: AtomicBool,
    pub(crate) descriptors: Mutex<HashMap<u32, Arc<OwnedFd>>>,
    pub(crate) options: Options,
    name: Arc<str>,
    ear: Ear,
    outbox: Arc<Outbox>,
    area: Option<Arc<Area>>,
    pending: Mutex<HashMap<Unique, Pending>>,
    next_unique: AtomicU64,
    /// Messages that came.
    heard: AtomicU64,
    down: AtomicBool,
    slots: Arc<Semaphore>,
    payload: Arc<Semaphore>,
    lock_waits: Arc<Semaphore>,
    units: u32,
}

impl Link {
    pub(crate) fn new(
        generation: u64,
        name: Arc<str>,
        ways: Ways,
        agreed: Agreed,
        options: Options,
    ) -> Self {
        let in_flight = usize::try_from(agreed.in_flight).unwrap_or(1);
        // Waits for locks must not keep out what ends them.
        let waits = in_flight >> 1;
        let unit = u32::try_from(UNIT).unwrap_or(u32::MAX);
        let units = options.limits.payload.div_ceil(unit).max(1);
        Self {
            generation,
            agreed,
            statx: AtomicBool::new(true),
            descriptors: Mutex::default(),
            options,
            name,
            ear: ways.ear,
            outbox: ways.outbox,
            area: ways.area,
            pending: Mutex::default(),
            next_unique: AtomicU64::new(1),
            heard: AtomicU64::new(0),
            down: AtomicBool::new(false),
            slots: Arc::new(Semaphore::new(in_flight.saturating_sub(waits).max(1))),
            payload: Arc::new(Semaphore::new(usize::try_from(units).unwrap_or(1))),
            lock_waits: Arc::new(Semaphore::new(waits)),
            units,
        }
    }

    /// Makes a request and waits for its reply, until its deadline.
    ///
    /// # Errors
    /// What the plugin answers, NotSupported for ENOSYS; EIO when it does not answer in time, or is gone.
    pub(crate) async fn call(self: &Arc<Self>, mut request: Request) -> Result<Reply> {
        let heard = self.heard.load(Ordering::Relaxed);
        let deadline = self.options.deadlines.of(request.opcode);
        let opcode = request.opcode;
        let work = async {
            let permits = self.permits(&mut request).await?;
            let mut waiter = self.submit(request, permits)?;
            if deadline.is_some()
                && let Some(ending) = self.ear.look(self, || waiter.look())
            {
                return ending;
            }
            let _sleeping = self.ear.sleep();
            waiter.await
        };
        let ending = match deadline {
            None => work.await,
            Some(deadline) => match tokio::time::timeout(deadline, work).await {
                Ok(ending) => ending,
                Err(_) => {
                    self.was_late(opcode, heard);
                    Err(Errno::IO)
                }
            },
        };
        ending.map_err(|errno| match errno {
            Errno::NOSYS => Error::NotSupported,
            errno => Error::Errno(errno),
        })
    }

    /// Room in the area for so many bytes of a WRITE. `None` when they go with the request: there is no area, it is full, or
    /// they are few.
    pub(crate) fn range(&self, bytes: usize) -> Option<Range> {
        self.area.as_ref()?.range(bytes)
    }

    /// Takes messages until the plugin leaves. The work of a thread.
    ///
    /// # Errors
    /// When the plugin does not keep to the protocol, or the socket fails.
    pub(crate) fn listen(&self) -> std::result::Result<(), Broken> {
        self.ear.listen(self)
    }

    /// As [`call`](Self::call), for a reply whose body is bytes.
    pub(crate) async fn ask(self: &Arc<Self>, request: Request) -> Result<Vec<u8>> {
        match self.call(request).await? {
            Reply::Bytes(bytes) => Ok(bytes),
            Reply::Extent { .. } => Err(Errno::IO.into()),
        }
    }

    /// What a reply says, if it keeps to the protocol; otherwise the link ends.
    ///
    /// # Errors
    /// EIO.
    pub(crate) fn checked<T>(&self, result: std::result::Result<T, Breach>) -> Result<T> {
        result.map_err(|breach| {
            self.fail(&breach.to_string());
            Errno::IO.into()
        })
    }

    async fn permits(&self, request: &mut Request) -> std::result::Result<Permits, Errno> {
        if request.opcode == Opcode::Setlkw {
            let slot = Arc::clone(&self.lock_waits).try_acquire_owned();
            return Ok(Permits {
                _slot: Some(slot.map_err(|_| Errno::NOLCK)?),
                ..Permits::default()
            });
        }
        let gone = |_| Errno::IO;
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(gone)?;
        let units = u32::try_from(request.payload.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let payload = match units.min(self.units) {
            0 => None,
            units => {
                let permit = Arc::clone(&self.payload).acquire_many_owned(units).await;
                Some(permit.map_err(gone)?)
            }
        };
        Ok(Permits {
            _slot: Some(slot),
            _payload: payload,
            _range: request.range.take(),
        })
    }

    fn submit(
        self: &Arc<Self>,
        request: Request,
        permits: Permits,
    ) -> std::result::Result<Waiter, Errno> {
        let (sender, receiver) = oneshot::channel();
        let unique = self.enter(&request, Some(sender), permits);
        let waiter = Waiter::new(
            Arc::clone(self),
            unique,
            request.opcode,
            request.undo,
            receiver,
        );
        self.send(request.numbered(unique))?;
        // Whoever has taken the link down meanwhile may have looked before the request was there.
        if self.is_down() {
            self.pending.lock().remove(&unique);
            return Err(Errno::IO);
        }
        Ok(waiter)
    }

    fn enter(
        &self,
        request: &Request,
        waiting: Option<oneshot::Sender<Ending>>,
        permits: Permits,
    ) -> Unique {
        let unique = self.next_unique();
        let pending = Pending {
            expected: request.expected,
            undo: request.undo,
            waiting,
            _permits: permits,
        };
        self.pending.lock().insert(unique, pending);
        unique
    }

    /// Makes a request whose reply nobody waits for.
    pub(crate) fn tell(&self, request: Request) {
        if self.is_down() {
            return;
        }
        let unique = self.enter(&request, None, Permits::default());
        let _ = self.send(request.numbered(unique));
        let unanswered = self.pending.lock().len();
        // Closing is all that is told so; a plugin that answers has few of these.
        if unanswered > MAX_UNANSWERED {
            self.fail("it leaves too many requests unanswered");
        }
    }

    /// Takes back that the plugin has told us of a node.
    pub(crate) fn forget(&self, node: NodeId, count: u64) {
        if count != 0 && !self.is_down() {
            let request = Request::new(Opcode::Forget, node).arg(&ForgetIn { nlookup: count });
            let _ = self.send(request.numbered(self.next_unique()));
        }
    }

    /// Asks the plugin to end a request.
    pub(crate) fn interrupt(&self, unique: Unique) {
        let request = Request::new(Opcode::Interrupt, NodeId::NONE).arg(&InterruptIn { unique });
        let _ = self.send(request.numbered(self.next_unique()));
    }

    /// Even, as the kernel's are: an odd one marks an INTERRUPT.
    fn next_unique(&self) -> Unique {
        Unique(self.next_unique.fetch_add(1, Ordering::Relaxed) << 1)
    }

    fn send(&self, message: Vec<u8>) -> std::result::Result<(), Errno> {
        self.outbox.send(message).map_err(|unsent| {
            match unsent {
                Unsent::Closed => self.fail("it has closed it"),
                Unsent::Full => self.fail("it does not read its requests"),
            }
            Errno::IO
        })
    }

    /// A message came.
    pub(crate) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// The request that a reply is for; it counts as answered.
    pub(crate) fn answered(&self, unique: Unique) -> Option<Pending> {
        self.pending.lock().remove(&unique)
    }

    /// Nobody waits for a request any more. Says whether it is still unanswered.
    pub(crate) fn abandon(&self, unique: Unique) -> bool {
        match self.pending.lock().get_mut(&unique) {
            Some(pending) => {
                pending.waiting = None;
                true
            }
            None => false,
        }
    }

    fn was_late(&self, opcode: Opcode, heard: u64) {
        if self.heard.load(Ordering::Relaxed) == heard {
            self.fail(&format!("it says nothing, and {} waits", opcode.name()));
        } else if !self.is_down() {
            let plugin = &*self.name;
            tracing::debug!(plugin, opcode = opcode.name(), "not answered in time");
        }
        // All that may be in flight waits for nobody: nothing can be asked any more.
        if self.slots.available_permits() == 0 && self.all_abandoned() {
            self.fail("it answers none of the requests in flight");
        }
    }

    fn all_abandoned(&self) -> bool {
        let pending = self.pending.lock();
        pending.values().all(|pending| pending.waiting.is_none())
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Ends the link, with a line in the log.
    pub(crate) fn fail(&self, reason: &str) {
        if !self.is_down() {
            let plugin = &*self.name;
            tracing::error!(plugin, "the connection to a plugin ends: {reason}");
        }
        self.shut();
    }

    /// Ends the link: all that wait get EIO.
    pub(crate) fn shut(&self) {
        self.down.store(true, Ordering::Release);
        self.ear.close();
        self.outbox.close();
        self.slots.close();
        self.payload.close();
        self.lock_waits.close();
        let pending = std::mem::take(&mut *self.pending.lock());
        drop(pending);
        self.descriptors.lock().clear();
    }
}

/// Requests that may be unanswered: far more than are ever in flight.
const MAX_UNANSWERED: usize = 1 << 16;
