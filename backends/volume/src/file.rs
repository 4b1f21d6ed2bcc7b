//! An open regular file.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, copy_file_range, fallocate, fstat, seek};
use vfsd_backend::posix::OpenFileId;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, CopyRange, Errno, Error, Extent, FallocateMode, File,
    HeldLock, LockKind, LockOwner, LockRequest, LockStyle, OpenFlags, ReadRequest, ReadSink,
    Result, SeekFrom, Wait, WriteRequest, WriteSource,
};

use crate::inode::Inode;
use crate::meta::Purpose;
use crate::node::VolumeNode;
use crate::txn::Txn;

/// Reads stop short in the middle of a file at a multiple of this; elsewhere it is the end.
const PAGE: u64 = 4096;
/// Copies of this length are over at once, unless the source has to be read from a disk.
const SMALL_COPY: u64 = 1 << 20;

pub(crate) struct OpenFile {
    node: VolumeNode,
    id: OpenFileId,
    flags: OpenFlags,
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
            Some(file) => read_some(file, request, sink, Wait::Refused),
            None if self.inode().state.read().row.has_data => Ok(Progress::Waits(0)),
            None => Ok(Progress::Done(0)),
        }
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
        let done = if self.flags.contains(OpenFlags::APPEND) && !request.cached {
            let slot = inode.alone(true)?;
            let offset = inode.state.read().row.size;
            let request = WriteRequest { offset, ..request };
            self.write_at(slot.as_ref(), request, source)?
        } else {
            let slot = inode.shared(true)?;
            self.write_at(slot.as_ref(), request, source)?
        };
        if self.flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC) {
            inode.sync()?;
        }
        Ok(done)
    }

    fn write_at(
        &self,
        file: Option<&Arc<OwnedFd>>,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let file = file.ok_or(Errno::IO)?;
        let inode = self.inode();
        inode.mark_unsettled(Purpose::Usual)?;
        inode.settle_later();
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
        if done > 0 {
            inode.content_written(end, request.kill_privileges)?;
        }
        result
    }

    fn change_allocation(&self, mode: FallocateMode, offset: u64, length: u64) -> Result<()> {
        self.check_open_for(OpenFlags::WRITE)?;
        let inode = self.inode();
        check_fallocate(inode, mode)?;
        let slot = inode.alone(true)?;
        let file = slot.as_ref().ok_or(Errno::IO)?;
        inode.mark_unsettled(Purpose::Usual)?;
        let flags = FallocateFlags::from_bits_retain(mode.bits());
        let done = rustix::io::retry_on_intr(|| fallocate(file, flags, offset, length));
        inode.content.changed();
        let stat = fstat(file)?;
        let mut txn = Txn::new(&inode.core);
        let state = txn.state(inode);
        state.row.size = u64::try_from(stat.st_size).unwrap_or(0);
        state.row.blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        // The file system knows neither the mode nor so large a file.
        if !matches!(done, Err(Errno::OPNOTSUPP | Errno::FBIG)) {
            // FUSE does not tell whether the caller is privileged. As on ext4 this is lost, and the
            // times move, also when the range is then refused.
            state.clear_set_id();
            state.content_changed();
            txn.drop_capability(inode);
        }
        txn.commit()?;
        Ok(done?)
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
        let length = copy.length.min(size.saturating_sub(copy.offset));
        let distance = copy.offset.abs_diff(copy.target_offset);
        if from.ino == to.ino && length > 0 && distance < length {
            return Err(Errno::INVAL.into());
        }
        if length == 0 {
            return Ok(0);
        }
        let source = from.shared(false)?;
        let sink = to.shared_beside(true)?;
        let (Some(source), Some(sink)) = (source.as_ref(), sink.as_ref()) else {
            return Ok(0);
        };
        to.mark_unsettled(Purpose::Usual)?;
        to.settle_later();
        self.was_read();
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
        if done > 0 {
            // FUSE does not tell whether the caller is privileged.
            to.content_written(copy.target_offset.saturating_add(done), true)?;
        }
        result
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
            Ok(Progress::Waits(done)) => {
                Answer::blocking(move || self.read_waiting(request, sink, done))
            }
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
            return Answer::blocking(move || self.write_from(request, source));
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
        Answer::blocking(|| self.inode().sync())
    }

    fn release(&self) -> Answer<'_, ()> {
        Answer::brief(|| self.inode().settle())
    }

    fn fallocate(&self, mode: FallocateMode, offset: u64, length: u64) -> Answer<'_, ()> {
        Answer::brief(move || self.change_allocation(mode, offset, length))
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        Answer::brief(move || {
            let slot = self.inode().shared(false)?;
            let file = slot.as_ref().ok_or(Errno::NXIO)?;
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
