//! What serving a guest and mounting on this host have in common: the steps before the sandbox, and
//! those inside it up to the session.

use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::Mode;
use tokio::runtime::Runtime;
use vfsd_server::{Session, SessionOptions};

use crate::exit::Failure;
use crate::figures::Figures;
use crate::inherited::Inherited;
use crate::limits::Own;
use crate::logging::LogSettings;
use crate::runtime::ThreadCounts;
use crate::sandbox::{self, Inside};
use crate::settings::{Confinement, ExportSettings};
use crate::signals::Signals;
use crate::source::StorageOptions;
use crate::storage::{Closing, Storages};
use crate::{allocator, limits, logging, runtime};

/// What is there before the sandbox is entered.
pub(crate) struct Outside {
    pub(crate) inherited: Inherited,
    pub(crate) signals: Signals,
    pub(crate) storages: Storages,
}

/// Takes over what the process was started with, and looks at the storages. `listening` is an
/// inherited socket that is used, `queues` is how many threads take requests in.
///
/// # Errors
/// When a storage is not there, or options contradict each other.
pub(crate) fn outside(
    listening: Option<RawFd>,
    log: &LogSettings,
    confinement: &Confinement,
    exports: &[ExportSettings],
    storage: &StorageOptions,
    queues: usize,
) -> Result<Outside, Failure> {
    let inherited = Inherited::take_note(listening);
    logging::start(log)?;
    let signals = Signals::take_over()
        .map_err(|error| Failure::run(format!("cannot take over signals: {error}")))?;
    let own = Own {
        queues,
        exports: exports.len(),
        threads: ThreadCounts::new(confinement.thread_pool_size, exports.len()),
    };
    let descriptors = limits::open_files(confinement.rlimit_nofile, own)?;
    let each = descriptors
        .checked_div(exports.len())
        .unwrap_or(descriptors);
    let mut storage = storage.clone();
    storage.passthrough.file_handles =
        sandbox::file_handles(confinement, storage.file_handles, each)?;
    Ok(Outside {
        inherited,
        signals,
        storages: Storages::new(exports, &storage, descriptors)?,
    })
}

/// What serves, once the sandbox was entered.
pub(crate) struct Started {
    pub(crate) session: Arc<Session>,
    /// What the storages tell of themselves.
    pub(crate) figures: Arc<Figures>,
    runtime: Runtime,
    closing: Closing,
}

impl Started {
    /// Closes the storages. `served` is how serving ended.
    ///
    /// # Errors
    /// When serving failed, or else when a storage could not be closed.
    pub(crate) fn end(self, served: Result<(), Failure>) -> Result<ExitCode, Failure> {
        self.session.reset();
        let closed = self.closing.close();
        // Work that nobody waits for any more need not end first.
        self.runtime.shutdown_background();
        served.and(closed).map(|()| ExitCode::SUCCESS)
    }
}

/// Gives up what is not needed to serve, and opens the storages.
///
/// # Errors
/// When the kernel does not take it, or a storage cannot be opened.
pub(crate) fn inside(
    confinement: &Confinement,
    storages: Storages,
    inside: Inside,
    options: SessionOptions,
) -> Result<Started, Failure> {
    // Whoever makes a file says which permissions it has.
    rustix::process::umask(Mode::empty());
    sandbox::give_up_privileges(confinement, storages.needs, &inside)?;
    let threads = ThreadCounts::new(confinement.thread_pool_size, storages.len());
    let runtime = runtime::start(threads)?;
    let figures = Arc::new(Figures::default());
    let threads = threads.for_each_export;
    let (exports, closing) = storages.open(inside, runtime.handle(), threads, &figures)?;
    allocator::give_back();
    let session = Session::new(exports, options, runtime.handle().clone());
    allocator::give_back_after(Arc::clone(&session), runtime.handle());
    Ok(Started {
        runtime,
        session,
        figures,
        closing,
    })
}
