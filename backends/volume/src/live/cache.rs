//! The limit of what stays on this host: content that the bucket has, and nobody uses, makes room for other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::Result;

use super::Live;
use crate::core::Core;
use crate::data::DataFolder;
use crate::layout::Layout;

/// Data files are looked at when they may have grown by this part of the limit.
const STEP: u64 = 16;

/// How much may be here, and how much came since the data files were looked at.
#[derive(Debug)]
pub(super) struct Cache {
    limit: Option<u64>,
    grown: AtomicU64,
}

impl Cache {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            // What was here before counts, too.
            grown: AtomicU64::new(u64::MAX / 2),
        }
    }

    /// How many bytes may be here; without a number, all.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Content came. True: it is time to look.
    pub(super) fn grown(&self, bytes: u64) -> bool {
        let before = self.grown.fetch_add(bytes, Ordering::Relaxed);
        self.limit
            .is_some_and(|limit| before.saturating_add(bytes) > limit / STEP)
    }
}

/// Removes data files, those that were not used for the longest time first, if there is more than there may be.
pub(super) fn trim_if_due(core: &Arc<Core>, live: &Live, layout: &Layout) {
    let Some(limit) = live.cache.limit else {
        return;
    };
    if !live.cache.grown(0) {
        return;
    }
    live.cache.grown.store(0, Ordering::Relaxed);
    if let Err(error) = trim(core, live, layout, limit) {
        tracing::warn!(%error, "volume: the cache cannot be made smaller");
    }
}

fn trim(core: &Arc<Core>, live: &Live, layout: &Layout, limit: u64) -> Result<()> {
    let mut files = DataFolder::usage(&layout.data())?;
    let mut total = files
        .iter()
        .fold(0_u64, |sum, (_, _, bytes)| sum.saturating_add(*bytes));
    if total <= limit {
        return Ok(());
    }
    // Not at once again.
    let goal = limit.saturating_sub(limit / STEP);
    files.sort_unstable();
    for (_, ino, bytes) in files {
        if total <= goal {
            break;
        }
        if live.dirty.is_dirty(ino) {
            continue;
        }
        let gone = match core.inode(ino) {
            Ok(inode) => inode.evict()?,
            // On its way out.
            Err(_) => false,
        };
        if gone {
            total = total.saturating_sub(bytes);
        }
    }
    Ok(())
}
