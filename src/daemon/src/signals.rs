//! Signals that end the daemon, those that tell of its child, and those that must do nothing.

// UNSAFETY: signal masks, dispositions and sigwait(3) have no safe interface.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The signals that tell to end: what a user, a supervisor, a timer or a limit sends that wants that. None of them ends the
/// process by itself, which would leave a mount, sockets and volumes behind.
const STOPS: [libc::c_int; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGALRM,
    libc::SIGXCPU,
    libc::SIGPWR,
];

/// What would end the process, too, and is not sent to have it end: by those that rotate the logs of other programs, by
/// profilers, by files that are ready, and for a write beyond the limit of a file's size (RLIMIT_FSIZE), which answers
/// EFBIG. So are the real-time signals.
const NOTHING: [libc::c_int; 7] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGSTKFLT,
    libc::SIGXFSZ,
];

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// End.
    Stop,
    /// SIGCHLD: a child ended, or something else happened to it.
    Child,
}

/// Signals that are no longer delivered, but waited for. No handler runs that comes back, so none can
/// meet the program in a state that it must not see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Takes the signals over. Called before the first thread is started, whose mask all others
    /// inherit. None is ignored, which a program that this process starts could not undo.
    ///
    /// # Errors
    /// Never, as long as the signals exist.
    pub(crate) fn take_over() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes a whole set to the place it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let all = heeded().chain(NOTHING).chain(real_time);
        for signal in all.chain([libc::SIGCHLD]) {
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

    /// Waits for the next signal that says something.
    pub(crate) fn wait(&self) -> Signal {
        loop {
            let mut signal = 0;
            // SAFETY: the set is initialised and the number has a place.
            let error = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
            match signal {
                _ if error != 0 => {}
                libc::SIGCHLD => return Signal::Child,
                signal if STOPS.contains(&signal) => return Signal::Stop,
                _ => {}
            }
        }
    }
}

impl Signals {
    /// Waits for them on a thread of its own. What is to be done is said later.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn watch(self) -> io::Result<Stop> {
        let stop = Stop::default();
        let told = stop.clone();
        let wait = move || {
            loop {
                if self.wait() == Signal::Stop {
                    told.tell();
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)?;
        Ok(stop)
    }
}

/// Those that tell to end, without what whoever started this process has it ignore: nohup(1) does so, and a shell with
/// what runs in its background. A signal that is held back would come all the same. SIGTERM is what one process of
/// ours tells the other.
fn heeded() -> impl Iterator<Item = libc::c_int> {
    let is_ignored = |signal: libc::c_int| {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: nothing is changed, and what is written has its place, which is valid with zeros, too.
        let now = unsafe {
            libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
            now.assume_init()
        };
        now.sa_sigaction == libc::SIG_IGN
    };
    let stops = STOPS.into_iter();
    stops.filter(move |signal| *signal == libc::SIGTERM || !is_ignored(*signal))
}

/// What is done when this process is told to stop, which is another thing once it serves.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    already: bool,
    action: Option<Box<dyn Fn() + Send>>,
}

impl Stop {
    /// From now on it is `action`, and nothing else. Where the process was told to stop already, it is done at once.
    pub(crate) fn by(&self, action: impl Fn() + Send + 'static) {
        let mut told = self.lock();
        if told.already {
            action();
        }
        told.action = Some(Box::new(action));
    }

    fn tell(&self) {
        let mut told = self.lock();
        told.already = true;
        if let Some(action) = &told.action {
            action();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work`, which may wait for long, while a signal to stop ends the process, with success: nothing was begun that
/// has to be finished. Called between [`Signals::take_over`] and the first thread that stays.
pub(crate) fn ending_at_once<T>(work: impl FnOnce() -> T) -> T {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: it may be called in a handler, and ends the process.
        unsafe { libc::_exit(0) }
    }
    /// Takes the signals over again.
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            change(libc::SIG_BLOCK, libc::SIG_DFL);
        }
    }
    fn change(how: libc::c_int, handler: libc::sighandler_t) {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes a whole set to the place it is given; the signals exist; the handler does nothing
        // that must not be done in one; no old mask is asked for.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in heeded() {
                libc::signal(signal, handler);
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
        }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    change(libc::SIG_UNBLOCK, handler as libc::sighandler_t);
    let _again = Again;
    work()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn who_was_told_to_stop_before_there_was_anything_to_do_does_it_then() {
        let stop = Stop::default();
        let done = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
        let doing = |index: usize| {
            let done = Arc::clone(&done[index]);
            move || {
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let counts = || [0, 1].map(|index: usize| done[index].load(Ordering::Relaxed));
        stop.tell();
        assert_eq!(counts(), [0, 0]);
        stop.by(doing(0));
        assert_eq!(counts(), [1, 0]);
        stop.by(doing(1));
        assert_eq!(counts(), [1, 1]);
        stop.tell();
        assert_eq!(counts(), [1, 2]);
    }
}
