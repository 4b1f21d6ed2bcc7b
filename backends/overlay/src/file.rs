//! An open file of the overlay.

use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Extent, File, HeldLock, LockOwner, LockRequest, ReadRequest, ReadSink,
    SeekFrom,
};

use crate::node::OverlayNode;

/// An open file of the overlay: the open file of the layer that it is in, under the overlay's inode number.
pub(crate) struct OverlayFile {
    node: Arc<OverlayNode>,
    file: Arc<dyn File>,
}

impl OverlayFile {
    pub(crate) fn new(node: Arc<OverlayNode>, file: Arc<dyn File>) -> Self {
        Self { node, file }
    }
}

impl File for OverlayFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        self.file.read(request, sink)
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.file
            .getattr()
            .map(|attributes| self.node.shown(attributes))
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        self.file.flush(owner)
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        self.file.fsync(data_only)
    }

    fn release(&self) -> Answer<'_, ()> {
        self.file.release()
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        self.file.seek(from, offset)
    }

    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        self.file.extent(offset, length)
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        self.file.getlk(request)
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        self.file.setlk(request)
    }
}
