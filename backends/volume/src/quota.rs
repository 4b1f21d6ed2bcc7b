//! How much a volume may hold, and how much it holds.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vfsd_backend::{Errno, FsStatistics};

use crate::meta::tables::Figures;

/// How much a volume may hold. Without a number there is no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of content of all files, holes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Inodes, that of the root included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

impl Quota {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a volume that is open holds, and may hold.
#[derive(Debug)]
pub(crate) struct Usage {
    quota: Quota,
    bytes: AtomicU64,
    files: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn subtract(counter: &AtomicU64, less: u64) {
    let fewer = |count: u64| Some(count.saturating_sub(less));
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
}

impl Usage {
    pub(crate) fn new(quota: Quota) -> Self {
        Self {
            quota,
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        !self.quota.is_none()
    }

    /// So much is there.
    pub(crate) fn counted(&self, figures: &Figures) {
        self.bytes.store(figures.bytes, Ordering::Relaxed);
        self.files.store(figures.inodes, Ordering::Relaxed);
    }

    /// Whether there may be content behind the end of a file, which `size` tells, up to `end`. Who asks at the same time
    /// may get the same room.
    ///
    /// # Errors
    /// ENOSPC.
    pub(crate) fn may_reach(&self, end: u64, size: impl FnOnce() -> u64) -> Result<(), Errno> {
        let Some(most) = self.quota.bytes else {
            return Ok(());
        };
        let more = end.saturating_sub(size());
        let fits = self.bytes.load(Ordering::Relaxed).saturating_add(more) <= most;
        match more == 0 || fits {
            true => Ok(()),
            false => Err(Errno::NOSPC),
        }
    }

    /// Whether there may be so many inodes more.
    ///
    /// # Errors
    /// ENOSPC.
    pub(crate) fn may_add(&self, files: u64) -> Result<(), Errno> {
        let sum = self.files.load(Ordering::Relaxed).saturating_add(files);
        match files == 0 || self.quota.files.is_none_or(|most| sum <= most) {
            true => Ok(()),
            false => Err(Errno::NOSPC),
        }
    }

    pub(crate) fn added(&self, files: u64) {
        add(&self.files, files);
    }

    /// The size of a file has changed.
    pub(crate) fn resized(&self, from: u64, to: u64) {
        match to.checked_sub(from) {
            Some(more) => add(&self.bytes, more),
            None => subtract(&self.bytes, from.saturating_sub(to)),
        }
    }

    /// An inode of this size is gone.
    pub(crate) fn removed(&self, size: u64) {
        subtract(&self.files, 1);
        subtract(&self.bytes, size);
    }

    /// What there is where so much is told without a limit.
    pub(crate) fn limit(&self, mut told: FsStatistics) -> FsStatistics {
        if let Some(most) = self.quota.bytes {
            let size = u64::from(told.block_size).max(1);
            let free = most.saturating_sub(self.bytes.load(Ordering::Relaxed));
            let in_blocks = |bytes: u64| bytes.checked_div(size).unwrap_or(0);
            told.blocks = in_blocks(most);
            told.blocks_free = told.blocks_free.min(in_blocks(free));
            told.blocks_available = told.blocks_available.min(in_blocks(free));
        }
        if let Some(most) = self.quota.files {
            let free = most.saturating_sub(self.files.load(Ordering::Relaxed));
            told.files = most;
            told.files_free = told.files_free.min(free);
        }
        told
    }
}
