//! The content of an inode: its data file, and how it is kept in step with the row.
//!
//! While a file is written to, its size and times change in memory alone. Before the first write the
//! inode is marked as unsettled in the journal, so that a start after a kill takes them from the
//! data file; when they are written the mark goes.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::{FallocateFlags, fallocate, fdatasync, fstat, ftruncate};
use vfsd_backend::{Errno, Result};

use crate::core::Core;
use crate::inode::{Inode, Pending};
use crate::live::dirty::ContentMap;
use crate::live::holes::all_data;
use crate::live::ranges::{RangeSet, around, down};
use crate::live::{Live, Passing};
use crate::meta::{Change, Purpose};
use crate::txn::Txn;

/// A data file, open while somebody uses it.
pub(crate) type Slot = Option<Arc<OwnedFd>>;

/// So many fit into a record.
const HOLES_IN_A_RECORD: usize = 1000;

/// What becomes of data files that are open and that nobody reads or writes just now, when there is too much here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    Stays,
    Goes,
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Shared by who reads or writes; alone for who appends or changes the size.
    slot: RwLock<Slot>,
    /// How many open files there are.
    opens: AtomicUsize,
    /// How many count on it that what is here stays.
    pins: AtomicUsize,
    /// All that was written is on the disk.
    synced: AtomicBool,
    /// Nothing of it was promised to outlive a power cut here: it is new, and nobody synced it.
    unpromised: AtomicBool,
    /// The name of the data file is on the disk.
    named: AtomicBool,
    /// It is to be settled in a while.
    awaited: AtomicBool,
    /// In a volume in a bucket: what is here and what is there.
    map: OnceLock<Arc<ContentMap>>,
}

/// Allocated blocks of 512 bytes.
fn blocks(file: &OwnedFd) -> Result<u64, Errno> {
    Ok(u64::try_from(fstat(file)?.st_blocks).unwrap_or(0))
}

impl Content {
    pub(crate) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts as an open file for a while.
    pub(crate) fn open(&self) -> impl Drop + '_ {
        self.opened();
        Opened(self)
    }

    /// What is here stays for a while, and what comes.
    pub(crate) fn pin(&self) -> impl Drop + '_ {
        self.pins.fetch_add(1, Ordering::AcqRel);
        Pinned(self)
    }

    /// One open file is gone; with the last one the data file is closed.
    pub(crate) fn closed(&self) {
        if self.opens.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut slot = self.slot.write();
            // Opened again meanwhile: it would only have to be opened again.
            if self.opens.load(Ordering::Acquire) == 0 {
                self.close(&mut slot);
            }
        }
    }

    /// Closes the data file, for who has it alone.
    pub(crate) fn close(&self, slot: &mut Slot) {
        *slot = None;
        if let Some(map) = self.map.get() {
            map.closed();
        }
    }

    /// Of an inode that is new.
    pub(crate) fn is_new(&self) {
        self.unpromised.store(true, Ordering::Release);
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

struct Opened<'a>(&'a Content);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

struct Pinned<'a>(&'a Content);

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Core {
    /// Allocated blocks of an inode that is not in memory, also of what is elsewhere.
    pub(crate) fn blocks_of(&self, ino: u64, size: u64, file: &OwnedFd) -> Result<u64> {
        let here = blocks(file)?;
        let Some(live) = self.live.as_deref() else {
            return Ok(here);
        };
        let map = live.dirty.map(ino);
        let data = all_data(file, size)?;
        map.opened(|| live.shipped.ranges(ino, size), &data)?;
        let elsewhere = map.missing_bytes() / 512;
        map.closed();
        Ok(here.saturating_add(elsewhere))
    }
}

impl Inode {
    /// In a volume in a bucket: what of the content is here and what is there.
    pub(crate) fn live(&self) -> Option<(&Live, &Arc<ContentMap>)> {
        let live = self.core.live.as_deref()?;
        let map = self.content.map.get_or_init(|| live.dirty.map(self.ino));
        Some((live, map))
    }

    /// Allocated blocks, also of what is elsewhere, if the data file is open and nobody has it alone.
    pub(crate) fn blocks_now(&self) -> Option<u64> {
        let slot = self.content.slot.try_read_recursive()?;
        self.blocks_of(slot.as_ref()?).ok()
    }

    /// Allocated blocks, also of what is elsewhere.
    pub(crate) fn blocks_of(&self, file: &OwnedFd) -> Result<u64, Errno> {
        let here = blocks(file)?;
        let elsewhere = self.live().map_or(0, |(_, map)| map.missing_bytes());
        Ok(here.saturating_add(elsewhere / 512))
    }

    /// Whether any part of a range is in a bucket alone, for who has the content shared or alone.
    pub(crate) fn misses(&self, range: &Range<u64>) -> bool {
        self.live().is_some_and(|(_, map)| map.misses(range))
    }

    /// The parts of a range that are in a bucket alone, by who has the content shared or alone.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.live()
            .map(|(_, map)| map.missing(range))
            .unwrap_or_default()
    }

    /// After a write that ended before all of it was done: takes back what was to be written over, of ranges that were
    /// missing, from a block in the middle of which it ended on. Answers up to where the write counts.
    pub(crate) fn give_back(
        &self,
        file: Option<&Arc<OwnedFd>>,
        missing: &[Range<u64>],
        end: u64,
    ) -> Result<u64> {
        let (Some((live, map)), Some(file)) = (self.live(), file) else {
            return Ok(end);
        };
        let mut kept = end;
        for part in missing {
            let start = part.start.max(down(end));
            if start >= part.end {
                continue;
            }
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, flags, start, part.end.saturating_sub(start))?;
            map.is_missing_again(&live.dirty, &(start..part.end));
            kept = kept.min(start.max(part.start));
        }
        Ok(kept)
    }

    /// Removes the data file of an inode whose content the bucket has, unless somebody uses it or, where `idle` files stay,
    /// has it open. True: it is gone.
    ///
    /// Who has the file open finds its content missing, and what was here of it is read to the end by who has the descriptor.
    pub(crate) fn evict(&self, idle: Idle) -> Result<bool> {
        let mut slot = self.content.slot.write();
        let count = |users: &AtomicUsize| users.load(Ordering::Acquire);
        let content = &self.content;
        let used = count(&content.pins) > 0 || (idle == Idle::Stays && count(&content.opens) > 0);
        let stays = {
            let state = self.state.read();
            state.row.links == 0 || state.pending == Pending::Content
        };
        if used || stays || !self.is_shipped() {
            return Ok(false);
        }
        self.content.close(&mut slot);
        self.core.data.remove(self.ino)?;
        // The next one is another file.
        self.content.named.store(false, Ordering::Release);
        self.content.changed();
        self.core.failpoints.reach("evicted");
        Ok(true)
    }

    /// Prepares a change of the content in a range, `written` unless a hole is made. The caller passes the cut, and has
    /// the content shared, or alone where anything of the range is missing.
    pub(crate) fn about_to_change(
        &self,
        file: &OwnedFd,
        range: &Range<u64>,
        written: bool,
    ) -> Result<(), Errno> {
        let Some((live, map)) = self.live() else {
            return Ok(());
        };
        let aside = || self.core.data.nameless();
        map.change(&live.dirty, file, range, written, aside)?;
        live.rounds.content_changed(live.dirty.bytes());
        Ok(())
    }

    /// Notes in the journal, before it happens, that a change of a range may leave holes in the blocks around it, but for
    /// those that are in the bucket alone. Without the note a start after a kill takes a hole for content that is
    /// in the bucket, and finds there what the range was at the last cut.
    pub(crate) fn note_holes(
        &self,
        range: &Range<u64>,
        elsewhere: &[Range<u64>],
        purpose: Purpose,
    ) -> Result<()> {
        if self.core.live.is_none() {
            return Ok(());
        }
        let elsewhere: RangeSet = elsewhere.iter().cloned().collect();
        for some in elsewhere.gaps(&around(range)).chunks(HOLES_IN_A_RECORD) {
            let holes = some
                .iter()
                .map(|hole| Change::Hole(self.ino, hole.start, hole.end));
            self.core.commit(holes.collect(), purpose)?;
        }
        Ok(())
    }

    /// Gets ready for holes that [were noted](Self::note_holes) by what `ready` does. Where that fails they are not made after
    /// all, and the bucket is told what is there. Until then the data file may not make room, since a start after a kill would find
    /// the holes.
    ///
    /// # Errors
    /// Those of `ready`.
    pub(crate) fn ready_for_holes(
        &self,
        range: &Range<u64>,
        elsewhere: &[Range<u64>],
        ready: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        ready().inspect_err(|_| {
            if let Some((live, map)) = self.live() {
                let elsewhere: RangeSet = elsewhere.iter().cloned().collect();
                for hole in elsewhere.gaps(&around(range)) {
                    map.was_hole(&live.dirty, &hole);
                }
                live.rounds.touched();
            }
        })
    }

    /// Whether content that was synced here is here alone. Before the data file loses any of it, the record of that
    /// [has to be on the disk](Self::keep_order).
    fn is_promised_here(&self) -> bool {
        let here_alone = self
            .live()
            .is_some_and(|(live, _)| live.is_durable_here() && live.dirty.is_dirty(self.ino));
        here_alone && !self.content.unpromised.load(Ordering::Acquire)
    }

    /// What has to be done before [`keep_order`](Self::keep_order), by who has no content.
    pub(crate) fn before_order(&self) -> Result<()> {
        match self.is_promised_here() {
            true => self.core.sync_content_first(),
            false => Ok(()),
        }
    }

    /// Makes durable what the journal has of a change of content that was synced, before the data file changes. Else a
    /// power cut may leave that without the record: then a hole is taken for what the bucket has, which is older,
    /// and an end that is gone for zeros.
    pub(crate) fn keep_order(&self, note: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.is_promised_here() {
            return Ok(());
        }
        note()?;
        self.core.failpoints.reach("loss of content noted");
        self.core.meta.sync()
    }

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
            // All of it is in the bucket.
            Err(Errno::NOENT) if self.is_elsewhere() => {
                let size = self.state.read().row.size;
                self.core.data.make_file(self.ino, size)?
            }
            Err(Errno::NOENT) => {
                let lost = std::io::Error::other(format!(
                    "the data file of inode {} is not there: see `vfsd volume check`",
                    self.ino
                ));
                return Err(vfsd_backend::Error::Storage(Box::new(lost)));
            }
            other => other?,
        };
        self.core.failpoints.reach("data file open");
        let mut size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if let Some((live, map)) = self.live() {
            if make {
                map.made();
            } else {
                size = self.open_map(live, map, &file, size)?;
            }
        }
        let mut state = self.state.write();
        state.row.has_data = true;
        // They differ after a power cut only, where what was written last was not made durable.
        if state.pending != Pending::Content && state.row.size != size {
            self.core.usage.resized(state.row.size, size);
            state.row.size = size;
        }
        Ok(file)
    }

    /// Whether a data file that is not there has nothing that is not in the bucket: no data. A start after a kill finds holes
    /// that the bucket does not have, also where the cache let go of the data file.
    fn is_elsewhere(&self) -> bool {
        self.live().is_some_and(|(_, map)| !map.was_written())
    }

    /// Whether the bucket has all of the content, and the holes in it.
    fn is_shipped(&self) -> bool {
        self.live()
            .is_some_and(|(live, _)| !live.dirty.is_dirty(self.ino))
    }

    /// Finds out what is missing in the data file, and gives it its size if it is new.
    fn open_map(&self, live: &Live, map: &ContentMap, file: &OwnedFd, size: u64) -> Result<u64> {
        let size = {
            let state = self.state.read();
            match state.pending {
                Pending::Content => size,
                _ if state.row.size == size => size,
                _ => {
                    ftruncate(file, state.row.size)?;
                    self.core.failpoints.reach("data file has its size");
                    state.row.size
                }
            }
        };
        let here = all_data(file, size)?;
        map.opened(|| live.shipped.ranges(self.ino, size), &here)?;
        Ok(size)
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
            .commit(vec![Change::Unsettled(self.ino, true)], purpose)?;
        state.pending = Pending::Content;
        Ok(())
    }

    /// Takes note that content up to `end` was written, by who passes the cut.
    pub(crate) fn content_written(
        &self,
        _: &Passing<'_>,
        end: u64,
        kill_privileges: bool,
    ) -> Result<()> {
        self.content.changed();
        let (marked, loses) = {
            let mut state = self.state.write();
            let before = state.row.size;
            state.row.size = before.max(end);
            self.core.usage.resized(before, state.row.size);
            state.content_changed();
            (state.pending == Pending::Content, state.has_privileges())
        };
        if !marked {
            // Somebody wrote the row meanwhile, without what was written here.
            self.mark_unsettled(Purpose::Freeing)?;
        }
        if loses {
            self.lose_privileges(kill_privileges)?;
        }
        Ok(())
    }

    /// Takes away what was granted to other content.
    fn lose_privileges(&self, set_id: bool) -> Result<()> {
        let mut txn = Txn::within(&self.core);
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
        let _passing = self.core.pass_now();
        self.settle_within()
    }

    /// As [`settle`](Self::settle), by who passes the cut or has it alone.
    pub(crate) fn settle_within(&self) -> Result<()> {
        self.content.awaited.store(false, Ordering::Release);
        {
            let state = self.state.read();
            // What has no name is not looked at after the next start.
            if state.pending == Pending::Nothing || state.row.links == 0 {
                return Ok(());
            }
        }
        let mut txn = Txn::within(&self.core);
        txn.gives_space_back();
        txn.state(self);
        txn.commit()
    }

    /// Makes content and row durable on this host, and everything that was done before.
    pub(crate) fn sync(&self) -> Result<()> {
        self.settle()?;
        self.sync_data()?;
        self.core.sync_meta()
    }

    /// Makes the content durable.
    pub(crate) fn sync_data(&self) -> Result<()> {
        let content = &self.content;
        content.unpromised.store(false, Ordering::Release);
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
                self.core.failpoints.reach("name synced");
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
