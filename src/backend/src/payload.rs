//! File data on its way between a storage and a guest, without passing through the backend.

use std::os::fd::BorrowedFd;

use crate::Result;

/// Whether a transfer between a file and a guest may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It may.
    Allowed,
    /// It fails with EAGAIN instead (`RWF_NOWAIT`), with nothing transferred.
    Refused,
}

/// Where the data of a read go: the guest's own buffers.
pub trait ReadSink: Send {
    /// Bytes that can still be taken.
    fn room(&self) -> usize;

    /// Copies as much of `bytes` as there is room for and says how much that was.
    ///
    /// # Errors
    /// EFAULT when the guest's memory went away.
    fn put(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Reads up to `length` bytes of `file` from `offset` straight into the guest's buffers, and says
    /// how many there were; fewer at the end of the file. After an error nothing counts as taken.
    ///
    /// # Errors
    /// What preadv2(2) answers; EAGAIN when a wait would be needed and was refused.
    fn put_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        wait: Wait,
    ) -> Result<usize>;
}

/// Where the data of a write come from: the guest's own buffers.
///
/// The guest can change them meanwhile, so what needs the same bytes twice must [`take`](Self::take)
/// them once.
pub trait WriteSource: Send {
    /// Bytes not yet taken.
    fn remaining(&self) -> usize;

    /// Copies bytes out until `buffer` is full or none remain, and says how many that were.
    ///
    /// # Errors
    /// EFAULT when the guest's memory went away.
    fn take(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Writes the remaining bytes straight to `file` at `offset` (or at its end, if it was opened to append), and
    /// says how many were written. After an error none counts as taken.
    ///
    /// # Errors
    /// What pwritev2(2) answers; EAGAIN when a wait would be needed and was refused.
    fn take_into(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize>;
}
