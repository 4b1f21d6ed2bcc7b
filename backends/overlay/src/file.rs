//! An open file of the overlay.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use vfsd_backend::posix::OpenFileId;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, CopyRange, Errno, Extent, FallocateRequest, File,
    HeldLock, LockKind, LockOwner, LockRequest, LockStyle, Node, OpenFlags, OpenRequest,
    ReadRequest, ReadSink, Result, SeekFrom, WriteRequest, WriteSource,
};

use crate::content::{Range, copy_range};
use crate::node::OverlayNode;
use crate::xattr::is_unsupported;

/// An open file of the overlay: that of the layer that the file is in. One that was opened before the file
/// was copied up is opened again in the upper when it is used next, so that it shows what is written later.
pub(crate) struct OverlayFile {
    node: Arc<OverlayNode>,
    flags: OpenFlags,
    id: OpenFileId,
    /// As it was opened.
    first: Arc<dyn File>,
    is_first_in_upper: bool,
    /// Opened again after the file was copied up.
    second: OnceLock<Arc<dyn File>>,
}

impl OverlayFile {
    pub(crate) fn new(
        node: Arc<OverlayNode>,
        first: Arc<dyn File>,
        flags: OpenFlags,
        is_first_in_upper: bool,
    ) -> Self {
        Self {
            id: OpenFileId(node.shared.next_serial()),
            node,
            flags,
            first,
            is_first_in_upper,
            second: OnceLock::new(),
        }
    }

    /// The open file of the layer that the file is in now, unless it has to be opened first.
    fn current(&self) -> Option<&Arc<dyn File>> {
        match self.is_first_in_upper || self.node.upper().is_none() {
            true => Some(&self.first),
            false => self.second.get(),
        }
    }

    /// As [`current`](Self::current), opened if need be.
    async fn opened(&self) -> Result<&Arc<dyn File>> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let upper = self.node.upper().ok_or(Errno::IO)?;
        let request = OpenRequest {
            flags: self
                .flags
                .difference(OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE),
            kill_privileges: false,
        };
        let opened = upper.open(request).await?;
        Ok(self.second.get_or_init(|| opened.file))
    }

    /// Calls the open file of the layer. A ready answer stays ready.
    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a Arc<dyn File>) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        match self.current() {
            Some(file) => call(file),
            None => Answer::later(async move { call(self.opened().await?).await }),
        }
    }

    /// Whether the file is one that locks are kept for here: nobody else uses it.
    fn keeps_locks(&self) -> bool {
        self.node.shared.upper.is_some()
    }

    /// EBADF for a byte-range lock of a kind that the file is not open for.
    fn check_lockable(&self, request: &LockRequest) -> Result<()> {
        let needed = match (request.style, request.kind) {
            (LockStyle::Posix, Some(LockKind::Read)) => OpenFlags::READ,
            (LockStyle::Posix, Some(LockKind::Write)) => OpenFlags::WRITE,
            (LockStyle::Posix, None) | (LockStyle::Flock, _) => OpenFlags::empty(),
        };
        match self.flags.contains(needed) {
            true => Ok(()),
            false => Err(Errno::BADF.into()),
        }
    }
}

impl Drop for OverlayFile {
    fn drop(&mut self) {
        if self.keeps_locks() {
            self.node.locks().release_file(self.id);
        }
    }
}

impl File for OverlayFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        match self.current() {
            Some(file) => file.read(request, sink),
            None => Answer::later(async move { self.opened().await?.read(request, sink).await }),
        }
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        match self.is_first_in_upper {
            true => self.first.write(request, source),
            // A file that is open for writing was copied up before.
            false => Answer::error(Errno::BADF),
        }
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.call(|file| file.getattr())
            .map(|attributes| self.node.shown(attributes))
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        match self.is_first_in_upper {
            true => self
                .first
                .setattr(changes)
                .map(|attributes| self.node.shown(attributes)),
            // It is not open for writing: ftruncate(2).
            false if changes.size.is_some() => Answer::error(Errno::INVAL),
            false => self.node.setattr(changes),
        }
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        if self.keeps_locks() {
            self.node.locks().release_owner(owner);
        }
        self.call(move |file| file.flush(owner))
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        self.call(move |file| file.fsync(data_only))
    }

    fn release(&self) -> Answer<'_, ()> {
        match self.second.get() {
            None => self.first.release(),
            Some(second) => self
                .first
                .release()
                .then(move |first| second.release().and_then(move |()| first)),
        }
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        match self.is_first_in_upper {
            true => self.first.fallocate(request),
            false => Answer::error(Errno::BADF),
        }
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        self.call(move |file| file.seek(from, offset))
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        let target: &dyn Any = copy.target;
        let Some(target) = target.downcast_ref::<Self>() else {
            return Answer::error(Errno::XDEV);
        };
        // The target is open for writing, so that it is in the upper.
        let target = target.first.as_ref();
        if self.is_first_in_upper {
            return self.first.copy_range(CopyRange { target, ..copy });
        }
        Answer::later(async move {
            let file = self.opened().await?;
            match file.copy_range(CopyRange { target, ..copy }).await {
                Err(error) if error.is(Errno::XDEV) || is_unsupported(&error) => {}
                other => return other,
            }
            // Of two layers that know nothing of each other.
            let range = Range {
                from: copy.offset,
                to: copy.target_offset,
                length: copy.length,
                kill_privileges: copy.kill_privileges,
            };
            copy_range(file.as_ref(), target, range).await
        })
    }

    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        self.call(move |file| file.extent(offset, length))
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        match self.keeps_locks() {
            true => Answer::ok(self.node.locks().test(self.id, &request)),
            false => self.first.getlk(request),
        }
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        if !self.keeps_locks() {
            return self.first.setlk(request);
        }
        if let Err(error) = self.check_lockable(&request) {
            return Answer::error(error);
        }
        let locks = self.node.locks();
        match locks.try_set(self.id, &request) {
            Err(Errno::AGAIN) if request.wait => {
                Answer::later(async move { Ok(locks.set(self.id, request).await?) })
            }
            result => Answer::ready(result.map_err(Into::into)),
        }
    }
}
