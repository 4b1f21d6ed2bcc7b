//! What all nodes of a plugin have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex};
use vfsd_backend::{Errno, Result};

use crate::link::Link;
use crate::options::Options;
use crate::records::Tables;

/// What all nodes of a plugin have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) tables: Mutex<Tables>,
    link: ArcSwapOption<Link>,
    last_record: AtomicU64,
    closing: AtomicBool,
    bell: (Mutex<()>, Condvar),
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            tables: Mutex::default(),
            link: ArcSwapOption::empty(),
            last_record: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            bell: (Mutex::new(()), Condvar::new()),
        }
    }

    /// The connection to the plugin.
    ///
    /// # Errors
    /// EIO while there is none.
    pub(crate) fn link(&self) -> Result<Arc<Link>> {
        let link = self.link.load_full().filter(|link| !link.is_down());
        link.ok_or(Errno::IO.into())
    }

    pub(crate) fn set_link(&self, link: Option<Arc<Link>>) {
        self.link.store(link);
    }

    /// A number that no other file had.
    pub(crate) fn next_record(&self) -> u64 {
        self.last_record
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Nothing is asked of the plugin any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        drop(self.bell.0.lock());
        self.bell.1.notify_all();
        if let Some(link) = self.link.load_full() {
            link.shut();
        }
    }

    /// Waits, unless it is closing. Says whether it still is not.
    pub(crate) fn pause(&self, duration: std::time::Duration) -> bool {
        let mut bell = self.bell.0.lock();
        if !self.is_closing() {
            self.bell.1.wait_for(&mut bell, duration);
        }
        !self.is_closing()
    }
}
