//! A well-behaved guest that works while others misbehave.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::{Error, LIMIT, Result, wire};

/// A thread that makes, reads, renames and removes a file over and over.
#[derive(Debug)]
pub(crate) struct Traffic {
    state: Arc<State>,
    worker: Option<JoinHandle<Guest>>,
    name: &'static str,
}

#[derive(Debug, Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    rounds: u64,
    failure: Option<String>,
    stopping: bool,
}

impl Traffic {
    /// Starts over `guest`, whose session has had its INIT.
    pub(crate) fn start(name: &'static str, mut guest: Guest) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let worker = std::thread::spawn(move || {
            loop {
                let outcome = round(&mut guest, name);
                let mut progress = lock(&shared.progress);
                match outcome {
                    Ok(()) => progress.rounds += 1,
                    Err(error) => progress.failure = Some(error.to_string()),
                }
                let over = progress.stopping || progress.failure.is_some();
                drop(progress);
                shared.changed.notify_all();
                if over {
                    return guest;
                }
                // Leaves the processor to the row under test; no assertion depends on it.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            state,
            worker: Some(worker),
            name,
        }
    }

    /// Waits until a whole round was served that began after this call.
    pub(crate) fn assert_served(&self, row: &str) {
        let progress = lock(&self.state.progress);
        let goal = progress.rounds + 2;
        let (progress, _) = self
            .state
            .changed
            .wait_timeout_while(progress, LIMIT, |progress| {
                progress.failure.is_none() && progress.rounds < goal
            })
            .unwrap_or_else(PoisonError::into_inner);
        let (failure, rounds) = (progress.failure.clone(), progress.rounds);
        drop(progress);
        assert!(
            failure.is_none(),
            "{row}: {} failed: {failure:?}",
            self.name
        );
        assert!(
            rounds >= goal,
            "{row}: {} is not served any more",
            self.name
        );
    }

    /// Ends after the round under way and gives the guest back.
    pub(crate) fn stop(mut self) -> Guest {
        let guest = self.join().expect("traffic was not stopped before");
        let failure = lock(&self.state.progress).failure.take();
        assert!(failure.is_none(), "{} failed: {failure:?}", self.name);
        guest
    }

    fn join(&mut self) -> Option<Guest> {
        lock(&self.state.progress).stopping = true;
        self.worker.take()?.join().ok()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.join();
    }
}

fn round(guest: &mut Guest, name: &str) -> Result<()> {
    let other = format!("{name}.renamed");
    let data = name.as_bytes().repeat(200);
    let entry = guest.put(wire::ROOT, name, &data)?;
    guest.rename((wire::ROOT, name), (wire::ROOT, &other), 0)?;
    let found = guest.lookup(wire::ROOT, &other)?;
    if found.node != entry.node || guest.get(found.node, 1 << 16)? != data {
        return Err(Error::Protocol("a file changed through a rename".into()));
    }
    guest.unlink(wire::ROOT, &other)?;
    guest.forget(entry.node, 2)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
