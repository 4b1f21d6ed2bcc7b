//! The content of an inode: its data file, and how it is kept in step with the row.
//!
//! While a file is written to, its size and times change in memory alone. Before the first write the
//! inode is marked as unsettled in the journal, so that a start after a kill takes them from the
//! data file; when they are written the mark goes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::{fdatasync, fstat};
use vfsd_backend::{Errno, Result};

use crate::inode::{Inode, Pending};
use crate::meta::{Change, Purpose};
use crate::txn::Txn;

/// A data file, open while somebody uses it.
pub(crate) type Slot = Option<Arc<OwnedFd>>;

#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Shared by who reads or writes; alone for who appends or changes the size.
    slot: RwLock<Slot>,
    /// How many open files there are.
    opens: AtomicUsize,
    /// All that was written is on the disk.
    synced: AtomicBool,
    /// The name of the data file is on the disk.
    named: AtomicBool,
    /// It is to be settled in a while.
    awaited: AtomicBool,
}

/// Allocated blocks of 512 bytes.
pub(crate) fn blocks(file: &OwnedFd) -> Result<u64, Errno> {
    Ok(u64::try_from(fstat(file)?.st_blocks).unwrap_or(0))
}

impl Content {
    /// Allocated blocks of the data file, if it is open and nobody has it alone.
    pub(crate) fn blocks_now(&self) -> Option<u64> {
        let slot = self.slot.try_read_recursive()?;
        blocks(slot.as_ref()?).ok()
    }

    pub(crate) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// One open file is gone; with the last one the data file is closed.
    pub(crate) fn closed(&self) {
        if self.opens.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut slot = self.slot.write();
            // Opened again meanwhile: it would only have to be opened again.
            if self.opens.load(Ordering::Acquire) == 0 {
                *slot = None;
            }
        }
    }

    /// There is something that is not on the disk.
    pub(crate) fn changed(&self) {
        self.synced.store(false, Ordering::Release);
    }

    /// The data file, if it is open and nobody has it alone: for who must not wait.
    pub(crate) fn try_shared(&self) -> Option<RwLockReadGuard<'_, Slot>> {
        self.slot.try_read()
    }
}

impl Inode {
    /// The data file, for reading and writing. None where there is none, and it shall not be made.
    pub(crate) fn shared(&self, make: bool) -> Result<RwLockReadGuard<'_, Slot>> {
        self.open_shared(self.content.slot.read(), make)
    }

    /// As [`shared`](Self::shared), for who has another one already: it does not queue behind who
    /// waits to have this one alone, and who might wait for the other.
    pub(crate) fn shared_beside(&self, make: bool) -> Result<RwLockReadGuard<'_, Slot>> {
        self.open_shared(self.content.slot.read_recursive(), make)
    }

    fn open_shared<'a>(
        &'a self,
        slot: RwLockReadGuard<'a, Slot>,
        make: bool,
    ) -> Result<RwLockReadGuard<'a, Slot>> {
        if slot.is_some() || !(make || self.state.read().row.has_data) {
            return Ok(slot);
        }
        drop(slot);
        Ok(RwLockWriteGuard::downgrade(self.alone(make)?))
    }

    /// The data file, with nobody else who reads or writes it.
    pub(crate) fn alone(&self, make: bool) -> Result<RwLockWriteGuard<'_, Slot>> {
        let mut slot = self.content.slot.write();
        if slot.is_none() && (make || self.state.read().row.has_data) {
            *slot = Some(Arc::new(self.open_data_file(make)?));
        }
        Ok(slot)
    }

    fn open_data_file(&self, make: bool) -> Result<OwnedFd> {
        let make = make && !self.state.read().row.has_data;
        if make {
            // The start after a kill looks for the data file of an inode that is marked.
            self.mark_unsettled(Purpose::Usual)?;
        }
        let file = match self.core.data.open_file(self.ino, make) {
            Err(Errno::NOENT) => {
                let lost = std::io::Error::other(format!(
                    "the data file of inode {} is not there: see `vfsd volume check`",
                    self.ino
                ));
                return Err(vfsd_backend::Error::Storage(Box::new(lost)));
            }
            other => other?,
        };
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let mut state = self.state.write();
        state.row.has_data = true;
        // They differ after a power cut only, where what was written last was not made durable.
        if state.pending != Pending::Content && state.row.size != size {
            state.row.size = size;
        }
        Ok(file)
    }

    /// Notes in the journal that size and times are about to be newer in the data file.
    pub(crate) fn mark_unsettled(&self, purpose: Purpose) -> Result<()> {
        if self.state.read().pending == Pending::Content {
            return Ok(());
        }
        let mut state = self.state.write();
        if state.pending == Pending::Content {
            return Ok(());
        }
        self.core
            .meta
            .commit(vec![Change::Unsettled(self.ino, true)], purpose)?;
        state.pending = Pending::Content;
        Ok(())
    }

    /// Takes note that content up to `end` was written.
    pub(crate) fn content_written(&self, end: u64, kill_privileges: bool) -> Result<()> {
        self.content.changed();
        let (marked, loses) = {
            let mut state = self.state.write();
            state.row.size = state.row.size.max(end);
            state.content_changed();
            (state.pending == Pending::Content, state.has_privileges())
        };
        if loses {
            self.lose_privileges(kill_privileges)?;
        } else if !marked {
            // Somebody wrote the row meanwhile, without what was written here.
            self.mark_unsettled(Purpose::Freeing)?;
        }
        Ok(())
    }

    /// Takes away what was granted to other content.
    fn lose_privileges(&self, set_id: bool) -> Result<()> {
        let mut txn = Txn::new(&self.core);
        let state = txn.state(self);
        if set_id {
            state.clear_set_id();
        }
        txn.drop_capability(self);
        txn.commit()
    }

    /// Sees to it that what is written now is settled in a while, also if the file stays open.
    pub(crate) fn settle_later(self: &Arc<Self>) {
        if !self.content.awaited.swap(true, Ordering::AcqRel) {
            self.core.upkeep.content_is_pending(self);
        }
    }

    /// Writes what is newer in memory than in the journal.
    pub(crate) fn settle(&self) -> Result<()> {
        self.content.awaited.store(false, Ordering::Release);
        {
            let state = self.state.read();
            // What has no name is not looked at after the next start.
            if state.pending == Pending::Nothing || state.row.links == 0 {
                return Ok(());
            }
        }
        let mut txn = Txn::new(&self.core);
        txn.gives_space_back();
        txn.state(self);
        txn.commit()
    }

    /// Makes content and row durable, and everything that was done before.
    pub(crate) fn sync(&self) -> Result<()> {
        self.settle()?;
        self.sync_data()?;
        self.core.sync_meta()
    }

    /// Makes the content durable.
    pub(crate) fn sync_data(&self) -> Result<()> {
        let content = &self.content;
        // Not held while the disk is waited for.
        let file = self.shared(false)?.clone();
        if let Some(file) = file {
            if !content.synced.swap(true, Ordering::AcqRel)
                && let Err(errno) = fdatasync(&file)
            {
                content.synced.store(false, Ordering::Release);
                return Err(errno.into());
            }
            if !content.named.load(Ordering::Acquire) {
                self.core.data.sync_name(self.ino)?;
                content.named.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Whether there is content that may not be on the disk.
    pub(crate) fn has_unsynced_data(&self) -> bool {
        self.state.read().row.has_data && !self.content.synced.load(Ordering::Acquire)
    }
}
