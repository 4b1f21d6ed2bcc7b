//! An open file.

use std::any::Any;

use crate::{
    Answer, AttributeChanges, Attributes, Extent, FallocateMode, HeldLock, LockOwner, LockRequest,
    ReadSink, SeekFrom, WriteSource,
};

/// Which bytes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// First byte. `offset + length` is at most `i64::MAX`.
    pub offset: u64,
    /// How many; never more than the sink has room for.
    pub length: usize,
}

/// Where to write. The length is what the source holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRequest {
    /// First byte. `offset + length` is at most `i64::MAX`.
    pub offset: u64,
    /// Clear set-id bits and `security.capability`, because the caller is not privileged.
    pub kill_privileges: bool,
    /// The data come from the guest's page cache, for instance from a mapping. They go to `offset`
    /// also in a file that was opened to append.
    pub cached: bool,
}

/// Which space of a file to allocate or take away, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallocateRequest {
    /// What is done to the range.
    pub mode: FallocateMode,
    /// First byte. `offset + length` is at most `i64::MAX`.
    pub offset: u64,
    /// How many bytes: at least 1.
    pub length: u64,
    /// Clear set-id bits, because the caller is not privileged. `security.capability` goes in any case.
    pub kill_privileges: bool,
}

/// A copy from one open file to another of the same backend.
#[derive(Clone, Copy)]
pub struct CopyRange<'a> {
    /// First byte to read.
    pub offset: u64,
    /// The file to write to.
    pub target: &'a dyn File,
    /// First byte to write.
    pub target_offset: u64,
    /// How many bytes. Both ranges end at or before `i64::MAX`.
    pub length: u64,
    /// Clear set-id bits of the target, because the caller is not privileged. Its `security.capability`
    /// goes in any case.
    pub kill_privileges: bool,
}

impl std::fmt::Debug for CopyRange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyRange")
            .field("offset", &self.offset)
            .field("target_offset", &self.target_offset)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// An open file. Dropped when the guest has released it and no request uses it any more: that
/// releases its flock.
pub trait File: Any + Send + Sync {
    /// Reads, and says how many bytes went into the sink. Fewer than asked only at the end of the file.
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize>;

    /// Writes what the source holds, and says how many bytes that were. EBADF for a file that was not opened
    /// for writing.
    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        let _ = (request, source);
        Answer::not_supported()
    }

    /// The attributes of the open file, also when it no longer has a name. A backend that does not
    /// implement it is asked through the node.
    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::not_supported()
    }

    /// Changes attributes through the open file. A backend that does not implement it is asked through the node.
    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        let _ = changes;
        Answer::not_supported()
    }

    /// A descriptor of the open file was closed: POSIX locks of `owner` end, delayed errors are told.
    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        let _ = owner;
        Answer::ok(())
    }

    /// Makes content durable, and attributes too unless `data_only`.
    fn fsync(&self, data_only: bool) -> Answer<'_, ()>;

    /// The last descriptor was closed. Work that must be waited for before the file is dropped.
    fn release(&self) -> Answer<'_, ()> {
        Answer::ok(())
    }

    /// Allocates, or takes away, space. EOPNOTSUPP for a mode that the storage does not have.
    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        let _ = request;
        Answer::not_supported()
    }

    /// Finds data or a hole. ENXIO at or after the end of the file.
    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        let _ = (from, offset);
        Answer::not_supported()
    }

    /// Copies inside the storage and says how much was copied; fewer than asked at the end of the source.
    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        let _ = copy;
        Answer::not_supported()
    }

    /// The host's file behind the content from `offset` on, to be read: at most `length` bytes, which
    /// may be holes. `None` where there is none, or none that holds it now. What is written to the
    /// file later may appear in the extent or not.
    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        let _ = (offset, length);
        Answer::ok(None)
    }

    /// The lock that stands in the way of `request`, if any.
    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        let _ = request;
        Answer::not_supported()
    }

    /// Sets or releases a lock. EAGAIN when another holds it and the request does not wait.
    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        let _ = request;
        Answer::not_supported()
    }
}
