//! The threads on which requests go on that cannot be answered at once.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

use crate::exit::Failure;

/// Threads that may wait for each export's storage at the same time, unless the operator chooses: as many
/// as keep one disk busy, and few enough for their stacks not to count.
const WAITING: usize = 64;

/// Threads for all exports together, where that is more than one needs: the requests that a session takes
/// in are not more than 512, whatever they wait for.
const ALL: usize = 512;

/// Threads for what no export's request does.
const OWN: usize = 8;

/// Threads that run what need not wait, at most.
const WORKING: usize = 8;

/// How many threads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadCounts {
    /// That run what need not wait.
    working: usize,
    /// That each export's requests may block.
    pub(crate) for_each_export: usize,
    /// That may be blocked, in all.
    waiting: usize,
}

impl ThreadCounts {
    /// For so many exports. Of `thread_pool_size` 0 is none chosen.
    pub(crate) fn new(thread_pool_size: usize, exports: usize) -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        let for_each_export = match thread_pool_size {
            0 => WAITING,
            chosen => chosen,
        };
        let all = for_each_export.saturating_mul(exports.max(1));
        Self {
            working: processors.clamp(2, WORKING),
            for_each_export,
            waiting: all.min(ALL.max(for_each_export)).saturating_add(OWN),
        }
    }

    /// In all.
    pub(crate) fn all(self) -> usize {
        self.working.saturating_add(self.waiting)
    }
}

/// Starts the runtime. Called inside the sandbox: threads inherit what their starter gave up.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(threads: ThreadCounts) -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(threads.working)
        .max_blocking_threads(threads.waiting)
        .thread_name("vfsd-work")
        .enable_all()
        .build()
        .map_err(|error| Failure::run(format!("cannot start threads: {error}")))
}
