//! A host directory, or a single regular file, as a file system.
//!
//! The guest sees what is below the shared directory with the semantics of the host's file system. Its
//! requests reach the host as one path component at a time below an open directory, never as a
//! path, and symbolic links are never followed, so nothing outside the share is within reach,
//! whoever moves files about meanwhile.
//!
//! | module | what is there |
//! |---|---|
//! | `share`, `options` | what all nodes have in common |
//! | `node`, `inode`, `entries`, `open`, `setattr`, `access`, `xattr`, `inode_flags` | what a file can do |
//! | `inode_handle`, `reopen`, `descriptor_cache`, `descriptor_slot`, `budget` | which descriptors stand for which files |
//! | `mounts`, `inode_table`, `seen_names` | which files are known |
//! | `file`, `directory`, `locks`, `lock_ranges` | what is open |
//! | `credentials` | acting for a user of the guest |
//! | `locator` | what leads to a file again in another process |
//! | `proc_fd`, `stat`, `syscalls` | the host |
//!
//! # Costs
//!
//! System calls on Linux 6.18, with everything in the host's memory:
//!
//! | request | calls |
//! |---|---|
//! | LOOKUP | 1 of a known name, 2 of a new one, 1 or 2 of a missing one |
//! | READDIRPLUS | 1 for each entry, and 1 for each 32 KiB of directory |
//! | GETATTR, OPEN, READ, WRITE, UNLINK, RENAME, RELEASE, GETXATTR | 1 |
//! | CREATE, MKDIR, MKNOD, SYMLINK | 3, and 5 more for a caller who is not the daemon's user |
//!
//! A node that was listed and is used for the first time costs two calls more, one that has given up
//! its descriptor one, and so does an UNLINK while there are such nodes (in the same directory, for those
//! that were listed). A umask that is not 0 costs two.
//!
//! A known node takes about 130 bytes here, one that was listed and not used about 180.
//!
//! # Privileges
//!
//! As root the daemon needs `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_FOWNER`, `CAP_FSETID`,
//! `CAP_SETGID`, `CAP_SETUID` and `CAP_SETFCAP`; `CAP_MKNOD` where the guest may make device nodes; and
//! `CAP_DAC_READ_SEARCH` for file handles. As an ordinary user it makes files for the guest's root and
//! for its own id, all of which belong to the user; other callers get EPERM when they make files.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod access;
mod budget;
mod closer;
mod cold_calls;
mod credentials;
mod descriptor_cache;
mod descriptor_slot;
#[cfg(test)]
mod descriptor_slot_tests;
mod directory;
mod entries;
mod file;
mod inode;
mod inode_flags;
mod inode_handle;
mod inode_table;
mod kept_pieces;
mod locator;
mod lock_ranges;
mod locks;
mod mounts;
mod node;
mod open;
mod options;
mod proc_fd;
mod reopen;
mod seen_names;
mod set_id;
mod setattr;
mod share;
mod stat;
mod syscalls;
mod xattr;
mod xattr_map;

/// What threads meet at, by which `tests/interleavings.rs` puts that of shuttle.
use std::sync;

pub use options::{FileHandles, Options};
pub use xattr_map::{XattrMap, XattrMapError};

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use thiserror::Error;
use vfsd_backend::{Answer, Backend, Capabilities, Errno, FileKind, Locator, Node};

use crate::inode::Inode;
use crate::share::Share;

/// Why a directory cannot be shared.
#[derive(Debug, Error)]
pub enum ShareError {
    /// It cannot be opened.
    #[error("cannot open {}: {errno}", path.display())]
    Open {
        /// The directory, or `/proc/self/fd`.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
    /// It is neither a directory nor a regular file.
    #[error("only a directory or a regular file can be shared, not a {0:?}")]
    Kind(FileKind),
    /// It cannot be looked at, or file handles are demanded and do not work.
    #[error("{what}: {errno}")]
    Root {
        /// What did not work.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
}

/// A host directory as a file system.
#[derive(Debug)]
pub struct Passthrough {
    root: Arc<Inode>,
}

impl Passthrough {
    /// Shares `path`.
    ///
    /// # Errors
    /// When it cannot be opened, is neither a directory nor a regular file, or file handles are
    /// demanded and do not work.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, ShareError> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| ShareError::Open {
                path: path.to_owned(),
                errno,
            })
        };
        let root = open(path.as_ref())?;
        let proc_self_fd = open(Path::new("/proc/self/fd"))?;
        Self::from_descriptors(root, proc_self_fd, options)
    }

    /// Shares the file of an `O_PATH` descriptor, for a process that can no longer open it by its
    /// path. `proc_self_fd` is an `O_PATH` descriptor of this process's `/proc/self/fd`: not one
    /// that was opened before the process was forked.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_descriptors(
        root: OwnedFd,
        proc_self_fd: OwnedFd,
        options: Options,
    ) -> Result<Self, ShareError> {
        let failed = |what| move |errno| ShareError::Root { what, errno };
        let kind = stat::Stat::of(root.as_fd())
            .map_err(failed("cannot look at the shared directory"))?
            .attributes
            .kind;
        if !matches!(kind, FileKind::Directory | FileKind::Regular) {
            return Err(ShareError::Kind(kind));
        }
        let mandatory = options.file_handles == FileHandles::Mandatory;
        let share = Arc::new(Share::new(proc_self_fd, options));
        let root = Inode::root(&share, root).map_err(failed(match mandatory {
            true => "file handles are mandatory, but do not work on the shared directory",
            false => "cannot use the shared directory",
        }))?;
        share.set_root(&root);
        Ok(Self { root })
    }

    /// Descriptors that the guest's nodes, open files and locks hold now.
    pub fn descriptors_in_use(&self) -> usize {
        self.root.share().descriptors_in_use()
    }
}

impl Backend for Passthrough {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        let options = &self.root.share().options;
        let mut capabilities =
            Capabilities::POSIX_LOCKS | Capabilities::FLOCK | Capabilities::ATOMIC_TRUNCATE;
        for (capability, present) in [
            (Capabilities::XATTR, options.xattr),
            (Capabilities::POSIX_ACL, options.xattr && options.posix_acl),
            (Capabilities::SECURITY_CONTEXT, options.security_labels),
            (Capabilities::KILL_PRIVILEGES, options.kill_privileges),
            (Capabilities::SUBMOUNTS, options.announce_submounts),
            (Capabilities::WRITEBACK, options.writeback),
            (Capabilities::REOPEN, credentials::opens_anything()),
        ] {
            capabilities.set(capability, present);
        }
        capabilities
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        Answer::blocking(move || Ok(self.root.resolve(locator)? as Arc<dyn Node>))
    }
}
