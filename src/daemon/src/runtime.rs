//! The threads on which requests go on that cannot be answered at once.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

use crate::exit::Failure;

/// Threads that may wait for a disk at the same time, unless the operator chooses: as many as keep
/// one disk busy, and few enough for their stacks not to count.
const WAITING: usize = 64;

/// Threads that run what need not wait, at most.
const WORKING: usize = 8;

/// Starts the runtime. Called inside the sandbox: threads inherit what their starter gave up.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(thread_pool_size: usize) -> Result<Runtime, Failure> {
    let processors = available_parallelism().map_or(1, NonZeroUsize::get);
    let waiting = if thread_pool_size == 0 {
        WAITING
    } else {
        thread_pool_size
    };
    Builder::new_multi_thread()
        .worker_threads(processors.clamp(2, WORKING))
        .max_blocking_threads(waiting)
        .thread_name("vfsd-work")
        .enable_all()
        .build()
        .map_err(|error| Failure::run(format!("cannot start threads: {error}")))
}
