//! The thread that looks whether a blocking section lasts, as Go's sysmon does.
//!
//! It sleeps while no worker is in one: a daemon that is idle, or whose storage never waits, pays
//! nothing for it.

use std::cell::Cell;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use crate::hand_off::{BlockingSection, HandOff};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::thread;
use crate::worker::Worker;

/// How often it looks. A queue is handed off when its thread is in the same section at two looks in
/// a row, so after one to two of these: long against a write into the page cache, short against a
/// disk that is busy.
const INTERVAL: Duration = Duration::from_millis(1);

/// Looks at which nobody is in a section before it sleeps.
const IDLE_LOOKS: u32 = 8;

/// A queue whose thread can be replaced.
pub trait MonitoredQueue: Send + Sync + Debug {
    /// Whose turn it is.
    fn state(&self) -> &HandOff;

    /// Lets another thread go on with the queue, if it can [claim](HandOff::claim) it.
    fn hand_off(self: Arc<Self>, section: BlockingSection);
}

/// Looks after queues.
#[derive(Debug)]
pub struct Monitor {
    /// Nobody looks. Set only while `watched` is locked.
    asleep: AtomicBool,
    watched: Mutex<Watched>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    queues: Vec<Weak<dyn MonitoredQueue>>,
    /// The thread was started.
    started: bool,
    /// The thread is to end, or not to start.
    ended: bool,
}

impl Monitor {
    /// One that sleeps. Its thread starts with the first section.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            asleep: AtomicBool::new(true),
            watched: Mutex::default(),
            wake: Condvar::new(),
        })
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Includes a queue, until it is dropped.
    pub fn include(&self, queue: Weak<dyn MonitoredQueue>) {
        let mut watched = self.watched();
        watched.queues.retain(|queue| queue.strong_count() > 0);
        watched.queues.push(queue);
    }

    /// A worker is in a section: from now on somebody looks.
    #[inline]
    fn watch(self: &Arc<Self>) {
        if self.asleep.load(Ordering::SeqCst) {
            self.wake_up();
        }
    }

    #[cold]
    fn wake_up(self: &Arc<Self>) {
        let mut watched = self.watched();
        self.asleep.store(false, Ordering::SeqCst);
        if watched.started || watched.ended {
            self.wake.notify_one();
            return;
        }
        match start(Arc::clone(self)) {
            Ok(()) => watched.started = true,
            // Without it queues are served all the same, and wait for the storage now and then.
            Err(error) => tracing::warn!("no thread monitors the queues: {error}"),
        }
    }

    /// Looks once, and says whether any worker is in a section.
    fn look(&self, seen: &mut Vec<(usize, BlockingSection)>) -> bool {
        let queues: Vec<Arc<dyn MonitoredQueue>> = {
            let watched = self.watched();
            watched.queues.iter().filter_map(Weak::upgrade).collect()
        };
        let before = std::mem::take(seen);
        for queue in queues {
            let key = Arc::as_ptr(&queue).addr();
            let Some(section) = queue.state().section() else {
                continue;
            };
            if before.contains(&(key, section)) {
                queue.hand_off(section);
            }
            seen.push((key, section));
        }
        !seen.is_empty()
    }

    /// Lets the thread end.
    pub fn end(&self) {
        let mut watched = self.watched();
        watched.ended = true;
        self.asleep.store(false, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Sleeps until a worker enters a section. False if the thread is to end.
    fn sleep(&self) -> bool {
        let mut watched = self.watched();
        if watched.ended {
            return false;
        }
        self.asleep.store(true, Ordering::SeqCst);
        // Who entered before it could see that is seen here.
        let queues = watched.queues.iter().filter_map(Weak::upgrade);
        if queues
            .into_iter()
            .any(|queue| queue.state().section().is_some())
        {
            self.asleep.store(false, Ordering::SeqCst);
        }
        while self.asleep.load(Ordering::SeqCst) {
            watched = self
                .wake
                .wait(watched)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !watched.ended
    }
}

fn start(monitor: Arc<Monitor>) -> io::Result<()> {
    let body = move || {
        let mut seen = Vec::new();
        let mut idle: u32 = 0;
        loop {
            idle = match monitor.look(&mut seen) {
                true => 0,
                false => idle.saturating_add(1),
            };
            if idle >= IDLE_LOOKS {
                if !monitor.sleep() {
                    return;
                }
                idle = 0;
            }
            thread::sleep(INTERVAL);
        }
    };
    thread::Builder::new()
        .name("vfsd-monitor".into())
        .spawn(body)
        .map(drop)
}

/// A thread that serves a queue which a [`Monitor`] looks after.
#[derive(Debug)]
pub struct MonitoredWorker<Q: ?Sized> {
    queue: Arc<Q>,
    monitor: Arc<Monitor>,
    section: Cell<Option<BlockingSection>>,
    handed_off: Cell<bool>,
}

impl<Q: MonitoredQueue> MonitoredWorker<Q> {
    /// The calling thread, which serves the queue.
    pub fn new(queue: Arc<Q>, monitor: Arc<Monitor>) -> Self {
        Self {
            queue,
            monitor,
            section: Cell::new(None),
            handed_off: Cell::new(false),
        }
    }

    /// Whether another thread serves the queue now.
    #[inline]
    pub fn is_handed_off(&self) -> bool {
        self.handed_off.get()
    }
}

impl<Q: MonitoredQueue> Worker for MonitoredWorker<Q> {
    fn enter_blocking(&self) -> bool {
        // Nobody waits for it any more.
        if self.is_handed_off() {
            return true;
        }
        let section = self.queue.state().enter();
        self.section.set(section);
        if section.is_some() {
            self.monitor.watch();
        }
        section.is_some()
    }

    fn exit_blocking(&self) {
        if let Some(section) = self.section.take()
            && !self.queue.state().exit(section)
        {
            self.handed_off.set(true);
        }
    }
}
