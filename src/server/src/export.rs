//! One storage of a session.

use std::fmt;
use std::sync::Arc;

use vfsd_backend::{Backend, Capabilities, FileCaching, Ttl};

use crate::log_throttle::LogThrottle;
use crate::threads::Threads;

/// One storage, and how it is served.
#[derive(Clone)]
pub struct Export {
    /// The directory that it appears as, when it is not the root.
    pub name: String,
    /// The storage.
    pub backend: Arc<dyn Backend>,
    /// Every change answers EROFS, whatever the guest's mount flags say.
    pub readonly: bool,
    pub(crate) id: ExportId,
    /// Of the storage, logged at a rate that a guest cannot choose.
    pub(crate) failures: Arc<LogThrottle>,
    /// Nobody else changes it, so that the guest may remember all of it.
    pub(crate) steady: bool,
    /// What its requests may hold of the runtime.
    pub(crate) threads: Arc<Threads>,
}

/// Tells the exports of a session apart: 0 is that of the root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct ExportId(pub(crate) u32);

impl Export {
    /// A storage that is served under a name.
    pub fn new(name: impl Into<String>, backend: Arc<dyn Backend>, readonly: bool) -> Self {
        Self {
            name: name.into(),
            steady: backend
                .capabilities()
                .intersects(Capabilities::IMMUTABLE | Capabilities::PRIVATE),
            backend,
            readonly,
            id: ExportId::default(),
            failures: Arc::default(),
            threads: Threads::usual(),
        }
    }

    /// Lets its requests block so many threads of the runtime at a time; more wait for one another. There
    /// should be as many as those of all exports need, and some more.
    #[must_use]
    pub fn with_threads(self, count: usize) -> Self {
        Self {
            threads: Threads::at_most(count),
            ..self
        }
    }

    /// A lifetime that the backend gave, or left to a policy: what nobody else changes is remembered for good.
    pub(crate) fn ttl(&self, given: Ttl) -> Ttl {
        match given {
            Ttl::Policy if self.steady => Ttl::Forever,
            given => given,
        }
    }

    /// How content may be cached, as [`ttl`](Self::ttl).
    pub(crate) fn caching(&self, given: FileCaching) -> FileCaching {
        match given {
            FileCaching::Policy if self.steady => FileCaching::Keep,
            given => given,
        }
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("name", &self.name)
            .field("readonly", &self.readonly)
            .finish_non_exhaustive()
    }
}
