//! What all nodes of one shared directory have in common.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use vfsd_backend::{Errno, Name, Wait};

use crate::budget::{Budget, Permit};
use crate::cold_calls::ColdCalls;
use crate::descriptor_cache::DescriptorCache;
use crate::inode::Inode;
use crate::kept_pieces::KeptPieces;
use crate::locks::LockTables;
use crate::mounts::MountTable;
use crate::options::Options;
use crate::proc_fd::ProcFd;
use crate::seen_names::SeenNames;
use crate::xattr::XattrAccess;

/// Each `O_PATH` descriptor pins an inode, about 1 KiB, in the host's memory.
const MOST_CACHED: usize = 65_536;

/// What all nodes of one shared directory have in common.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) options: Options,
    pub(crate) proc_fd: ProcFd,
    pub(crate) descriptors: DescriptorCache,
    pub(crate) cold_calls: ColdCalls,
    pub(crate) mounts: MountTable,
    pub(crate) locks: LockTables,
    pub(crate) pieces: Arc<KeptPieces>,
    pub(crate) seen: SeenNames,
    pub(crate) xattrs: XattrAccess,
    /// What `security.capability` is called on the host, where the xattr map renames it: then the
    /// host's kernel does not know that it has to go when the file is changed.
    pub(crate) renamed_capability: Option<CString>,
    pub(crate) budget: Arc<Budget>,
    root: OnceLock<Weak<Inode>>,
    exhaustion_logged: AtomicBool,
    /// openat2(2) is there (Linux 5.6, and the sandbox allows it).
    has_openat2: AtomicBool,
    /// openat2(2) knows `RESOLVE_CACHED` (Linux 5.12).
    has_cached: AtomicBool,
}

impl Share {
    pub(crate) fn new(proc_self_fd: OwnedFd, options: Options) -> Self {
        let budget = Budget::new(options.descriptor_budget);
        let cached = options
            .cached_descriptors
            .unwrap_or_else(|| (budget.limit() / 2).min(MOST_CACHED));
        let renamed_capability = options
            .xattr_map
            .as_ref()
            .and_then(|map| map.renamed(b"security.capability"));
        Self {
            proc_fd: ProcFd::new(proc_self_fd),
            locks: LockTables::default(),
            descriptors: DescriptorCache::new(cached),
            cold_calls: ColdCalls::default(),
            mounts: MountTable::default(),
            pieces: Arc::default(),
            seen: SeenNames::default(),
            xattrs: XattrAccess::default(),
            renamed_capability,
            budget,
            root: OnceLock::new(),
            exhaustion_logged: AtomicBool::new(false),
            has_openat2: AtomicBool::new(true),
            has_cached: AtomicBool::new(true),
            options,
        }
    }

    /// Says which node is at the top.
    pub(crate) fn set_root(&self, root: &Arc<Inode>) {
        // It is said once.
        drop(self.root.set(Arc::downgrade(root)));
    }

    /// The node at the top, as long as the share is in use.
    pub(crate) fn root(&self) -> Option<Arc<Inode>> {
        self.root.get()?.upgrade()
    }

    /// The right to one more descriptor. ENFILE when the guest has used up its own.
    pub(crate) fn permit(&self) -> Result<Permit<'_>, Errno> {
        if let Some(permit) = self.budget.try_take() {
            return Ok(permit);
        }
        // A descriptor that is given up may still be in use by another thread for a moment.
        for _ in 0..8 {
            if !self.descriptors.give_up_one() {
                break;
            }
            if let Some(permit) = self.budget.try_take() {
                return Ok(permit);
            }
        }
        if !self.exhaustion_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                limit = self.budget.limit(),
                "the guest has used up its descriptors and sees ENFILE; raise the limit of open files, or \
                 choose --inode-file-handles=prefer"
            );
        }
        Err(Errno::NFILE)
    }

    /// Descriptors that the guest's nodes, open files and locks hold.
    pub(crate) fn descriptors_in_use(&self) -> usize {
        self.budget.used()
    }

    /// Opens one name in a directory. A link is never followed; `flags` says what is opened. EAGAIN when
    /// that takes a disk and no wait is allowed.
    pub(crate) fn open_child(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
        flags: OFlags,
        mode: Mode,
        wait: Wait,
    ) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = name.as_bytes();
        let mut resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        if wait == Wait::Refused {
            if !self.has_cached.load(Ordering::Relaxed) {
                return Err(Errno::AGAIN);
            }
            resolve |= ResolveFlags::CACHED;
        }
        if self.has_openat2.load(Ordering::Relaxed) {
            match openat2(directory, name, flags, mode, resolve) {
                // O_TMPFILE and others are refused with EINVAL too, but never together with CACHED.
                Err(Errno::INVAL) if wait == Wait::Refused => {
                    self.has_cached.store(false, Ordering::Relaxed);
                    return Err(Errno::AGAIN);
                }
                Err(Errno::NOSYS) => {
                    self.has_openat2.store(false, Ordering::Relaxed);
                    self.has_cached.store(false, Ordering::Relaxed);
                }
                other => return other.map_err(no_descriptor),
            }
        }
        if wait == Wait::Refused {
            return Err(Errno::AGAIN);
        }
        openat(directory.as_fd(), name, flags, mode).map_err(no_descriptor)
    }
}

/// The process's own limit is no business of the guest's: it sees that the system has run out.
pub(crate) fn no_descriptor(errno: Errno) -> Errno {
    match errno {
        Errno::MFILE => Errno::NFILE,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::Passthrough;
    use rustix::io::{FdFlags, fcntl_getfd};

    /// As the kernel is, and as older ones are.
    fn kernels(test: impl Fn(&Share, BorrowedFd<'_>)) {
        for (has_openat2, has_cached) in [(true, true), (true, false), (false, false)] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("file"), b"").unwrap();
            std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
            let fs = Passthrough::open(directory.path(), Options::default()).unwrap();
            let share = fs.root.share();
            share.has_openat2.store(has_openat2, Ordering::Relaxed);
            share.has_cached.store(has_cached, Ordering::Relaxed);
            let root = fs.root.directory().unwrap();
            test(share, root.as_fd());
        }
    }

    fn open(
        share: &Share,
        directory: BorrowedFd<'_>,
        name: &str,
        flags: OFlags,
        wait: Wait,
    ) -> Result<OwnedFd, Errno> {
        let name = Name::new(name.as_bytes()).unwrap();
        let mode = match flags.contains(OFlags::CREATE) {
            true => Mode::from_raw_mode(0o600),
            false => Mode::empty(),
        };
        share.open_child(directory, name, flags, mode, wait)
    }

    #[test]
    fn links_are_not_followed_and_descriptors_not_inherited() {
        kernels(|share, directory| {
            let open = |name, flags| open(share, directory, name, flags, Wait::Allowed);
            for name in ["file", "link"] {
                let fd = open(name, OFlags::PATH).unwrap();
                assert_eq!(fcntl_getfd(&fd), Ok(FdFlags::CLOEXEC));
            }
            assert_eq!(open("link", OFlags::RDONLY).unwrap_err(), Errno::LOOP);
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
            assert_eq!(open("link", create).unwrap_err(), Errno::EXIST);
            assert!(open("new", create).is_ok());
            assert_eq!(open("none", OFlags::PATH).unwrap_err(), Errno::NOENT);
        });
    }

    #[test]
    fn what_is_in_memory_needs_no_patience_where_the_kernel_can_tell() {
        kernels(|share, directory| {
            let open = |wait| open(share, directory, "file", OFlags::PATH, wait);
            open(Wait::Allowed).unwrap();
            let cached = open(Wait::Refused);
            match share.has_cached.load(Ordering::Relaxed) {
                true => assert!(matches!(cached, Ok(_) | Err(Errno::AGAIN))),
                false => assert_eq!(cached.unwrap_err(), Errno::AGAIN),
            }
        });
    }

    #[test]
    fn the_limit_of_the_process_is_shown_as_the_limit_of_the_system() {
        assert_eq!(no_descriptor(Errno::MFILE), Errno::NFILE);
        assert_eq!(no_descriptor(Errno::NOENT), Errno::NOENT);
    }
}
