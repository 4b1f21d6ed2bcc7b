//! An open regular file.

use std::any::Any;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use rustix::fs::{FallocateFlags, copy_file_range, fallocate, fstat, ftruncate, seek};
use vfsd_backend::posix::OpenFileId;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, CopyRange, Errno, Error, Extent, FallocateMode,
    FallocateRequest, File, HeldLock, LockKind, LockOwner, LockRequest, LockStyle, OpenFlags,
    ReadRequest, ReadSink, Result, SeekFrom, Wait, WriteRequest, WriteSource,
};

use crate::content::Slot;
use crate::inode::Inode;
use crate::live::ranges::{END, RangeSet, around, up};
use crate::live::readahead::Readahead;
use crate::meta::Purpose;
use crate::node::VolumeNode;
use crate::txn::Txn;

/// Reads stop short in the middle of a file at a multiple of this; elsewhere it is the end.
const PAGE: u64 = 4096;
/// Copies of this length are over at once, unless the source has to be read from a disk.
const SMALL_COPY: u64 = 1 << 20;
/// In a volume in a bucket a copy goes no further at a time: all of it has to be here.
const LARGE_COPY: u64 = 64 << 20;

pub(crate) struct OpenFile {
    node: VolumeNode,
    id: OpenFileId,
    flags: OpenFlags,
    ahead: Readahead,
}

/// How far a read came.
enum Progress {
    /// To its end.
    Done(usize),
    /// To where it has to wait for a disk, or for who changes the size.
    Waits(usize),
}

impl OpenFile {
    pub(crate) fn new(node: VolumeNode, flags: OpenFlags) -> Self {
        node.inode.content.opened();
        Self {
            id: node.inode.core.new_open_file(),
            node,
            flags,
            ahead: Readahead::default(),
        }
    }

    pub(crate) fn inode(&self) -> &Arc<Inode> {
        &self.node.inode
    }

    /// EBADF unless the file is open for `needed`.
    fn check_open_for(&self, needed: OpenFlags) -> Result<(), Errno> {
        if self.flags.contains(needed) {
            Ok(())
        } else {
            Err(Errno::BADF)
        }
    }

    fn check_mutable(&self) -> Result<(), Errno> {
        if self.inode().state.read().flags().is_immutable() {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }

    fn was_read(&self) {
        if !self.flags.contains(OpenFlags::NOATIME) {
            self.inode().touch_access_time();
        }
    }

    /// Reads what is in the page cache.
    fn read_now(&self, request: ReadRequest, sink: &mut dyn ReadSink) -> Result<Progress> {
        self.check_open_for(OpenFlags::READ)?;
        let Some(slot) = self.inode().content.try_shared() else {
            return Ok(Progress::Waits(0));
        };
        match slot.as_ref() {
            Some(_) if self.misses(request) => Ok(Progress::Waits(0)),
            Some(file) => read_some(file, request, sink, Wait::Refused),
            None if self.inode().state.read().row.has_data => Ok(Progress::Waits(0)),
            None => Ok(Progress::Done(0)),
        }
    }

    /// Whether anything of what is to be read is in a bucket alone.
    fn misses(&self, request: ReadRequest) -> bool {
        let Some((_, map)) = self.inode().live() else {
            return false;
        };
        if map.is_whole() {
            return false;
        }
        self.ahead.read(self.inode(), request);
        map.misses(&read_range(request))
    }

    /// Reads the rest, of which `done` bytes were read.
    fn read_waiting(
        &self,
        request: ReadRequest,
        sink: &mut dyn ReadSink,
        done: usize,
    ) -> Result<usize> {
        let rest = ReadRequest {
            offset: request.offset.saturating_add(done as u64),
            length: request.length.saturating_sub(done),
        };
        let read = match self.inode().shared(false)?.as_ref() {
            Some(file) => read_some(file, rest, sink, Wait::Allowed),
            None => Ok(Progress::Done(0)),
        };
        self.was_read();
        match read {
            Ok(Progress::Done(more) | Progress::Waits(more)) => Ok(done.saturating_add(more)),
            Err(_) if done > 0 => Ok(done),
            Err(error) => Err(error),
        }
    }

    fn write_from(&self, request: WriteRequest, source: &mut dyn WriteSource) -> Result<usize> {
        self.check_open_for(OpenFlags::WRITE)?;
        self.check_mutable()?;
        if source.remaining() == 0 {
            return Ok(0);
        }
        let inode = self.inode();
        if inode.live().is_some() {
            return self.write_over(request, source);
        }
        if self.flags.contains(OpenFlags::APPEND) && !request.cached {
            let slot = inode.alone(true)?;
            let offset = inode.state.read().row.size;
            let request = WriteRequest { offset, ..request };
            self.write_at(slot.as_ref(), request, source)
        } else {
            let slot = inode.shared(true)?;
            self.write_at(slot.as_ref(), request, source)
        }
    }

    /// Writes where content may be in a bucket alone.
    fn write_over(&self, request: WriteRequest, source: &mut dyn WriteSource) -> Result<usize> {
        let inode = self.inode();
        let appends = self.flags.contains(OpenFlags::APPEND) && !request.cached;
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let mut alone = appends;
        loop {
            let (writing, shared) = match alone {
                true => (Some(inode.alone(true)?), None),
                false => (None, Some(inode.shared(true)?)),
            };
            let file = match (&writing, &shared) {
                (Some(slot), _) => slot.as_ref(),
                (_, Some(slot)) => slot.as_ref(),
                _ => None,
            };
            let size = inode.state.read().row.size;
            let offset = if appends { size } else { request.offset };
            let range = offset..offset.saturating_add(length);
            let Some((_, map)) = inode.live() else {
                return Err(Errno::IO.into());
            };
            if !map.misses(&range) {
                let request = WriteRequest { offset, ..request };
                return self.write_at(file, request, source);
            }
            if let Some(edge) = edges(&range, size)
                .into_iter()
                .find(|edge| map.misses(edge))
            {
                drop((writing, shared));
                inode.fetch_now(&edge)?;
            } else if alone {
                let request = WriteRequest { offset, ..request };
                return self.write_missing(file, request, source);
            } else {
                // Nobody may read meanwhile: neither the old content nor the new is here.
                alone = true;
            }
        }
    }

    /// Writes over blocks that are in a bucket alone, by who has the content alone.
    fn write_missing(
        &self,
        file: Option<&Arc<OwnedFd>>,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let inode = self.inode();
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let range = request.offset..request.offset.saturating_add(length);
        let missing = inode
            .live()
            .map(|(_, map)| map.missing(&range))
            .unwrap_or_default();
        let result = self.write_at(file, request, source);
        let done = *result.as_ref().unwrap_or(&0) as u64;
        if done == length {
            return result;
        }
        // What was not written is where it was.
        let end = request.offset.saturating_add(done);
        let kept = inode.give_back(file, &missing, end)?;
        match kept.saturating_sub(request.offset).min(done) {
            0 => result.and(Err(Errno::IO.into())),
            kept => Ok(usize::try_from(kept).unwrap_or(0)),
        }
    }

    fn write_at(
        &self,
        file: Option<&Arc<OwnedFd>>,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let file = file.ok_or(Errno::IO)?;
        let inode = self.inode();
        let passing = inode.core.pass();
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let range = request.offset..request.offset.saturating_add(length);
        let size = || inode.state.read().row.size;
        inode.core.usage.may_reach(range.end, size)?;
        inode.mark_unsettled(Purpose::Usual)?;
        inode.about_to_change(file, &range, true)?;
        inode.settle_later();
        inode.core.failpoints.reach("write noted");
        let mut done: usize = 0;
        let mut end = request.offset;
        let result = loop {
            if source.remaining() == 0 {
                break Ok(done);
            }
            match source.take_into(file.as_fd(), end, Wait::Allowed) {
                Ok(0) => break Ok(done),
                Ok(count) => {
                    done = done.saturating_add(count);
                    end = request.offset.saturating_add(done as u64);
                }
                Err(error) if error.is(Errno::INTR) => {}
                Err(_) if done > 0 => break Ok(done),
                Err(error) => break Err(error),
            }
        };
        inode.core.failpoints.reach("written");
        if done > 0 {
            inode.content_written(&passing, end, request.kill_privileges)?;
        }
        result
    }

    fn change_allocation(&self, request: FallocateRequest) -> Result<()> {
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
            inode.keep_order(|| Ok(()))?;
            inode.about_to_change(file, hole, false)?;
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

    fn copy_to(&self, target: &Self, copy: &CopyRange<'_>) -> Result<u64> {
        self.check_open_for(OpenFlags::READ)?;
        target.check_open_for(OpenFlags::WRITE)?;
        if target.flags.contains(OpenFlags::APPEND) {
            return Err(Errno::BADF.into());
        }
        let (from, to) = (self.inode(), target.inode());
        if !Arc::ptr_eq(&from.core, &to.core) {
            return Err(Errno::XDEV.into());
        }
        target.check_mutable()?;
        let size = from.state.read().row.size;
        let mut length = copy.length.min(size.saturating_sub(copy.offset));
        if from.live().is_some() {
            length = length.min(LARGE_COPY);
        }
        let distance = copy.offset.abs_diff(copy.target_offset);
        if from.ino == to.ino && length > 0 && distance < length {
            return Err(Errno::INVAL.into());
        }
        if length == 0 {
            return Ok(0);
        }
        let range = copy.target_offset..copy.target_offset.saturating_add(length);
        to.before_order()?;
        if from.live().is_some() {
            from.fetch_now(&(copy.offset..copy.offset.saturating_add(length)))?;
            drop(to.shared(true)?);
            to.fetch_now(&range)?;
        }
        let source = from.shared(false)?;
        let sink = to.shared_beside(true)?;
        let (Some(source), Some(sink)) = (source.as_ref(), sink.as_ref()) else {
            return Ok(0);
        };
        self.was_read();
        let usage = &to.core.usage;
        usage.may_reach(range.end, || to.state.read().row.size)?;
        let passing = to.core.pass();
        to.mark_unsettled(Purpose::Usual)?;
        to.settle_later();
        // Holes may be copied as such.
        to.note_holes(&range, &[], Purpose::Usual)?;
        to.keep_order(|| Ok(()))?;
        to.about_to_change(sink, &range, true)?;
        let mut done: u64 = 0;
        let (mut read_at, mut write_at) = (copy.offset, copy.target_offset);
        let result = loop {
            let left = usize::try_from(length.saturating_sub(done)).unwrap_or(usize::MAX);
            if left == 0 {
                break Ok(done);
            }
            let (read, write) = (Some(&mut read_at), Some(&mut write_at));
            match copy_file_range(source, read, sink, write, left) {
                Ok(0) => break Ok(done),
                Ok(count) => done = done.saturating_add(count as u64),
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break Ok(done),
                Err(errno) => break Err(errno.into()),
            }
        };
        to.core.failpoints.reach("copied");
        if done > 0 {
            to.content_written(
                &passing,
                copy.target_offset.saturating_add(done),
                copy.kill_privileges,
            )?;
        }
        result
    }

    /// The next data or hole of a file of which some ranges are in a bucket alone: data, all of them.
    fn seek_elsewhere(
        &self,
        file: &OwnedFd,
        from: SeekFrom,
        offset: u64,
        missing: &[Range<u64>],
    ) -> Result<u64> {
        let size = self.inode().state.read().row.size;
        if offset >= size {
            return Err(Errno::NXIO.into());
        }
        match from {
            SeekFrom::Data => {
                let elsewhere = missing.first().map(|part| part.start);
                match (seek(file, rustix::fs::SeekFrom::Data(offset)), elsewhere) {
                    (Ok(here), Some(there)) => Ok(here.min(there)),
                    (Err(Errno::NXIO), Some(there)) => Ok(there),
                    (here, _) => Ok(here?),
                }
            }
            SeekFrom::Hole => {
                let mut at = offset;
                while at < size {
                    if let Some(part) = missing.iter().find(|part| part.contains(&at)) {
                        at = part.end;
                        continue;
                    }
                    let hole = seek(file, rustix::fs::SeekFrom::Hole(at))?;
                    if hole == at {
                        break;
                    }
                    at = hole;
                }
                Ok(at.min(size))
            }
        }
    }

    /// EBADF where fcntl(2) wants the file open in another way.
    fn check_lockable(&self, request: &LockRequest) -> Result<(), Errno> {
        match (request.style, request.kind) {
            (LockStyle::Posix, Some(LockKind::Read)) => self.check_open_for(OpenFlags::READ),
            (LockStyle::Posix, Some(LockKind::Write)) => self.check_open_for(OpenFlags::WRITE),
            _ => Ok(()),
        }
    }
}

/// Reads until the range, or the file, ends. EAGAIN only before anything was read.
fn read_some(
    file: &OwnedFd,
    request: ReadRequest,
    sink: &mut dyn ReadSink,
    wait: Wait,
) -> Result<Progress> {
    let mut done: usize = 0;
    while done < request.length {
        let offset = request.offset.saturating_add(done as u64);
        let left = request.length.saturating_sub(done);
        match sink.put_from(file.as_fd(), offset, left, wait) {
            Ok(0) => return Ok(Progress::Done(done)),
            Ok(count) => {
                done = done.saturating_add(count);
                let end = request.offset.saturating_add(done as u64);
                if !end.is_multiple_of(PAGE) {
                    return Ok(Progress::Done(done));
                }
            }
            Err(error) if must_wait(&error, wait) => return Ok(Progress::Waits(done)),
            Err(error) if error.is(Errno::INTR) => {}
            // What was read is answered; the error comes again when the rest is read.
            Err(_) if done > 0 => return Ok(Progress::Done(done)),
            Err(error) => return Err(error),
        }
    }
    Ok(Progress::Done(done))
}

fn must_wait(error: &Error, wait: Wait) -> bool {
    wait == Wait::Refused && (error.is(Errno::AGAIN) || error.is(Errno::OPNOTSUPP))
}

fn read_range(request: ReadRequest) -> Range<u64> {
    let length = u64::try_from(request.length).unwrap_or(u64::MAX);
    request.offset..request.offset.saturating_add(length)
}

/// Blocks that a change of a range leaves a part of, in a file of so many bytes.
fn edges(range: &Range<u64>, size: u64) -> Vec<Range<u64>> {
    let start = range.start..up(range.start);
    let end = match range.end < size {
        true => range.end..up(range.end),
        false => range.end..range.end,
    };
    [start, end]
        .into_iter()
        .filter(|edge| edge.start < edge.end)
        .collect()
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

impl File for OpenFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        match self.read_now(request, sink) {
            Ok(Progress::Waits(done)) if self.inode().live().is_none() => {
                Answer::blocking(move || self.read_waiting(request, sink, done))
            }
            Ok(Progress::Waits(done)) => Answer::later(async move {
                self.inode().fetch(read_range(request)).await?;
                Answer::blocking(move || self.read_waiting(request, sink, done)).await
            }),
            Ok(Progress::Done(done)) => {
                self.was_read();
                Answer::ok(done)
            }
            Err(error) => Answer::error(error),
        }
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        if self.flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC) {
            return Answer::later(async move {
                let done = Answer::blocking(move || self.write_from(request, source)).await?;
                if done > 0 {
                    self.inode().synced().await?;
                }
                Ok(done)
            });
        }
        Answer::brief(move || self.write_from(request, source))
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.inode().attributes())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        // ftruncate(2) has its own answer for a file that is not open for writing.
        if changes.size.is_some() && !self.flags.contains(OpenFlags::WRITE) {
            return Answer::error(Errno::INVAL);
        }
        Answer::brief(move || self.node.change_attributes(changes))
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        if let Some(locks) = self.inode().locks_if_any() {
            locks.release_owner(owner);
        }
        Answer::ok(())
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        self.inode().synced()
    }

    fn release(&self) -> Answer<'_, ()> {
        Answer::brief(|| self.inode().settle())
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        Answer::brief(move || self.change_allocation(request))
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        Answer::brief(move || {
            let slot = self.inode().shared(false)?;
            let file = slot.as_ref().ok_or(Errno::NXIO)?;
            let missing = self.inode().missing(&(offset..END));
            if !missing.is_empty() {
                return self.seek_elsewhere(file, from, offset, &missing);
            }
            // The position of the descriptor is used for nothing else.
            let position = match from {
                SeekFrom::Data => rustix::fs::SeekFrom::Data(offset),
                SeekFrom::Hole => rustix::fs::SeekFrom::Hole(offset),
            };
            Ok(seek(file, position)?)
        })
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        let length = copy.length;
        let work = move || {
            let target: &dyn Any = copy.target;
            let target = target.downcast_ref::<Self>().ok_or(Errno::XDEV)?;
            self.copy_to(target, &copy)
        };
        match length {
            ..=SMALL_COPY => Answer::brief(work),
            _ => Answer::blocking(work),
        }
    }

    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        Answer::brief(move || {
            if !self.flags.contains(OpenFlags::READ) {
                return Ok(None);
            }
            let slot = self.inode().shared(false)?;
            if !self
                .inode()
                .missing(&(offset..offset.saturating_add(length)))
                .is_empty()
            {
                return Ok(None);
            }
            let size = self.inode().state.read().row.size;
            let length = length.min(size.saturating_sub(offset));
            Ok(slot.as_ref().filter(|_| length > 0).map(|file| Extent {
                descriptor: file.clone(),
                offset,
                length,
            }))
        })
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        Answer::ok(self.inode().locks().test(self.id, &request))
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        if let Err(errno) = self.check_lockable(&request) {
            return Answer::error(errno);
        }
        let locks = self.inode().locks();
        match locks.try_set(self.id, &request) {
            Err(Errno::AGAIN) if request.wait => {
                Answer::later(async move { Ok(locks.set(self.id, request).await?) })
            }
            result => Answer::ready(result.map_err(Into::into)),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let inode = self.inode();
        if let Some(locks) = inode.locks_if_any() {
            locks.release_file(self.id);
        }
        if let Err(error) = inode.settle() {
            tracing::warn!(inode = inode.ino, %error, "volume: size and times were not written");
        }
        inode.content.closed();
    }
}
