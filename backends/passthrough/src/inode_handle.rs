//! What keeps hold of an inode: an `O_PATH` descriptor, or what leads to one again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use vfsd_backend::{Errno, Name};

use crate::budget::Permit;
use crate::credentials::check_thread;
use crate::descriptor_slot::{DescriptorSlot, InUse};
use crate::inode::Inode;
use crate::reopen::{ListedName, Reopen};
use crate::share::Share;
use crate::stat::Stat;
use crate::syscalls::{name_to_handle, name_to_handle_in};

/// [`InodeHandle::position`] of a handle that the cache does not keep.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// An inode's descriptor, or what leads to it while there is none.
#[derive(Debug)]
pub(crate) struct InodeHandle {
    descriptor: DescriptorSlot,
    /// Held while the descriptor is opened, so that it is opened once.
    reopen: Mutex<Reopen>,
    /// Where the cache keeps it; changed under the cache's lock only.
    pub(crate) position: AtomicU32,
    /// Used since the cache last looked.
    pub(crate) used: AtomicBool,
}

impl InodeHandle {
    /// By a descriptor.
    pub(crate) fn open(fd: OwnedFd, permit: Permit<'_>) -> Self {
        permit.keep();
        Self::new(DescriptorSlot::of(fd), Reopen::Unknown)
    }

    /// By a name that was listed.
    pub(crate) fn listed(name: ListedName) -> Self {
        Self::new(DescriptorSlot::empty(), Reopen::ByName(Box::new(name)))
    }

    fn new(descriptor: DescriptorSlot, reopen: Reopen) -> Self {
        Self {
            descriptor,
            reopen: Mutex::new(reopen),
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
            None if matches!(self.reopen.get_mut(), Reopen::ByHandle(_) | Reopen::Gone) => {
                share.descriptors.uncount_given_up();
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
        match self.inode_handle().in_use() {
            Some(descriptor) => Ok(descriptor),
            None => self.open_descriptor(&mut self.inode_handle().reopen.lock()),
        }
    }

    fn open_descriptor(&self, reopen: &mut Reopen) -> Result<InUse<'_>, Errno> {
        if let Some(descriptor) = self.inode_handle().in_use() {
            return Ok(descriptor);
        }
        let permit = self.share().permit()?;
        let fd = match reopen {
            Reopen::ByHandle(file_handle) => match self.mount().open(file_handle) {
                Err(Errno::STALE) => {
                    *reopen = Reopen::Gone;
                    return Err(Errno::STALE);
                }
                other => other?,
            },
            Reopen::ByName(name) => {
                let (fd, stat) = name.open()?;
                if !self.is(&stat) {
                    return Err(Errno::STALE);
                }
                fd
            }
            Reopen::Unknown | Reopen::Gone => return Err(Errno::STALE),
        };
        self.set_descriptor(fd, permit, reopen);
        self.inode_handle().in_use().ok_or(Errno::STALE)
    }

    /// With [`InodeHandle::reopen`] locked, and no descriptor there.
    fn set_descriptor(&self, fd: OwnedFd, permit: Permit<'_>, reopen: &mut Reopen) {
        if self.inode_handle().descriptor.put(fd) {
            permit.keep();
        }
        match reopen {
            Reopen::ByHandle(_) | Reopen::Gone => self.share().descriptors.uncount_given_up(),
            // From now on it stands for itself, wherever its name goes.
            Reopen::ByName(_) => *reopen = Reopen::Unknown,
            Reopen::Unknown => {}
        }
        self.inode_handle().used.store(true, Ordering::Relaxed);
        // The cache may make another node give up its descriptor, for which it only tries that one's lock.
        if let Some(own) = self.this() {
            self.share().descriptors.insert(&own);
        }
    }

    /// Takes over a descriptor that was found to be of the same inode.
    pub(crate) fn adopt(&self, fd: OwnedFd, permit: Permit<'_>) {
        let mut reopen = self.inode_handle().reopen.lock();
        if !self.inode_handle().is_open() {
            self.set_descriptor(fd, permit, &mut reopen);
        }
    }

    /// Whether `file`, which has this node's mount key and inode number, is the node's inode.
    ///
    /// While the descriptor is open the number cannot have been given to another file, and a handle
    /// is not given twice. A node that was listed and never opened is whatever file answers to its
    /// identity: the guest has seen no content that could be another's.
    pub(crate) fn is_same_as(&self, file: BorrowedFd<'_>, stat: &Stat) -> bool {
        let reopen = self.inode_handle().reopen.lock();
        self.inode_handle().is_open()
            || match &*reopen {
                Reopen::ByHandle(own) => name_to_handle(file).is_ok_and(|other| other == *own),
                Reopen::ByName(_) => self.is(stat),
                Reopen::Unknown | Reopen::Gone => false,
            }
    }

    /// Whether `name` in `directory`, where `stat` was found, leads to the node's inode. A node that
    /// was listed and never opened is found by this name from now on.
    pub(crate) fn is_at(&self, directory: &Inode, name: Name<'_>, stat: &Stat) -> bool {
        if !self.is(stat) {
            return false;
        }
        if self.inode_handle().is_open() {
            return true;
        }
        let mut reopen = self.inode_handle().reopen.lock();
        if self.inode_handle().is_open() {
            return true;
        }
        match &mut *reopen {
            Reopen::ByHandle(own) => {
                let same = directory
                    .descriptor()
                    .and_then(|directory| name_to_handle_in(directory.as_fd(), name))
                    .is_ok_and(|other| other == *own);
                if same && self.share().descriptors.takes_back() {
                    // Whoever needs the descriptor gets the error.
                    let _ = self.open_descriptor(&mut reopen);
                }
                same
            }
            Reopen::ByName(known) if known.is(directory, name) => true,
            Reopen::ByName(known) => match directory.this() {
                Some(directory) => {
                    **known = ListedName::new(directory, name);
                    true
                }
                None => false,
            },
            Reopen::Unknown | Reopen::Gone => false,
        }
    }

    /// What the name that this node was listed under leads to, without opening it. `None` for a node
    /// that has been opened.
    ///
    /// # Errors
    /// ESTALE when it is not this node's inode.
    pub(crate) fn stat_by_listed_name(&self) -> Result<Option<Stat>, Errno> {
        check_thread()?;
        let reopen = self.inode_handle().reopen.lock();
        match &*reopen {
            Reopen::ByName(name) => {
                let stat = name.stat()?;
                self.is(&stat).then_some(Some(stat)).ok_or(Errno::STALE)
            }
            _ => Ok(None),
        }
    }

    /// Gives up the descriptor, if the inode can be found again: not without a handle, and not when
    /// it has no name left, because then it may live by this descriptor only.
    pub(crate) fn give_up(&self) -> bool {
        let handle = self.inode_handle();
        let Some(mut reopen) = handle.reopen.try_lock() else {
            return false;
        };
        let Some(descriptor) = handle.descriptor.get() else {
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
        if !matches!(*reopen, Reopen::ByHandle(_)) {
            let Ok(file_handle) = name_to_handle(file) else {
                return false;
            };
            *reopen = Reopen::ByHandle(file_handle);
        }
        drop(descriptor);
        let taken = handle.descriptor.take_unused();
        let given_up = taken.is_some();
        if given_up {
            drop(taken);
            self.share().budget.give_back();
            self.share().descriptors.count_given_up();
        }
        given_up
    }
}

#[cfg(test)]
#[path = "inode_handle_tests.rs"]
mod tests;
