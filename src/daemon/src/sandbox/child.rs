//! Child processes that go on as this program, and the one that looks after them.

// UNSAFETY: fork(2) has no safe interface, because of what it does to threads and locks.
#![allow(unsafe_code)]

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal as Kill, WaitOptions, WaitStatus, kill_process, set_parent_process_death_signal,
    waitpid,
};

use crate::exit::Failure;
use crate::signals::{Signal, Signals};

/// After what time the kernel has forgotten a thread that has ended.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// How long a signal to stop is the same as the one before: timeout(1) tells a process, and then its whole group.
const SAME: Duration = Duration::from_secs(2);

/// A child process, which its parent waits for.
#[derive(Debug)]
pub(crate) struct Child(Pid);

/// Which of two processes this is.
#[derive(Debug)]
pub(crate) enum Fork {
    Parent(Child),
    Child,
}

/// Makes a second process out of this one, which ends with it.
///
/// # Errors
/// EAGAIN or ENOMEM; and when other threads exist, whose locks the child would inherit for good.
pub(crate) fn fork() -> io::Result<Fork> {
    // One that was joined is told to have ended a moment before the kernel forgets it.
    let begin = Instant::now();
    while std::fs::read_dir("/proc/self/task")?.count() != 1 {
        if begin.elapsed() >= FORGOTTEN {
            return Err(io::Error::other(
                "a thread was started before the sandbox was entered",
            ));
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: this is the only thread, so no lock is held by one that the child does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // A supervisor that is killed cannot end its child otherwise.
            set_parent_process_death_signal(Some(Kill::KILL))?;
            Ok(Fork::Child)
        }
        pid => Pid::from_raw(pid)
            .map(|pid| Fork::Parent(Child(pid)))
            .ok_or_else(|| io::Error::other("fork gave no process id")),
    }
}

/// Runs `work` in a process of its own, which ends with it.
///
/// # Errors
/// As [`fork`].
pub(crate) fn spawn(work: impl FnOnce() -> Result<(), Failure>) -> io::Result<Child> {
    match fork()? {
        Fork::Parent(child) => Ok(child),
        Fork::Child => {
            let code = match work() {
                Ok(()) => 0,
                Err(failure) => {
                    // The exit code is all that the parent reads.
                    let _ = failure.report();
                    1
                }
            };
            // SAFETY: it ends the process at once and touches nothing of it. What the parent has
            // registered to run at its exit must not run twice.
            unsafe { libc::_exit(code) }
        }
    }
}

impl Child {
    /// Waits until it has ended, and says whether it did its work.
    pub(super) fn succeeded(self) -> io::Result<bool> {
        let status = waitpid(Some(self.0), WaitOptions::empty())?;
        Ok(status.is_some_and(|(_, status)| status.exit_status() == Some(0)))
    }

    /// Waits until it has ended, and says how. When this process is told to stop, so is the child.
    ///
    /// # Errors
    /// When a signal has ended the child.
    pub(crate) fn supervise(self, signals: Signals) -> Result<ExitCode, Failure> {
        loop {
            match self.next(signals)? {
                Event::Ended(status) => return verdict(status),
                // It fails only when the child has ended, which is then seen.
                Event::Stop => drop(kill_process(self.0, Kill::TERM)),
            }
        }
    }

    /// Waits until it has ended, or this process is told to stop: then so is the child, and this one runs `last`. A
    /// child that serves by then still works for it, and ends because of what it does; one that does not yet ends by
    /// itself. It is killed when this process is told once more to stop, which also ends a `last` that waits for the
    /// child in vain.
    ///
    /// # Errors
    /// When another's signal has ended the child.
    pub(crate) fn outlive(
        self,
        signals: Signals,
        last: impl FnOnce() + Send,
    ) -> Result<ExitCode, Failure> {
        if let Event::Ended(status) = self.next(signals)? {
            return verdict(status);
        }
        let told = Instant::now();
        // As in `supervise`.
        let _ = kill_process(self.0, Kill::TERM);
        thread::scope(|scope| {
            thread::Builder::new()
                .spawn_scoped(scope, last)
                .map_err(|error| Failure::run(format!("cannot start a thread: {error}")))?;
            loop {
                match self.next(signals)? {
                    Event::Ended(status) => return verdict(status),
                    Event::Stop if told.elapsed() < SAME => {}
                    Event::Stop => break,
                }
            }
            tracing::warn!("the server is killed: what it had to finish, the next start finishes");
            // It fails only when the child has ended already.
            let _ = kill_process(self.0, Kill::KILL);
            waitpid(Some(self.0), WaitOptions::empty()).map_err(cannot_wait)?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn next(&self, signals: Signals) -> Result<Event, Failure> {
        loop {
            if signals.wait() == Signal::Stop {
                return Ok(Event::Stop);
            }
            match waitpid(Some(self.0), WaitOptions::NOHANG).map_err(cannot_wait)? {
                Some((_, status)) if status.exited() || status.signaled() => {
                    return Ok(Event::Ended(status));
                }
                _ => {}
            }
        }
    }
}

enum Event {
    Stop,
    Ended(WaitStatus),
}

fn cannot_wait(errno: Errno) -> Failure {
    Failure::run(format!("cannot wait for the daemon: {errno}"))
}

fn verdict(status: WaitStatus) -> Result<ExitCode, Failure> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)),
        (None, Some(libc::SIGSYS)) => Err(Failure::run(
            "the daemon was ended because it made a system call that its filter does not know: \
             please report it with the last log lines; --seccomp=log lets it go on",
        )),
        (None, signal) => Err(Failure::run(format!(
            "the daemon was ended by signal {}",
            signal.unwrap_or_default()
        ))),
    }
}
