//! What serving a guest and mounting on this host have in common: the steps before the sandbox, and
//! those inside it up to the session.

use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use vfsd_server::{Session, SessionOptions};

use crate::closing::Closing;
use crate::exit::Failure;
use crate::figures::Figures;
use crate::inherited::Inherited;
use crate::limits::Own;
use crate::logging::LogSettings;
use crate::notify::Notify;
use crate::runtime::ThreadCounts;
use crate::sandbox::{self, Inside};
use crate::settings::{Confinement, ExportSettings};
use crate::signals::{Signals, Stop};
use crate::source::StorageOptions;
use crate::storage::Storages;
use crate::waiting::SLOW;
use crate::{allocator, limits, logging, runtime};

/// How long what is being opened is waited for when the process is told to stop: what has all that it needs is served and
/// closed again, what waits for a network is not.
const GRACE: Duration = Duration::from_secs(1);

/// What is there before the sandbox is entered.
pub(crate) struct Outside {
    pub(crate) inherited: Inherited,
    pub(crate) signals: Signals,
    pub(crate) notify: Notify,
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
        notify: Notify::connect(),
        storages: Storages::new(exports, &storage, descriptors)?,
    })
}

/// What serves, once the sandbox was entered.
pub(crate) struct Started {
    pub(crate) session: Arc<Session>,
    /// What the storages tell of themselves.
    pub(crate) figures: Arc<Figures>,
    /// What is done when this process is told to stop: nothing, until it is said.
    pub(crate) stop: Stop,
    /// None once it has ended.
    runtime: Option<Runtime>,
    closing: Closing,
}

/// Whoever gives up before it serves, for whatever reason, closes the storages all the same.
impl Drop for Started {
    fn drop(&mut self) {
        if let Err(Failure::Run(advice)) = self.close() {
            tracing::error!("{advice}");
        }
    }
}

impl Started {
    /// Closes the storages. `served` is how serving ended.
    ///
    /// # Errors
    /// When serving failed, or else when a storage could not be closed.
    pub(crate) fn end(mut self, served: Result<(), Failure>) -> Result<ExitCode, Failure> {
        let closed = self.close();
        served.and(closed).map(|()| ExitCode::SUCCESS)
    }

    fn close(&mut self) -> Result<(), Failure> {
        let Some(runtime) = self.runtime.take() else {
            return Ok(());
        };
        self.session.reset();
        let closed = self.closing.close();
        // Work that nobody waits for any more need not end first.
        runtime.shutdown_background();
        closed
    }
}

/// Gives up what is not needed to serve, and opens the storages.
///
/// # Errors
/// When the kernel does not take it, or a storage cannot be opened; [`Failure::Stopped`] when the process is told to
/// stop meanwhile.
pub(crate) fn inside(
    confinement: &Confinement,
    storages: Storages,
    inside: Inside,
    options: SessionOptions,
    signals: Signals,
) -> Result<Started, Failure> {
    sandbox::give_up_privileges(confinement, storages.needs, &inside)?;
    let threads = ThreadCounts::new(confinement.thread_pool_size, storages.len());
    let runtime = runtime::start(threads)?;
    let figures = Arc::new(Figures::default());
    let stop = signals
        .watch()
        .map_err(|error| Failure::run(format!("cannot wait for signals: {error}")))?;
    let (handle, known, closing) = (
        runtime.handle().clone(),
        Arc::clone(&figures),
        Closing::default(),
    );
    let opened = closing.clone();
    let slow = || {
        for source in closing.opening() {
            tracing::info!("{source} is still being opened");
        }
    };
    let exports = unless_stopped(&stop, slow, move || {
        storages.open(inside, &handle, threads.for_each_export, &known, &opened)
    });
    let exports = match exports {
        Ok(exports) => exports,
        Err(failure) => {
            if let Err(Failure::Run(advice)) = closing.close() {
                tracing::error!("{advice}");
            }
            // A storage that is being opened may wait on it still, until the process ends.
            std::mem::forget(runtime);
            return Err(failure);
        }
    };
    stop.by(|| {});
    allocator::give_back();
    let session = Session::new(exports, options, runtime.handle().clone());
    allocator::give_back_after(Arc::clone(&session), runtime.handle());
    Ok(Started {
        runtime: Some(runtime),
        session,
        figures,
        stop,
        closing,
    })
}

/// What came first.
enum Event<T> {
    Done(T),
    Stop,
}

/// Does `work` on a thread of its own; `slow` is told when it takes longer than [`SLOW`]. Where the process is told to
/// stop it gets [`GRACE`], and is then left to itself.
///
/// # Errors
/// What `work` answers; [`Failure::Stopped`].
fn unless_stopped<T: Send + 'static>(
    stop: &Stop,
    slow: impl FnOnce(),
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, events) = mpsc::channel();
    let told = sender.clone();
    // Nobody listens any more when the work is done.
    stop.by(move || drop(told.send(Event::Stop)));
    thread::Builder::new()
        .name("open".to_owned())
        .spawn(move || {
            // Else this process would wait for ever: a signal can be told, too.
            let done = catch_unwind(AssertUnwindSafe(work));
            let done = done.unwrap_or_else(|_| {
                Err(Failure::run(
                    "cannot open the storages: a thread has panicked",
                ))
            });
            drop(sender.send(Event::Done(done)));
        })
        .map_err(|error| Failure::run(format!("cannot start a thread: {error}")))?;
    let first = events.recv_timeout(SLOW).or_else(|_| {
        slow();
        events.recv()
    });
    match first {
        Ok(Event::Done(done)) => return done,
        Ok(Event::Stop) => {}
        Err(_) => return Err(Failure::run("cannot open the storages")),
    }
    let end = Instant::now().checked_add(GRACE);
    let left = || end.map(|end| end.saturating_duration_since(Instant::now()));
    while let Ok(event) = events.recv_timeout(left().unwrap_or_default()) {
        // Who serves then knows that it is to end.
        if let Event::Done(done) = event {
            return done;
        }
    }
    tracing::info!("told to stop before all was open");
    Err(Failure::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_storages_are_opened_ends_the_start() {
        let stop = Stop::default();
        let opened: Result<(), _> = unless_stopped(&stop, || {}, || panic!("a storage's fault"));
        let Err(Failure::Run(advice)) = opened else {
            panic!("{opened:?}");
        };
        assert!(advice.contains("panicked"), "{advice}");
    }
}
