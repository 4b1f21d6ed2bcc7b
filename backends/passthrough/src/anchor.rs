//! What keeps hold of an inode: an `O_PATH` descriptor, or what leads to one again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use vfsd_backend::{Errno, Name};

use crate::budget::Permit;
use crate::credentials::check_thread;
use crate::descriptor_slot::{DescriptorSlot, InUse};
use crate::inode::Inode;
use crate::origin::{ListedName, Origin};
use crate::share::Share;
use crate::stat::Stat;
use crate::syscalls::{name_to_handle, name_to_handle_in};

/// [`Anchor::position`] of an anchor that the cache does not keep.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// An inode's descriptor, or what leads to it while there is none.
#[derive(Debug)]
pub(crate) struct Anchor {
    descriptor: DescriptorSlot,
    /// Held while the descriptor is opened, so that it is opened once.
    origin: Mutex<Origin>,
    /// Where the cache keeps it; changed under the cache's lock only.
    pub(crate) position: AtomicU32,
    /// Used since the cache last looked.
    pub(crate) used: AtomicBool,
}

impl Anchor {
    /// By a descriptor.
    pub(crate) fn open(fd: OwnedFd, permit: Permit<'_>) -> Self {
        permit.keep();
        Self::new(DescriptorSlot::of(fd), Origin::Unknown)
    }

    /// By a name that was listed.
    pub(crate) fn listed(name: ListedName) -> Self {
        Self::new(DescriptorSlot::empty(), Origin::Listed(Box::new(name)))
    }

    fn new(descriptor: DescriptorSlot, origin: Origin) -> Self {
        Self {
            descriptor,
            origin: Mutex::new(origin),
            position: AtomicU32::new(NOWHERE),
            used: AtomicBool::new(true),
        }
    }

    /// Whether the descriptor is there.
    pub(crate) fn is_open(&self) -> bool {
        self.descriptor.is_open()
    }

    /// The descriptor, if it is there.
    fn in_use(&self) -> Option<InUse<'_>> {
        let descriptor = self.descriptor.get()?;
        // Most uses find it set, and leave the cache line to other threads.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(descriptor)
    }

    /// The node is going: nobody else refers to it.
    pub(crate) fn close(&mut self, share: &Share) {
        match self.descriptor.take() {
            Some(fd) => share.budget.close(fd),
            None if matches!(self.origin.get_mut(), Origin::Handle(_) | Origin::Gone) => {
                share.anchors.uncount_given_up();
            }
            None => {}
        }
    }
}

impl Inode {
    /// The inode's `O_PATH` descriptor, opened if there is none.
    ///
    /// # Errors
    /// ESTALE when the inode is gone or no longer where it was listed, ENFILE over the budget, EIO on a
    /// thread with a foreign identity.
    pub(crate) fn descriptor(&self) -> Result<InUse<'_>, Errno> {
        check_thread()?;
        match self.anchor().in_use() {
            Some(descriptor) => Ok(descriptor),
            None => self.open_anchor(&mut self.anchor().origin.lock()),
        }
    }

    fn open_anchor(&self, origin: &mut Origin) -> Result<InUse<'_>, Errno> {
        if let Some(descriptor) = self.anchor().in_use() {
            return Ok(descriptor);
        }
        let permit = self.share().permit()?;
        let fd = match origin {
            Origin::Handle(handle) => match self.mount().open(handle) {
                Err(Errno::STALE) => {
                    *origin = Origin::Gone;
                    return Err(Errno::STALE);
                }
                other => other?,
            },
            Origin::Listed(name) => {
                let (fd, stat) = name.open()?;
                if !self.is(&stat) {
                    return Err(Errno::STALE);
                }
                fd
            }
            Origin::Unknown | Origin::Gone => return Err(Errno::STALE),
        };
        self.set_descriptor(fd, permit, origin);
        self.anchor().in_use().ok_or(Errno::STALE)
    }

    /// With the lock of the origin, and no descriptor there.
    fn set_descriptor(&self, fd: OwnedFd, permit: Permit<'_>, origin: &mut Origin) {
        if self.anchor().descriptor.put(fd) {
            permit.keep();
        }
        match origin {
            Origin::Handle(_) | Origin::Gone => self.share().anchors.uncount_given_up(),
            // From now on it stands for itself, wherever its name goes.
            Origin::Listed(_) => *origin = Origin::Unknown,
            Origin::Unknown => {}
        }
        self.anchor().used.store(true, Ordering::Relaxed);
        // The cache may make another node give up its descriptor, for which it only tries that one's lock.
        if let Some(own) = self.this() {
            self.share().anchors.insert(&own);
        }
    }

    /// Takes over a descriptor that was found to be of the same inode.
    pub(crate) fn adopt(&self, fd: OwnedFd, permit: Permit<'_>) {
        let mut origin = self.anchor().origin.lock();
        if !self.anchor().is_open() {
            self.set_descriptor(fd, permit, &mut origin);
        }
    }

    /// Whether `file`, which has this node's place and inode number, is the node's inode.
    ///
    /// While the descriptor is open the number cannot have been given to another file, and a handle
    /// is not given twice. A node that was listed and never opened is whatever file answers to its
    /// identity: the guest has seen no content that could be another's.
    pub(crate) fn is_same_as(&self, file: BorrowedFd<'_>, stat: &Stat) -> bool {
        let origin = self.anchor().origin.lock();
        self.anchor().is_open()
            || match &*origin {
                Origin::Handle(handle) => name_to_handle(file).is_ok_and(|other| other == *handle),
                Origin::Listed(_) => self.is(stat),
                Origin::Unknown | Origin::Gone => false,
            }
    }

    /// Whether `name` in `directory`, where `stat` was found, leads to the node's inode. A node that
    /// was listed and never opened is found by this name from now on.
    pub(crate) fn is_at(&self, directory: &Inode, name: Name<'_>, stat: &Stat) -> bool {
        if !self.is(stat) {
            return false;
        }
        if self.anchor().is_open() {
            return true;
        }
        let mut origin = self.anchor().origin.lock();
        if self.anchor().is_open() {
            return true;
        }
        match &mut *origin {
            Origin::Handle(handle) => {
                let same = directory
                    .descriptor()
                    .and_then(|directory| name_to_handle_in(directory.as_fd(), name))
                    .is_ok_and(|other| other == *handle);
                if same && self.share().anchors.takes_back() {
                    // Whoever needs the descriptor is told what stands in the way.
                    let _ = self.open_anchor(&mut origin);
                }
                same
            }
            Origin::Listed(known) if known.is(directory, name) => true,
            Origin::Listed(known) => match directory.this() {
                Some(directory) => {
                    **known = ListedName::new(directory, name);
                    true
                }
                None => false,
            },
            Origin::Unknown | Origin::Gone => false,
        }
    }

    /// What the name that this node was listed under leads to, without opening it. `None` for a node
    /// that has been opened.
    ///
    /// # Errors
    /// ESTALE when it is not this node's inode.
    pub(crate) fn stat_by_listed_name(&self) -> Result<Option<Stat>, Errno> {
        check_thread()?;
        let origin = self.anchor().origin.lock();
        match &*origin {
            Origin::Listed(name) => {
                let stat = name.stat()?;
                self.is(&stat).then_some(Some(stat)).ok_or(Errno::STALE)
            }
            _ => Ok(None),
        }
    }

    /// Gives up the descriptor, if the inode can be found again: not without a handle, and not when
    /// it has no name left, because then it may live by this descriptor only.
    pub(crate) fn give_up(&self) -> bool {
        let anchor = self.anchor();
        let Some(mut origin) = anchor.origin.try_lock() else {
            return false;
        };
        let Some(descriptor) = anchor.descriptor.get() else {
            return true;
        };
        let file = descriptor.as_fd();
        let named = || Stat::of(file).is_ok_and(|stat| stat.attributes.links > 0);
        let handles = self
            .mount()
            .handles(&self.share().proc_fd, self.kind(), file);
        if handles.is_err() || !named() {
            return false;
        }
        if !matches!(*origin, Origin::Handle(_)) {
            let Ok(handle) = name_to_handle(file) else {
                return false;
            };
            *origin = Origin::Handle(handle);
        }
        drop(descriptor);
        let taken = anchor.descriptor.take_unused();
        let given_up = taken.is_some();
        if given_up {
            drop(taken);
            self.share().budget.give_back();
            self.share().anchors.count_given_up();
        }
        given_up
    }
}

#[cfg(test)]
#[path = "anchor_tests.rs"]
mod tests;
