//! What the file system may use of the host's memory, and what it uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::posix::LockBudget;
use vfsd_backend::{Errno, FsStatistics, Name};

use crate::content::BLOCK_BYTES;
use crate::control_group;

/// How large the file system may grow. Over a limit the guest sees ENOSPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of file content, directory entries, link targets and extended attributes together.
    /// Content counts in blocks of 4096 bytes; holes count nothing.
    pub bytes: u64,
    /// Inodes, the root included.
    pub inodes: u64,
}

impl Limits {
    /// What tmpfs(5) allows by default, of the [memory](Self::memory) that there is for us: half of it, and an inode for
    /// each two pages.
    pub fn half_of_memory() -> Self {
        Self::of_size(Self::memory() / 2)
    }

    /// So many bytes, and an inode for each block of them, as tmpfs(5) has with `size=`.
    pub fn of_size(bytes: u64) -> Self {
        Self {
            bytes,
            inodes: (bytes / BLOCK_BYTES).max(1024),
        }
    }

    /// Bytes of memory that this process may use: what the machine has, or its control group if that is less.
    pub fn memory() -> u64 {
        control_group::memory_limit().map_or(Self::machine(), |limit| limit.min(Self::machine()))
    }

    fn machine() -> u64 {
        let info = rustix::system::sysinfo();
        // Fields of `struct sysinfo` are C longs: 64 bits wide or narrower.
        #[allow(clippy::useless_conversion)]
        u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::half_of_memory()
    }
}

/// Counts what is used, and refuses what goes over the limits. Whatever a guest can make the
/// daemon keep is counted here.
#[derive(Debug)]
pub(crate) struct Space {
    limits: Limits,
    bytes: AtomicU64,
    inodes: AtomicU64,
    /// Of all files together.
    pub(crate) locks: Arc<LockBudget>,
}

impl Space {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            locks: LockBudget::new(LockBudget::USUAL),
        }
    }

    /// Takes `bytes`, all or none.
    pub(crate) fn charge(&self, bytes: u64) -> Result<(), Errno> {
        take(&self.bytes, bytes, self.limits.bytes)
    }

    /// Gives `bytes` back that were charged before.
    pub(crate) fn refund(&self, bytes: u64) {
        give(&self.bytes, bytes);
    }

    /// Replaces a charge of `old` bytes by one of `new`.
    pub(crate) fn recharge(&self, old: u64, new: u64) -> Result<(), Errno> {
        match new.checked_sub(old) {
            Some(more) => self.charge(more),
            None => {
                self.refund(old.saturating_sub(new));
                Ok(())
            }
        }
    }

    pub(crate) fn charge_inode(&self) -> Result<(), Errno> {
        take(&self.inodes, 1, self.limits.inodes)
    }

    pub(crate) fn refund_inode(&self) {
        give(&self.inodes, 1);
    }

    pub(crate) fn statistics(&self) -> FsStatistics {
        let used = self.bytes.load(Ordering::Relaxed).div_ceil(BLOCK_BYTES);
        let blocks = self.limits.bytes / BLOCK_BYTES;
        let free = blocks.saturating_sub(used);
        let inodes = self.inodes.load(Ordering::Relaxed);
        FsStatistics {
            blocks,
            blocks_free: free,
            blocks_available: free,
            files: self.limits.inodes,
            files_free: self.limits.inodes.saturating_sub(inodes),
            block_size: crate::content::BLOCK_SIZE,
            fragment_size: crate::content::BLOCK_SIZE,
            name_max: u32::try_from(Name::MAX).unwrap_or(u32::MAX),
        }
    }

    /// Bytes and inodes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> (u64, u64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.inodes.load(Ordering::Relaxed),
        )
    }
}

fn take(counter: &AtomicU64, amount: u64, limit: u64) -> Result<(), Errno> {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(amount).filter(|&sum| sum <= limit)
        })
        .map(|_| ())
        .map_err(|_| Errno::NOSPC)
}

fn give(counter: &AtomicU64, amount: u64) {
    // The closure never answers None, so there is no failure to report.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        Some(used.saturating_sub(amount))
    });
}
