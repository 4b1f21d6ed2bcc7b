//! The mounts that a share reaches: its own, and those below it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{OFlags, fstatfs};
use vfsd_backend::{Errno, FileKind};

use crate::inode_table::InodeTable;
use crate::proc_fd::ProcFd;
use crate::share::Share;
use crate::syscalls::{FileHandle, file_system_uuid, name_to_handle, open_by_handle};

/// What holds for all files of one mount.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) share: Arc<Share>,
    /// The nodes of files of this mount.
    pub(crate) inodes: InodeTable,
    /// [`Stat::mount_key`](crate::stat::Stat::mount_key) of its files.
    key: u64,
    /// An open file of the mount, from which inodes can be opened by their handles; `None` once
    /// it is known that they cannot.
    handles: OnceLock<Option<OwnedFd>>,
    /// Of the share's own mount: the UUID of its file system.
    file_system: OnceLock<[u8; 16]>,
    /// Which file system it is (linux/magic.h); 0 if it does not say.
    magic: i64,
    /// The file system does not know `RWF_NOWAIT` for reads.
    reads_always_wait: AtomicBool,
    /// The file system does not know `RWF_NOWAIT` for writes.
    writes_always_wait: AtomicBool,
}

impl Mount {
    /// The mount with that key, which `file` is in.
    fn new(share: Arc<Share>, key: u64, file: BorrowedFd<'_>) -> Self {
        Self {
            share,
            inodes: InodeTable::default(),
            key,
            handles: OnceLock::new(),
            file_system: OnceLock::new(),
            magic: fstatfs(file).map_or(0, |fs| fs.f_type & 0xffff_ffff),
            reads_always_wait: AtomicBool::new(false),
            writes_always_wait: AtomicBool::new(false),
        }
    }

    /// Says that this is the share's own mount, which `root` is in.
    pub(crate) fn is_of_the_share(&self, proc_fd: &ProcFd, root: BorrowedFd<'_>) {
        let opened = proc_fd.reopen(root, OFlags::RDONLY | OFlags::NONBLOCK);
        // One without a UUID has zeros, as in the kernel (before Linux 6.9 this one is not told).
        let uuid = opened.and_then(|file| file_system_uuid(file.as_fd()));
        self.file_system.get_or_init(|| uuid.unwrap_or_default());
    }

    /// The UUID of the file system, if this is the share's own mount.
    pub(crate) fn file_system(&self) -> Option<[u8; 16]> {
        self.file_system.get().copied()
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
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
    pub(crate) fn open(&self, handle: &FileHandle) -> Result<OwnedFd, Errno> {
        match self.handles.get() {
            Some(Some(base)) => open_by_handle(base.as_fd(), handle),
            _ => Err(Errno::STALE),
        }
    }

    /// Whether another machine or program may have to be asked for anything: NFS, FUSE and others. Then each
    /// call may wait for an answer that does not come, and closing one of several descriptors of an open
    /// file has a meaning: they write back on close, and may tell an error then.
    pub(crate) fn asks_others(&self) -> bool {
        !LOCAL.contains(&self.magic)
    }

    /// Whether reads and writes have no disk to wait for, although the file system does not know
    /// `RWF_NOWAIT`.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.magic == TMPFS
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

const TMPFS: i64 = 0x0102_1994;

/// File systems that are of this host alone, without a `flush` operation: ext2 to ext4, XFS, btrfs, F2FS,
/// bcachefs, tmpfs. What they have in memory they answer at once.
const LOCAL: [i64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0xCA45_1A4E,
    TMPFS,
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
    /// The mount with that key, if a node of it is alive.
    pub(crate) fn find(&self, key: u64) -> Option<Arc<Mount>> {
        self.mounts.lock().get(&key).and_then(Weak::upgrade)
    }

    /// The mount with that key of `share`, which this table belongs to; `file` is in it.
    pub(crate) fn get(&self, share: &Arc<Share>, key: u64, file: BorrowedFd<'_>) -> Arc<Mount> {
        if let Some(mount) = self.find(key) {
            return mount;
        }
        // Not under the lock: it asks the file system.
        let mount = Arc::new(Mount::new(share.clone(), key, file));
        let mut mounts = self.mounts.lock();
        if let Some(mount) = mounts.get(&key).and_then(Weak::upgrade) {
            return mount;
        }
        mounts.retain(|_, mount| mount.strong_count() > 0);
        mounts.insert(key, Arc::downgrade(&mount));
        mount
    }
}
