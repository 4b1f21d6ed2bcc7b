//! What keeps hold of an inode: an `O_PATH` descriptor, or a file handle that gives one again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use vfsd_backend::{Errno, FileKind};

use crate::budget::{Descriptor, Permit};
use crate::credentials::check_thread;
use crate::mounts::Mount;
use crate::share::Share;
use crate::stat::Stat;
use crate::syscalls::{FileHandle, name_to_handle};

/// [`Anchor::position`] of an anchor that the cache does not keep.
const NOWHERE: usize = usize::MAX;

/// [`Anchor::position`] of an anchor whose node is gone: the cache never keeps it again.
const GONE: usize = usize::MAX - 1;

/// An inode's descriptor, or its handle while the descriptor is given up.
#[derive(Debug)]
pub(crate) struct Anchor {
    descriptor: ArcSwapOption<Descriptor>,
    /// Known before the descriptor is given up for the first time.
    handle: OnceLock<FileHandle>,
    kind: FileKind,
    mount: Arc<Mount>,
    /// Used since the cache last looked.
    used: AtomicBool,
    /// Where the cache keeps it; changed under the cache's lock only.
    position: AtomicUsize,
    /// Held while the descriptor is opened again, so that it is opened once, and while it must not be
    /// given up.
    pinned: Mutex<()>,
}

impl Anchor {
    pub(crate) fn new(descriptor: Descriptor, kind: FileKind, mount: Arc<Mount>) -> Arc<Self> {
        Arc::new(Self {
            descriptor: ArcSwapOption::from_pointee(descriptor),
            handle: OnceLock::new(),
            kind,
            mount,
            used: AtomicBool::new(true),
            position: AtomicUsize::new(NOWHERE),
            pinned: Mutex::new(()),
        })
    }

    pub(crate) fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// Whether the descriptor is there.
    pub(crate) fn is_open(&self) -> bool {
        self.descriptor.load().is_some()
    }

    /// The inode's descriptor, opened again by handle if it had been given up.
    ///
    /// # Errors
    /// ESTALE when the inode is gone, ENFILE over the budget, EIO on a thread with a foreign identity.
    pub(crate) fn descriptor(self: &Arc<Self>, share: &Share) -> Result<Arc<Descriptor>, Errno> {
        check_thread()?;
        if let Some(descriptor) = self.descriptor.load_full() {
            // Most uses find it set, and leave the cache line to other threads.
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            return Ok(descriptor);
        }
        let permit = share.permit()?;
        let _once = self.pinned.lock();
        self.reopen(share, permit)
    }

    /// With `pinned` held.
    fn reopen(self: &Arc<Self>, share: &Share, permit: Permit) -> Result<Arc<Descriptor>, Errno> {
        if let Some(descriptor) = self.descriptor.load_full() {
            return Ok(descriptor);
        }
        let handle = self.handle.get().ok_or(Errno::STALE)?;
        let fd = self.mount.open(handle)?;
        Ok(self.set(share, permit.hold(fd)))
    }

    /// Opens the descriptor, and keeps it open as long as the guard lives.
    pub(crate) fn pin(self: &Arc<Self>, share: &Share) -> Result<MutexGuard<'_, ()>, Errno> {
        let permit = share.permit()?;
        let guard = self.pinned.lock();
        self.reopen(share, permit)?;
        Ok(guard)
    }

    /// Takes over a descriptor that was found to be of the same inode.
    pub(crate) fn adopt(self: &Arc<Self>, share: &Share, descriptor: Descriptor) {
        let _once = self.pinned.lock();
        if !self.is_open() {
            self.set(share, descriptor);
        }
    }

    fn set(self: &Arc<Self>, share: &Share, descriptor: Descriptor) -> Arc<Descriptor> {
        let descriptor = Arc::new(descriptor);
        if self.descriptor.swap(Some(descriptor.clone())).is_none() {
            share.anchors.given_up.fetch_sub(1, Ordering::Relaxed);
        }
        self.used.store(true, Ordering::Relaxed);
        share.anchors.insert(share, self);
        descriptor
    }

    /// Whether `file` is the inode whose descriptor was given up. Without a handle to compare
    /// it is not.
    pub(crate) fn is_same_as(&self, file: BorrowedFd<'_>) -> bool {
        match self.handle.get() {
            Some(handle) => name_to_handle(file).is_ok_and(|other| other == *handle),
            None => false,
        }
    }

    /// Gives up the descriptor, if the inode can be found again: not without a handle, and not when
    /// it has no name left, because then it may live by this descriptor only.
    fn give_up(&self, share: &Share) -> bool {
        let Some(_guard) = self.pinned.try_lock() else {
            return false;
        };
        let Some(descriptor) = self.descriptor.load_full() else {
            return true;
        };
        let file = descriptor.as_fd();
        let named = || Stat::of(file).is_ok_and(|stat| stat.attributes.links > 0);
        if self.mount.handles(&share.proc_fd, self.kind, file).is_err() || !named() {
            return false;
        }
        if self.handle.get().is_none() {
            let Ok(handle) = name_to_handle(file) else {
                return false;
            };
            self.handle.get_or_init(|| handle);
        }
        if self.descriptor.swap(None).is_some() {
            share.anchors.given_up.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

/// The anchors whose descriptors may be given up, in shards. Each is a ring that is gone round (the
/// clock algorithm): an anchor that was used since the last round is passed over once.
#[derive(Debug)]
pub(crate) struct AnchorCache {
    shards: Box<[Mutex<Ring>]>,
    shard_capacity: usize,
    /// Anchors of live nodes that have no descriptor now.
    given_up: AtomicUsize,
}

#[derive(Debug, Default)]
struct Ring {
    slots: Vec<Option<Arc<Anchor>>>,
    free: Vec<usize>,
    hand: usize,
}

impl Ring {
    fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    fn insert(&mut self, anchor: &Arc<Anchor>) {
        if anchor.position.load(Ordering::Relaxed) != NOWHERE {
            return;
        }
        let position = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len().saturating_sub(1)
        });
        if let Some(slot) = self.slots.get_mut(position) {
            *slot = Some(anchor.clone());
            anchor.position.store(position, Ordering::Relaxed);
        }
    }

    fn remove(&mut self, position: usize) -> Option<Arc<Anchor>> {
        let anchor = self.slots.get_mut(position)?.take()?;
        anchor.position.store(NOWHERE, Ordering::Relaxed);
        self.free.push(position);
        if self.len() == 0 {
            *self = Self::default();
        }
        Some(anchor)
    }

    /// Takes the next anchor that was not used since the hand last passed it.
    fn take_victim(&mut self) -> Option<Arc<Anchor>> {
        let twice_round = self.slots.len().saturating_mul(2);
        for _ in 0..twice_round {
            let position = self.hand;
            self.hand = match position.saturating_add(1) {
                next if next < self.slots.len() => next,
                _ => 0,
            };
            let unused = self
                .slots
                .get(position)
                .and_then(Option::as_ref)
                .is_some_and(|anchor| !anchor.used.swap(false, Ordering::Relaxed));
            if unused {
                return self.remove(position);
            }
        }
        None
    }
}

/// With fewer descriptors than this one ring does.
const SHARDING_PAYS: usize = 4096;
const SHARDS: usize = 16;

/// A victim that turns out to be needed is replaced by another, this many times.
const ATTEMPTS: usize = 64;

impl AnchorCache {
    pub(crate) fn new(capacity: usize) -> Self {
        let shards = if capacity < SHARDING_PAYS { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(shards),
            given_up: AtomicUsize::new(0),
        }
    }

    fn shard(&self, anchor: &Arc<Anchor>) -> Option<&Mutex<Ring>> {
        // Anchors are more than 64 bytes apart.
        let number = (Arc::as_ptr(anchor).addr() >> 6).checked_rem(self.shards.len())?;
        self.shards.get(number)
    }

    /// Keeps an anchor with an open descriptor, and gives up others when there are too many.
    pub(crate) fn insert(&self, share: &Share, anchor: &Arc<Anchor>) {
        if anchor.mount.has_no_handles() {
            return;
        }
        let Some(shard) = self.shard(anchor) else {
            return;
        };
        let mut ring = shard.lock();
        ring.insert(anchor);
        let full = ring.len() > self.shard_capacity;
        drop(ring);
        if full {
            self.give_up_one_of(share, shard);
        }
    }

    /// Forgets an anchor whose node is gone.
    pub(crate) fn remove(&self, anchor: &Arc<Anchor>) {
        if let Some(shard) = self.shard(anchor) {
            let mut ring = shard.lock();
            let position = anchor.position.load(Ordering::Relaxed);
            let removed = ring.remove(position);
            anchor.position.store(GONE, Ordering::Relaxed);
            drop(ring);
            drop(removed);
        }
        if anchor.descriptor.swap(None).is_none() {
            self.given_up.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether all live nodes have their descriptors.
    pub(crate) fn is_complete(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) == 0
    }

    /// Makes room for one more descriptor, if any can be given up.
    pub(crate) fn give_up_one(&self, share: &Share) -> bool {
        self.shards
            .iter()
            .any(|shard| self.give_up_one_of(share, shard))
    }

    fn give_up_one_of(&self, share: &Share, shard: &Mutex<Ring>) -> bool {
        for _ in 0..ATTEMPTS {
            let Some(victim) = shard.lock().take_victim() else {
                return false;
            };
            if victim.give_up(share) {
                return true;
            }
            // On a mount without handles it is not kept for another try.
            if !victim.mount.has_no_handles() {
                victim.used.store(true, Ordering::Relaxed);
                shard.lock().insert(&victim);
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "anchor_tests.rs"]
mod tests;
