//! The mounts that a share reaches: its own, and those below it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{OFlags, fstatfs};
use vfsd_backend::{Errno, FileKind};

use crate::proc_fd::ProcFd;
use crate::syscalls::{name_to_handle, open_by_handle};

/// What holds for all files of one mount.
#[derive(Debug)]
pub(crate) struct Mount {
    place: u64,
    /// An open file of the mount, from which inodes can be opened by their handles; `None` once
    /// it is known that they cannot.
    handles: OnceLock<Option<OwnedFd>>,
    /// Whether closing a file may tell an error (NFS, FUSE and others write back on close).
    flushes: OnceLock<bool>,
    /// The file system does not know `RWF_NOWAIT` for reads.
    reads_always_wait: AtomicBool,
    /// The file system does not know `RWF_NOWAIT` for writes.
    writes_always_wait: AtomicBool,
}

impl Mount {
    fn new(place: u64) -> Self {
        Self {
            place,
            handles: OnceLock::new(),
            flushes: OnceLock::new(),
            reads_always_wait: AtomicBool::new(false),
            writes_always_wait: AtomicBool::new(false),
        }
    }

    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    /// Says that inodes of this mount are never opened by handle.
    pub(crate) fn refuse_handles(&self) {
        // Fails only if it was decided before.
        drop(self.handles.set(None));
    }

    /// Whether handles are known not to work.
    pub(crate) fn has_no_handles(&self) -> bool {
        matches!(self.handles.get(), Some(None))
    }

    /// The open file from which inodes of this mount are opened by handle. The first call finds out,
    /// with `file`, of which the type must be known, whether that works.
    ///
    /// # Errors
    /// EOPNOTSUPP when it does not, EAGAIN when this `file` cannot tell (only directories and
    /// regular files are ever opened).
    pub(crate) fn handles(
        &self,
        proc_fd: &ProcFd,
        kind: FileKind,
        file: BorrowedFd<'_>,
    ) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(known) = self.handles.get() {
            return known.as_ref().map(AsFd::as_fd).ok_or(Errno::OPNOTSUPP);
        }
        if !matches!(kind, FileKind::Regular | FileKind::Directory) {
            return Err(Errno::AGAIN);
        }
        let found = match try_handles(proc_fd, file) {
            Ok(base) => Some(base),
            Err(busy @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN)) => {
                return Err(busy);
            }
            Err(errno) => {
                tracing::info!(%errno, "no file handles here: each known inode keeps a descriptor");
                None
            }
        };
        self.handles
            .get_or_init(|| found)
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or(Errno::OPNOTSUPP)
    }

    /// Opens an inode by its handle, as an `O_PATH` descriptor.
    pub(crate) fn open(&self, handle: &crate::syscalls::FileHandle) -> Result<OwnedFd, Errno> {
        match self.handles.get() {
            Some(Some(base)) => open_by_handle(base.as_fd(), handle),
            _ => Err(Errno::STALE),
        }
    }

    /// Whether closing one of several descriptors of an open file has a meaning.
    pub(crate) fn flushes(&self, file: BorrowedFd<'_>) -> bool {
        *self.flushes.get_or_init(|| {
            fstatfs(file).is_ok_and(|fs| !LOCAL.contains(&(fs.f_type & 0xffff_ffff)))
        })
    }

    pub(crate) fn reads_always_wait(&self) -> bool {
        self.reads_always_wait.load(Ordering::Relaxed)
    }

    pub(crate) fn writes_always_wait(&self) -> bool {
        self.writes_always_wait.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reads_always_wait(&self) {
        self.reads_always_wait.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_writes_always_wait(&self) {
        self.writes_always_wait.store(true, Ordering::Relaxed);
    }
}

/// File systems without a `flush` operation: ext2 to ext4, XFS, btrfs, tmpfs, F2FS, bcachefs
/// (linux/magic.h).
const LOCAL: [i64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0xF2F5_2010,
    0xCA45_1A4E,
];

/// Opens `file` for reading and checks that its inode can be opened from there by handle.
fn try_handles(proc_fd: &ProcFd, file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let handle = name_to_handle(file)?;
    let base = proc_fd.reopen(file, OFlags::RDONLY | OFlags::NONBLOCK)?;
    open_by_handle(base.as_fd(), &handle)?;
    Ok(base)
}

/// The mounts that are in use. The one a node is on lives as long as the node.
#[derive(Debug, Default)]
pub(crate) struct MountTable {
    mounts: Mutex<HashMap<u64, Weak<Mount>>>,
}

impl MountTable {
    /// The mount at `place`.
    pub(crate) fn get(&self, place: u64) -> Arc<Mount> {
        let mut mounts = self.mounts.lock();
        if let Some(mount) = mounts.get(&place).and_then(Weak::upgrade) {
            return mount;
        }
        mounts.retain(|_, mount| mount.strong_count() > 0);
        let mount = Arc::new(Mount::new(place));
        mounts.insert(place, Arc::downgrade(&mount));
        mount
    }
}
