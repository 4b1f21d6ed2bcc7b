//! Memory in which data of WRITEs are passed to a plugin: copied there from the guest's memory once, and nowhere else.
//!
//! It is written here, by pwritev(2), and never read or mapped: whatever the plugin does to it, it does to its own data. Its size
//! cannot be changed, so it cannot make the daemon hold more either. A range is used again when the plugin has answered; if it goes
//! on reading then it reads the data of other writes to the same storage.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use vfsd_backend::{Errno, Result, Wait, WriteSource};
use vfsd_plugin_protocol::{MAX_DATA, make_area};

/// Less than this is sent: for so little the copies cost less than another system call.
const WORTH_IT: usize = 16 << 10;

/// The area of one connection, in ranges that each hold one WRITE.
#[derive(Debug)]
pub(crate) struct Area {
    memory: OwnedFd,
    size: u32,
    /// Numbers of the ranges that are not in use. The lowest goes first, so that few writes at a time need little memory.
    free: Mutex<BTreeSet<u32>>,
}

/// A part of an area for one WRITE. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Range {
    area: Arc<Area>,
    number: u32,
}

impl Area {
    /// An area of at most so many bytes. `None` for fewer than one WRITE may have, and when there is no memory or descriptor for it.
    pub(crate) fn new(bytes: u32) -> Option<Arc<Self>> {
        let ranges = bytes.checked_div(MAX_DATA).filter(|ranges| *ranges > 0)?;
        let size = ranges.checked_mul(MAX_DATA)?;
        let memory = make_area(size)
            .inspect_err(|error| tracing::warn!("no memory to share with a plugin: {error}"))
            .ok()?;
        let free = Mutex::new((0..ranges).collect());
        Some(Arc::new(Self { memory, size, free }))
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Room for so many bytes. `None` when it is full, or they are too few or too many for it.
    pub(crate) fn range(self: &Arc<Self>, bytes: usize) -> Option<Range> {
        let most = usize::try_from(MAX_DATA).unwrap_or(usize::MAX);
        if !(WORTH_IT..=most).contains(&bytes) {
            return None;
        }
        let number = self.free.lock().pop_first()?;
        let area = Arc::clone(self);
        Some(Range { area, number })
    }
}

impl Range {
    /// Its first byte in the area.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.number).saturating_mul(u64::from(MAX_DATA))
    }

    /// Copies all data of a source there, for which there is room.
    ///
    /// # Errors
    /// EFAULT when the guest's memory went away; ENOMEM or ENOSPC when there is none for the area.
    pub(crate) fn fill(&self, source: &mut dyn WriteSource) -> Result<()> {
        let mut at = self.offset();
        while source.remaining() > 0 {
            let taken = source.take_into(self.area.descriptor(), at, Wait::Allowed)?;
            if taken == 0 {
                return Err(Errno::FAULT.into());
            }
            at = at.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.area.free.lock().insert(self.number);
    }
}
