//! An open regular file.

use std::any::Any;
use std::ops::Range;

use vfsd_backend::posix::OpenFileId;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, BufferSink, CopyRange, Errno, FallocateMode,
    FallocateRequest, File, HeldLock, LockKind, LockOwner, LockRequest, LockStyle, OpenFlags,
    ReadRequest, ReadSink, Result, SeekFrom, SliceSource, WriteRequest, WriteSource,
};

use crate::content::MAX_FILE_BYTES;
use crate::inode::State;
use crate::node::MemoryNode;

/// How much is copied between two files in one go.
const COPY_BYTES: usize = 64 * 1024;
/// Work on more bytes than this is not done by a thread that serves a queue.
const LARGE_BYTES: u64 = 4 * 1024 * 1024;

pub(crate) struct OpenFile {
    node: MemoryNode,
    id: OpenFileId,
    flags: OpenFlags,
}

/// Does work that takes time in proportion to `bytes`.
fn in_proportion<'a, T>(bytes: u64, work: impl FnOnce() -> Result<T> + Send + 'a) -> Answer<'a, T> {
    if bytes > LARGE_BYTES {
        Answer::blocking(work)
    } else {
        Answer::now(work)
    }
}

impl OpenFile {
    pub(crate) fn new(node: MemoryNode, id: OpenFileId, flags: OpenFlags) -> Self {
        Self { node, id, flags }
    }

    /// EBADF unless the file is open for `needed`.
    fn check_open_for(&self, needed: OpenFlags) -> Result<(), Errno> {
        if self.flags.contains(needed) {
            Ok(())
        } else {
            Err(Errno::BADF)
        }
    }

    fn read_into(&self, request: ReadRequest, sink: &mut dyn ReadSink) -> Result<usize> {
        self.check_open_for(OpenFlags::READ)?;
        let inode = self.node.inode();
        let done = inode
            .state
            .read()
            .content()?
            .read(request.offset, request.length, sink)?;
        if !self.flags.contains(OpenFlags::NOATIME) {
            inode.touch_access_time();
        }
        Ok(done)
    }

    fn write_from(&self, request: WriteRequest, source: &mut dyn WriteSource) -> Result<usize> {
        self.check_open_for(OpenFlags::WRITE)?;
        let inode = self.node.inode();
        let mut state = inode.state.write();
        if state.flags.is_immutable() {
            return Err(Errno::PERM.into());
        }
        let offset = if self.flags.contains(OpenFlags::APPEND) && !request.cached {
            state.content()?.size()
        } else {
            request.offset
        };
        let done = state.content_mut()?.write(offset, source, &inode.space)?;
        if done > 0 {
            if request.kill_privileges {
                state.clear_set_id();
            }
            state.drop_capability(&inode.space);
            state.content_changed();
        }
        Ok(done)
    }

    fn change_allocation(&self, request: FallocateRequest) -> Result<(), Errno> {
        let mode = request.mode;
        let range = &(request.offset..request.offset.saturating_add(request.length));
        self.check_open_for(OpenFlags::WRITE)?;
        let inode = self.node.inode();
        let space = &inode.space;
        let mut state = inode.state.write();
        check_fallocate(&state, mode)?;
        if range.end > MAX_FILE_BYTES {
            return Err(Errno::FBIG);
        }
        // As on ext4 this is lost, and the times move, also when the range is then refused.
        if request.kill_privileges {
            state.clear_all_set_id();
        }
        state.drop_capability(space);
        state.content_changed();
        let content = state.content_mut()?;
        let grows = !mode.contains(FallocateMode::KEEP_SIZE);
        match mode.difference(FallocateMode::KEEP_SIZE) {
            FallocateMode::PUNCH_HOLE => content.punch(range, space),
            FallocateMode::COLLAPSE_RANGE => content.collapse(range, space)?,
            FallocateMode::INSERT_RANGE => content.insert(range)?,
            FallocateMode::ZERO_RANGE => {
                content.zero(range, space)?;
                if grows {
                    content.extend_to(range.end);
                }
            }
            _ => {
                content.reserve(range, space)?;
                if grows {
                    content.extend_to(range.end);
                }
            }
        }
        Ok(())
    }

    /// Copies by way of a buffer, a part at a time: writers in between may be seen, as copy_file_range(2)
    /// allows.
    fn copy_to(&self, target: &Self, copy: &CopyRange<'_>) -> Result<u64> {
        self.check_open_for(OpenFlags::READ)?;
        target.check_open_for(OpenFlags::WRITE)?;
        if target.flags.contains(OpenFlags::APPEND) {
            return Err(Errno::BADF.into());
        }
        let (from, to) = (self.node.inode(), target.node.inode());
        if !std::ptr::eq(self.node.file_system(), target.node.file_system()) {
            return Err(Errno::XDEV.into());
        }
        if to.state.read().flags.is_immutable() {
            return Err(Errno::PERM.into());
        }
        let size = from.state.read().content()?.size();
        let length = copy.length.min(size.saturating_sub(copy.offset));
        let distance = copy.offset.abs_diff(copy.target_offset);
        if from.number == to.number && length > 0 && distance < length {
            return Err(Errno::INVAL.into());
        }
        let mut buffer = vec![0; COPY_BYTES];
        let mut done: u64 = 0;
        while done < length {
            let step = self.copy_part(target, copy, done..length, &mut buffer);
            match step {
                Ok(0) => break,
                Ok(copied) => done = done.saturating_add(copied),
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Copies what is left of a range, but not more than fits into `buffer`.
    fn copy_part(
        &self,
        target: &Self,
        copy: &CopyRange<'_>,
        left: Range<u64>,
        buffer: &mut [u8],
    ) -> Result<u64> {
        let wanted = left.end.saturating_sub(left.start);
        let wanted = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut sink = BufferSink::new(buffer);
        let request = ReadRequest {
            offset: copy.offset.saturating_add(left.start),
            length: wanted,
        };
        let read = self.read_into(request, &mut sink)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let request = WriteRequest {
            offset: copy.target_offset.saturating_add(left.start),
            kill_privileges: copy.kill_privileges,
            cached: false,
        };
        let written = target.write_from(request, &mut SliceSource::new(bytes))?;
        Ok(u64::try_from(written).unwrap_or(0))
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

/// Which modes there are: `vfs_fallocate` and `ext4_fallocate` of the kernel.
fn check_fallocate(state: &State, mode: FallocateMode) -> Result<(), Errno> {
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
    if state.flags.is_immutable() || (state.flags.is_append_only() && !what.is_empty()) {
        return Err(Errno::PERM);
    }
    Ok(())
}

impl File for OpenFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        Answer::now(|| self.read_into(request, sink))
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        Answer::now(|| self.write_from(request, source))
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.node.inode().attributes())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        Answer::now(|| {
            // ftruncate(2) has its own answer for a file that is not open for writing.
            if changes.size.is_some() && !self.flags.contains(OpenFlags::WRITE) {
                return Err(Errno::INVAL.into());
            }
            self.node.change_attributes(changes)
        })
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        self.node.inode().locks.release_owner(owner);
        Answer::ok(())
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }

    fn release(&self) -> Answer<'_, ()> {
        Answer::ok(())
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        in_proportion(request.length, move || Ok(self.change_allocation(request)?))
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        Answer::now(|| {
            let state = self.node.inode().state.read();
            let content = state.content()?;
            Ok(match from {
                SeekFrom::Data => content.next_data(offset)?,
                SeekFrom::Hole => content.next_hole(offset)?,
            })
        })
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        in_proportion(copy.length, move || {
            let target: &dyn Any = copy.target;
            let target = target.downcast_ref::<Self>().ok_or(Errno::XDEV)?;
            self.copy_to(target, &copy)
        })
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        Answer::ok(self.node.inode().locks.test(self.id, &request))
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        if let Err(errno) = self.check_lockable(&request) {
            return Answer::error(errno);
        }
        let locks = &self.node.inode().locks;
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
        self.node.inode().locks.release_file(self.id);
    }
}
