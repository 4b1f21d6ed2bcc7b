//! Signals that end the daemon, those that tell of its child, and one that must do nothing.

// UNSAFETY: signal masks, dispositions and sigwait(3) have no safe interface.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT or SIGHUP: end.
    Stop,
    /// SIGCHLD: a child ended, or something else happened to it.
    Child,
}

/// Signals that are no longer delivered, but waited for. No handler ever runs, so none can meet
/// the program in a state that it must not see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Takes the signals over. Called before the first thread is started, whose mask all others
    /// inherit, and children too.
    ///
    /// A write beyond the limit of a file's size (RLIMIT_FSIZE) answers EFBIG from now on: its signal
    /// would end the daemon.
    ///
    /// # Errors
    /// Never, as long as the signals exist.
    pub(crate) fn take_over() -> io::Result<Self> {
        // SAFETY: no handler is installed, the signal is ignored.
        if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes a whole set to the place it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD] {
            // SAFETY: the set is initialised, the signals exist.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: the set is initialised; no old mask is asked for.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error == 0 {
            Ok(Self(set))
        } else {
            Err(io::Error::from_raw_os_error(error))
        }
    }

    /// Waits for the next signal.
    pub(crate) fn wait(&self) -> Signal {
        loop {
            let mut signal = 0;
            // SAFETY: the set is initialised and the number has a place.
            let error = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
            if error == 0 {
                return if signal == libc::SIGCHLD {
                    Signal::Child
                } else {
                    Signal::Stop
                };
            }
        }
    }
}

impl Signals {
    /// Runs `stop`, on a thread of its own, each time this process is told to stop.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn on_stop(self, stop: impl Fn() + Send + 'static) -> io::Result<()> {
        let wait = move || {
            loop {
                if self.wait() == Signal::Stop {
                    stop();
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)
            .map(drop)
    }
}
