//! What is left alone for a while after it took long.

use crate::sync::atomic::{AtomicU32, Ordering};

/// After work that took long, so many pieces of it are refused, because what was slow once often is again. Each time in
/// a row it is twice as many: the thread may also just have been put aside on a busy host.
pub(crate) const FIRST: u32 = 4;

/// The most of them.
const LONGEST: u32 = 256;

/// Whether work that took long lately is tried.
#[derive(Debug, Default)]
pub struct BackOff {
    /// How many are still refused.
    left: AtomicU32,
    /// How many were refused the last time; none after one that was over in time.
    last: AtomicU32,
}

impl BackOff {
    /// Whether a piece of work is refused. What threads lose of each other's counting is a few pieces.
    #[inline]
    pub fn refuses(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        }
        left > 0
    }

    /// A piece of work was over in time.
    #[inline]
    pub fn in_time(&self) {
        if self.last.load(Ordering::Relaxed) > 0 {
            self.last.store(0, Ordering::Relaxed);
        }
    }

    /// A piece of work took long.
    pub fn late(&self) {
        let last = self.last.load(Ordering::Relaxed);
        let next = last.saturating_mul(2).clamp(FIRST, LONGEST);
        self.last.store(next, Ordering::Relaxed);
        self.left.store(next, Ordering::Relaxed);
    }
}
