//! The thread that looks whether a queue's thread stays away from its seat for long.
//!
//! It sleeps while nobody is away: a daemon that is idle, or whose storage never waits, pays
//! nothing for it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::queue_thread::Post;
use crate::seat::Absence;

/// How often it looks. A thread is relieved when it is away at two looks in a row, so after one
/// to two of these: long against a write into the page cache, short against a disk that is busy.
const INTERVAL: Duration = Duration::from_millis(1);

/// Looks at which nobody is away before it sleeps.
const PATIENCE: u32 = 8;

/// Looks after the queues of a device.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// Nobody looks. Set only while `watched` is locked.
    asleep: AtomicBool,
    watched: Mutex<Watched>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    posts: Vec<Weak<Post>>,
    /// The thread was started.
    started: bool,
    /// The thread is to end, or not to start.
    ended: bool,
}

impl Lookout {
    /// One that sleeps.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            asleep: AtomicBool::new(true),
            watched: Mutex::default(),
            bell: Condvar::new(),
        })
    }

    /// Includes a queue, until it is dropped.
    pub(crate) fn include(&self, post: &Arc<Post>) {
        let mut watched = self.watched.lock();
        watched.posts.retain(|post| post.strong_count() > 0);
        watched.posts.push(Arc::downgrade(post));
    }

    /// Somebody is away: from now on somebody looks.
    pub(crate) fn watch(self: &Arc<Self>) {
        if self.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    #[cold]
    fn wake(self: &Arc<Self>) {
        let mut watched = self.watched.lock();
        self.asleep.store(false, Ordering::SeqCst);
        if watched.started || watched.ended {
            self.bell.notify_one();
            return;
        }
        match start(Arc::clone(self)) {
            Ok(()) => watched.started = true,
            // Without it queues are served all the same, and wait for the storage now and then.
            Err(error) => tracing::warn!("no thread looks after the queues: {error}"),
        }
    }

    /// Looks once, and says whether anybody is or was away since the last look.
    fn look(&self, seen: &mut Vec<(usize, Absence)>) -> bool {
        let posts: Vec<Arc<Post>> = {
            let watched = self.watched.lock();
            watched.posts.iter().filter_map(Weak::upgrade).collect()
        };
        let before = std::mem::take(seen);
        for post in posts {
            let key = Arc::as_ptr(&post).addr();
            let Some(absence) = post.absence() else {
                continue;
            };
            if before.contains(&(key, absence)) {
                post.relieve(absence);
            }
            seen.push((key, absence));
        }
        !seen.is_empty()
    }

    /// Lets the thread end.
    pub(crate) fn end(&self) {
        let mut watched = self.watched.lock();
        watched.ended = true;
        self.asleep.store(false, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Sleeps until somebody is away. False if the thread is to end.
    fn sleep(&self) -> bool {
        let mut watched = self.watched.lock();
        if watched.ended {
            return false;
        }
        self.asleep.store(true, Ordering::SeqCst);
        // Who left before could see that is seen here.
        let away = |post: &Weak<Post>| post.upgrade().is_some_and(|post| post.absence().is_some());
        if watched.posts.iter().any(away) {
            self.asleep.store(false, Ordering::SeqCst);
        }
        while self.asleep.load(Ordering::SeqCst) {
            self.bell.wait(&mut watched);
        }
        !watched.ended
    }
}

fn start(lookout: Arc<Lookout>) -> io::Result<()> {
    let body = move || {
        let mut seen = Vec::new();
        let mut quiet: u32 = 0;
        loop {
            quiet = match lookout.look(&mut seen) {
                true => 0,
                false => quiet.saturating_add(1),
            };
            if quiet >= PATIENCE {
                if !lookout.sleep() {
                    return;
                }
                quiet = 0;
            }
            std::thread::sleep(INTERVAL);
        }
    };
    std::thread::Builder::new()
        .name("vfsd-lookout".into())
        .spawn(body)
        .map(drop)
}
