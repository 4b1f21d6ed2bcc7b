//! Fetching what nobody has asked for yet.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Trace;
use crate::OciImage;
use crate::content::{ContentError, LayerContent};

/// How much of a layer is fetched at once while nobody waits for it.
const RUN: u64 = 4 << 20;
/// How often it is looked whether the guest waits, and whether the image is still open.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// How long is waited after a failure; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long another daemon that fetches the same image is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// Why fetching ahead has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All is there.
    Complete,
    /// Nobody has the image open any more.
    Closed,
    /// It was not to go on.
    Refused,
    /// An index that others have made was wrong: the image is not served any more.
    Refuted,
}

impl OciImage {
    /// Makes ready what was read at the last start, in that order, with several requests at once. Blocks until that is
    /// done. Says what failed, which the guest will ask for again.
    ///
    /// # Errors
    /// The first failure; the rest was tried all the same.
    pub fn prefetch(image: &Weak<Self>, at_once: usize) -> Result<(), ContentError> {
        let runs = match image.upgrade() {
            Some(image) => image.runs(),
            None => return Ok(()),
        };
        let runs = Mutex::new(runs.into_iter());
        let outcome = Mutex::new(Ok(()));
        let work = || {
            while let Some(image) = image.upgrade() {
                // In a statement of its own: the next worker needs the lock.
                let run = runs.lock().next();
                let Some((layer, spans)) = run else {
                    return;
                };
                let content = image.contents().nth(layer);
                let filled = content.map_or(Ok(()), |content| content.fill_run(spans));
                let mut outcome = outcome.lock();
                if outcome.is_ok() {
                    *outcome = filled;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..at_once.max(1) {
                scope.spawn(work);
            }
            work();
        });
        outcome.into_inner()
    }

    /// The spans of the last start that are missing, those that lie side by side in one run.
    fn runs(&self) -> Vec<(usize, Range<usize>)> {
        let Some(Trace(entries)) = Trace::load(self.recorder().path()) else {
            return Vec::new();
        };
        let contents: Vec<&Arc<LayerContent>> = self.contents().collect();
        let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
        for (layer, span) in entries {
            let (Ok(layer), Ok(span)) = (usize::try_from(layer), usize::try_from(span)) else {
                continue;
            };
            let Some(content) = contents.get(layer) else {
                continue;
            };
            if content.is_span_resident(span) {
                continue;
            }
            let longer = runs.last().cloned().filter(|(of, spans)| {
                *of == layer
                    && spans.end == span
                    && content.size_of_run(spans.start..span.saturating_add(1)) <= RUN
            });
            let after = span.saturating_add(1);
            match (longer, runs.last_mut()) {
                (Some(_), Some((_, spans))) => spans.end = after,
                _ => runs.push((layer, span..after)),
            }
        }
        runs
    }

    /// Fetches all of the layers that are elsewhere, while nobody has waited for content for as long as `quiet`. Blocks
    /// until all is there, the image is closed, or `may_go_on`, which is asked before each request, says no. One daemon
    /// does it for an image, and another goes on where it ended. Layers whose indexes were made by others are read as a
    /// whole before, and compared with these. `failed` is told what did not succeed and is tried
    /// again later.
    pub fn fetch_rest(
        image: &Weak<Self>,
        quiet: Duration,
        may_go_on: impl Fn() -> bool,
        failed: impl Fn(&ContentError),
    ) -> Stopped {
        let mut pause = Pause::default();
        let _filling = loop {
            let Some(opened) = image.upgrade() else {
                return Stopped::Closed;
            };
            match opened.lease().fill() {
                Ok(Some(filling)) => break Some(filling),
                Ok(None) => {}
                // Without a lock it may be done twice, and is right all the same.
                Err(_) => break None,
            }
            // What the other one has found out counts here, too.
            if !opened.settle_known() {
                return Stopped::Refuted;
            }
            drop(opened);
            if !rest(image, LEFT_ALONE) {
                return Stopped::Closed;
            }
        };
        if let Err(stopped) = Self::compare_layers(image, quiet, &may_go_on, &failed) {
            return stopped;
        }
        loop {
            let Some(opened) = image.upgrade() else {
                return Stopped::Closed;
            };
            if !opened.demand().is_quiet_for(quiet) {
                drop(opened);
                std::thread::sleep(LOOK);
                continue;
            }
            let distant = opened.contents().filter(|content| content.is_distant());
            let next = distant.filter_map(|it| Some((it, it.missing_run(0, RUN)?)));
            let Some((content, run)) = next.into_iter().next() else {
                return Stopped::Complete;
            };
            if !may_go_on() {
                return Stopped::Refused;
            }
            match content.fill_run(run) {
                Ok(()) => pause = Pause::default(),
                Err(error) => {
                    failed(&error);
                    drop(opened);
                    if let Err(stopped) = pause.rest(image) {
                        return stopped;
                    }
                }
            }
        }
    }
}

/// How long is waited after failures in a row.
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE)
    }
}

impl Pause {
    /// Waits, and longer the next time.
    ///
    /// # Errors
    /// `Closed` when the image is not open any more.
    pub(crate) fn rest(&mut self, image: &Weak<OciImage>) -> Result<(), Stopped> {
        if !rest(image, self.0) {
            return Err(Stopped::Closed);
        }
        self.0 = self.0.saturating_mul(2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Waits; whether the image is still open then.
fn rest(image: &Weak<OciImage>, how_long: Duration) -> bool {
    let begin = std::time::Instant::now();
    while begin.elapsed() < how_long {
        if image.strong_count() == 0 {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    image.strong_count() > 0
}
