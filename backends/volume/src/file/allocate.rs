//! fallocate(2), also where blocks are in a bucket alone.

use std::ops::Range;
use std::os::fd::OwnedFd;

use parking_lot::RwLockWriteGuard;
use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};
use vfsd_backend::{Errno, FallocateMode, FallocateRequest, OpenFlags, Result};

use super::OpenFile;
use super::write::edges;
use crate::content::Slot;
use crate::inode::Inode;
use crate::live::ranges::{END, RangeSet, around, up};
use crate::meta::Purpose;
use crate::txn::Txn;

impl OpenFile {
    pub(super) fn change_allocation(&self, request: FallocateRequest) -> Result<()> {
        let FallocateRequest {
            mode,
            offset,
            length,
            ..
        } = request;
        self.check_open_for(OpenFlags::WRITE)?;
        let inode = self.inode();
        check_fallocate(inode, mode)?;
        let range = offset..offset.saturating_add(length);
        let slot = self.alone_to_allocate(mode, &range)?;
        let file = slot.as_ref().ok_or(Errno::IO)?;
        let size = inode.state.read().row.size;
        let usage = &inode.core.usage;
        usage.may_reach(new_size(mode, &range, size), || size)?;
        let _passing = inode.core.pass();
        inode.mark_unsettled(Purpose::Usual)?;
        let hole = changed_content(mode, &range);
        let mut elsewhere = Vec::new();
        if let Some(hole) = &hole {
            elsewhere = inode.missing(&around(hole));
            inode.note_holes(hole, &elsewhere, Purpose::Freeing)?;
            inode.ready_for_holes(hole, &elsewhere, || {
                inode.keep_order(|| Ok(()))?;
                Ok(inode.about_to_change(file, hole, false)?)
            })?;
        }
        let done = match inode.missing(&range) {
            missing if missing.is_empty() => allocate(file, mode, &range),
            missing => allocate_around(file, mode, &range, &missing),
        };
        inode.core.failpoints.reach("allocated");
        if done.is_err() {
            inode.give_back(Some(file), &elsewhere, 0)?;
        }
        inode.content.changed();
        let stat = fstat(file)?;
        let mut txn = Txn::within(&inode.core);
        // It has happened.
        txn.gives_space_back();
        // What was here is noted already.
        if let Some(hole) = hole.filter(|_| done.is_ok() && !elsewhere.is_empty()) {
            txn.note_hole(inode, &around(&hole));
        }
        let state = txn.state(inode);
        state.row.size = u64::try_from(stat.st_size).unwrap_or(0);
        state.row.blocks = inode.blocks_of(file)?;
        // The file system knows neither the mode nor so large a file.
        if !matches!(done, Err(Errno::OPNOTSUPP | Errno::FBIG)) {
            // As on ext4 this is lost, and the times move, also when the range is then refused.
            if request.kill_privileges {
                state.clear_all_set_id();
            }
            state.content_changed();
            txn.drop_capability(inode);
        }
        txn.commit()?;
        Ok(done?)
    }

    /// The content alone, with all of it here that the change of a range needs.
    fn alone_to_allocate(
        &self,
        mode: FallocateMode,
        range: &Range<u64>,
    ) -> Result<RwLockWriteGuard<'_, Slot>> {
        let inode = self.inode();
        inode.before_order()?;
        let _pin = inode.content.pin();
        loop {
            let slot = inode.alone(true)?;
            let Some((_, map)) = inode.live() else {
                return Ok(slot);
            };
            let size = inode.state.read().row.size;
            let needed = match changed_content(mode, range) {
                None => Vec::new(),
                // All behind it moves.
                Some(moved) if moved.end == END => std::iter::once(moved.start..up(size)).collect(),
                Some(hole) => edges(&hole, size),
            };
            let Some(needed) = needed.into_iter().find(|part| map.misses(part)) else {
                return Ok(slot);
            };
            drop(slot);
            inode.fetch_now(&needed)?;
        }
    }
}

/// The range whose content an allocation changes.
fn changed_content(mode: FallocateMode, range: &Range<u64>) -> Option<Range<u64>> {
    match mode.difference(FallocateMode::KEEP_SIZE) {
        FallocateMode::PUNCH_HOLE | FallocateMode::ZERO_RANGE => Some(range.clone()),
        FallocateMode::COLLAPSE_RANGE | FallocateMode::INSERT_RANGE => Some(range.start..END),
        _ => None,
    }
}

/// The size after an allocation.
fn new_size(mode: FallocateMode, range: &Range<u64>, size: u64) -> u64 {
    match mode {
        FallocateMode::INSERT_RANGE => size.saturating_add(range.end.saturating_sub(range.start)),
        FallocateMode::COLLAPSE_RANGE => size,
        _ if mode.contains(FallocateMode::KEEP_SIZE) => size,
        _ => size.max(range.end),
    }
}

fn allocate(file: &OwnedFd, mode: FallocateMode, range: &Range<u64>) -> Result<(), Errno> {
    let flags = FallocateFlags::from_bits_retain(mode.bits());
    let length = range.end.saturating_sub(range.start);
    rustix::io::retry_on_intr(|| fallocate(file, flags, range.start, length))
}

/// Allocates what is not in the bucket: there the space is taken already.
fn allocate_around(
    file: &OwnedFd,
    mode: FallocateMode,
    range: &Range<u64>,
    missing: &[Range<u64>],
) -> Result<(), Errno> {
    let missing: RangeSet = missing.iter().cloned().collect();
    for gap in missing.gaps(range) {
        allocate(file, mode, &gap)?;
    }
    let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
    if size < range.end && !mode.contains(FallocateMode::KEEP_SIZE) {
        ftruncate(file, range.end)?;
    }
    Ok(())
}

/// Which modes there are: `vfs_fallocate` and `ext4_fallocate` of the kernel.
fn check_fallocate(inode: &Inode, mode: FallocateMode) -> Result<(), Errno> {
    let keeps_size = mode.contains(FallocateMode::KEEP_SIZE);
    let what = mode.difference(FallocateMode::KEEP_SIZE);
    let known = match what {
        FallocateMode::PUNCH_HOLE => keeps_size,
        FallocateMode::COLLAPSE_RANGE | FallocateMode::INSERT_RANGE => !keeps_size,
        FallocateMode::ZERO_RANGE => true,
        _ => what.is_empty(),
    };
    if !known {
        return Err(Errno::OPNOTSUPP);
    }
    let flags = inode.state.read().flags();
    if flags.is_immutable() || (flags.is_append_only() && !what.is_empty()) {
        return Err(Errno::PERM);
    }
    Ok(())
}
