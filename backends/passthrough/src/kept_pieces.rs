//! How many open directories keep a piece of their listing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries are read from the host in pieces of this size, in bytes.
pub(crate) const PIECE: usize = 32 * 1024;

/// As many are kept between two reads, 32 MiB of them: far more than a guest lists at the same time, few
/// against the directories that it may have open.
pub(crate) const MOST_KEPT: usize = 1024;

/// Counts the open directories of a share that keep a piece of their listing.
#[derive(Debug, Default)]
pub(crate) struct KeptPieces(AtomicUsize);

impl KeptPieces {
    /// The right to keep a piece, if there is one left.
    pub(crate) fn keep(self: &Arc<Self>) -> Option<Kept> {
        let one_more = |kept: usize| kept.checked_add(1).filter(|&kept| kept <= MOST_KEPT);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Kept(Arc::clone(self)))
    }
}

/// The right to keep a piece; given back when dropped.
#[derive(Debug)]
pub(crate) struct Kept(Arc<KeptPieces>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
