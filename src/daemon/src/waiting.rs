//! Telling the log what is waited for, where that takes long.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::Span;

/// After what time the log says what is waited for.
pub(crate) const SLOW: Duration = Duration::from_secs(2);

/// Somebody waits, as long as this is there.
#[derive(Debug)]
pub(crate) struct Waiting(Option<(Sender<()>, JoinHandle<()>)>);

impl Waiting {
    /// What is done once, on a thread of its own, if it lasts longer than [`SLOW`].
    pub(crate) fn new(tell: impl FnOnce() + Send + 'static) -> Self {
        let (over, waits) = mpsc::channel();
        let span = Span::current();
        let wait = move || {
            if waits.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                span.in_scope(tell);
            }
        };
        let named = thread::Builder::new().name("waiting".to_owned());
        // Without a thread nothing is told.
        Self(named.spawn(wait).ok().map(|thread| (over, thread)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.0.take() {
            drop::<Sender<()>>(over);
            let _ = thread.join();
        }
    }
}
