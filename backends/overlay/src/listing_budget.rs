//! How much memory what was listed may keep, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that lists keep from one request to the next, at most. A list that is not kept is made again for the next
/// request: its cookies hold.
pub(crate) struct ListingBudget {
    most: usize,
    taken: AtomicUsize,
}

/// A part of the budget, given back when it is dropped.
pub(crate) struct Share {
    budget: Arc<ListingBudget>,
    bytes: usize,
}

impl ListingBudget {
    /// Enough for a million names.
    pub(crate) const USUAL: usize = 128 << 20;

    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
        })
    }

    /// Takes so many bytes, if that many are left: of the last eighth only for a part of a list. One list is always
    /// kept, however long it is.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize, whole: bool) -> Option<Share> {
        let most = match whole {
            true => self.most.saturating_sub(self.most / 8),
            false => self.most,
        };
        let more = |taken: usize| {
            let sum = taken.saturating_add(bytes);
            (taken == 0 || sum <= most).then_some(sum)
        };
        self.take_if(bytes, more)
    }

    /// Takes so many bytes only if that many are left.
    pub(crate) fn take_within(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let more = |taken: usize| Some(taken.saturating_add(bytes)).filter(|sum| *sum <= self.most);
        self.take_if(bytes, more)
    }

    fn take_if(
        self: &Arc<Self>,
        bytes: usize,
        more: impl FnMut(usize) -> Option<usize>,
    ) -> Option<Share> {
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Share {
            budget: self.clone(),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_the_budget_but_one_list_always() {
        let budget = ListingBudget::new(80);
        let first = budget.take(60, true);
        assert!(first.is_some());
        assert!(budget.take(11, true).is_none());
        let second = budget.take(10, true);
        assert!(second.is_some() && budget.take(1, true).is_none());
        let part = budget.take(10, false);
        assert!(part.is_some() && budget.take(1, false).is_none());
        drop((first, part));
        assert!(budget.take(60, true).is_some());
        drop(second);
        let long = budget.take(1000, true);
        assert!(long.is_some() && budget.take(1, true).is_none());
        drop(long);
        assert!(budget.take(1, true).is_some());
        assert!(budget.take_within(81).is_none(), "not even the first");
        let strict = budget.take_within(80);
        assert!(strict.is_some() && budget.take_within(1).is_none());
    }
}
