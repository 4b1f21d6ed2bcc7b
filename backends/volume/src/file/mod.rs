//! An open regular file.

mod allocate;
mod copy;
mod read;
mod seek;
mod write;

use std::any::Any;
use std::sync::Arc;

use rustix::fs::seek;
use vfsd_backend::posix::OpenFileId;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, CopyRange, Errno, Extent, FallocateRequest, File,
    HeldLock, LockKind, LockOwner, LockRequest, LockStyle, OpenFlags, ReadRequest, ReadSink,
    Result, SeekFrom, WriteRequest, WriteSource,
};

use self::read::Progress;
use crate::inode::Inode;
use crate::live::ranges::END;
use crate::live::readahead::Readahead;
use crate::node::VolumeNode;

/// Copies of this length are over at once, unless the source has to be read from a disk.
const SMALL_COPY: u64 = 1 << 20;

pub(crate) struct OpenFile {
    node: VolumeNode,
    id: OpenFileId,
    flags: OpenFlags,
    ahead: Readahead,
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

    /// EBADF where fcntl(2) wants the file open in another way.
    fn check_lockable(&self, request: &LockRequest) -> Result<(), Errno> {
        match (request.style, request.kind) {
            (LockStyle::Posix, Some(LockKind::Read)) => self.check_open_for(OpenFlags::READ),
            (LockStyle::Posix, Some(LockKind::Write)) => self.check_open_for(OpenFlags::WRITE),
            _ => Ok(()),
        }
    }
}

impl File for OpenFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        match self.read_now(request, sink) {
            Ok(Progress::Waits(done)) if self.inode().live().is_none() => {
                let read = move || self.read_waiting(request, sink, done);
                Answer::blocking(read).map(move |read| read.unwrap_or(done))
            }
            Ok(Progress::Waits(done)) => Answer::later(self.read_fetched(request, sink, done)),
            Ok(Progress::Done(done)) => {
                if let Some((live, _)) = self.inode().live() {
                    live.cache.hit();
                }
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
            tracing::warn!(parent: &inode.core.span, inode = inode.ino, %error, "volume: size and times were not written");
        }
        inode.content.closed();
    }
}
