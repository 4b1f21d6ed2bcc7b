//! Advisory locks.

/// Who holds a lock: an opaque number of the guest, unique per open table (POSIX locks) or per open
/// file (flock).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockOwner(pub u64);

/// Which family of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockStyle {
    /// fcntl(2) byte ranges, held by an owner on a file.
    Posix,
    /// flock(2), held by an open file; the range is always the whole file.
    Flock,
}

/// What a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockRange {
    /// First byte; at most `i64::MAX`.
    pub start: u64,
    /// Last byte, inclusive, not before `start`; `i64::MAX` is to the end of whatever the file becomes.
    pub end: u64,
}

/// A lock to be set, tested or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRequest {
    /// Who asks.
    pub owner: LockOwner,
    /// The owner's process id in the guest.
    pub pid: u32,
    /// Which family.
    pub style: LockStyle,
    /// What is wanted; `None` releases.
    pub kind: Option<LockKind>,
    /// Which bytes.
    pub range: LockRange,
    /// Whether to wait for a conflicting lock to go. A wait is a future that can be dropped; it
    /// never occupies a thread.
    pub wait: bool,
}

/// A lock in the way of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLock {
    /// What it excludes.
    pub kind: LockKind,
    /// Which bytes.
    pub range: LockRange,
    /// The holder's process id in the guest; 0 when it is not a process of this guest.
    pub pid: u32,
}
