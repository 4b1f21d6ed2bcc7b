//! Writing down what is read after a start.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::trace::{ENTRIES_MAX, Trace};

/// How long is written down, from the first read on.
const PERIOD: Duration = Duration::from_secs(30);

/// Writes down which spans are read in the first seconds, also those that are there already.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Whether anything is still written down: all that a read looks at afterwards.
    recording: AtomicBool,
    state: Mutex<State>,
    path: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    seen: HashSet<(u32, u32)>,
    trace: Trace,
}

impl Recorder {
    /// One that will write to `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            recording: AtomicBool::new(true),
            state: Mutex::default(),
            path: path.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Spans of a layer are needed now.
    pub(crate) fn record(&self, layer: u32, spans: impl Iterator<Item = usize>) {
        let mut state = self.state.lock();
        let began = *state.began.get_or_insert_with(Instant::now);
        if began.elapsed() >= PERIOD {
            drop(state);
            return self.finish();
        }
        for span in spans {
            let Ok(span) = u32::try_from(span) else {
                continue;
            };
            if state.trace.0.len() < ENTRIES_MAX && state.seen.insert((layer, span)) {
                state.trace.0.push((layer, span));
            }
        }
    }

    /// Ends the recording if its time is over: to be called now and then.
    pub(crate) fn tick(&self) {
        let began = self.state.lock().began;
        if began.is_some_and(|began| began.elapsed() >= PERIOD) {
            self.finish();
        }
    }

    /// Ends the recording and stores it. A start at which nothing was read is forgotten.
    pub(crate) fn finish(&self) {
        if !self.recording.swap(false, Ordering::SeqCst) {
            return;
        }
        let state = std::mem::take(&mut *self.state.lock());
        if !state.trace.0.is_empty() {
            // The next start is slower without it, and that is all.
            let _ = state.trace.store(&self.path);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}
