//! An empty file system in memory: the reference backend.
//!
//! It does what ext4 does with the same calls, without a disk below, and implements every operation
//! of the traits. Other backends are compared with it by random sequences of operations.
//!
//! # Locks
//!
//! 1. The namespace (all directory entries) is read or written as a whole, so that each operation on
//!    names is one step for all who look.
//! 2. The state of an inode may be locked while the namespace is. Nobody holds two of them.
//! 3. Advisory lock tables are locked last, and nothing else while they are.
//!
//! No lock is held while an answer waits, and none but an inode's state while payload is copied.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod content;
mod control_group;
mod create;
mod directory;
mod file;
mod inode;
mod names;
mod namespace;
mod node;
mod rename;
mod space;
#[cfg(test)]
mod tests;
mod xattrs;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use vfsd_backend::posix::{InodeFlags, OpenFileId};
use vfsd_backend::{Backend, Capabilities, Device, Errno, FileKind, Node};

use crate::inode::{Beginning, Body, Inode};
use crate::namespace::Namespace;
use crate::node::MemoryNode;
use crate::space::Space;

pub use crate::space::Limits;

/// How an empty file system begins.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How large it may grow.
    pub limits: Limits,
    /// User that owns the root, and new files of callers without an identity.
    pub uid: u32,
    /// Group that owns the root, and new files of callers without an identity.
    pub gid: u32,
    /// Permission, set-id and sticky bits of the root: 0 to 0o7777.
    pub root_permissions: u32,
}

impl Default for Settings {
    /// A root of user and group 0 with permissions 0755; half of the memory may be used.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            uid: 0,
            gid: 0,
            root_permissions: 0o755,
        }
    }
}

/// A file system in memory. It lives as long as this value or a node of it.
pub struct Memory {
    root: Arc<MemoryNode>,
}

impl Memory {
    /// An empty file system.
    ///
    /// # Errors
    /// ENOSPC when the limits have no room for the root.
    pub fn new(settings: Settings) -> Result<Self, Errno> {
        let space = Arc::new(Space::new(settings.limits));
        let root = Arc::new(Inode::new(
            Beginning {
                number: ROOT_NUMBER,
                kind: FileKind::Directory,
                device: Device::default(),
                permissions: settings.root_permissions & 0o7777,
                uid: settings.uid,
                gid: settings.gid,
                links: 2,
                flags: InodeFlags::empty(),
                project: 0,
                body: Body::Directory { entry_bytes: 0 },
            },
            &space,
        )?);
        let mut namespace = Namespace::default();
        namespace.add(ROOT_NUMBER, ROOT_NUMBER);
        let file_system = Arc::new(FileSystem {
            uid: settings.uid,
            gid: settings.gid,
            space,
            namespace: RwLock::new(namespace),
            last_inode: AtomicU64::new(ROOT_NUMBER),
            last_open_file: AtomicU64::new(0),
        });
        Ok(Self {
            root: Arc::new(MemoryNode::new(file_system, root)),
        })
    }

    /// Bytes and inodes in use.
    #[cfg(test)]
    fn used(&self) -> (u64, u64) {
        self.root.file_system().space.used()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("space", &self.root.file_system().space)
            .finish_non_exhaustive()
    }
}

impl Backend for Memory {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
            .difference(Capabilities::SUBMOUNTS | Capabilities::IMMUTABLE | Capabilities::PRIVATE)
    }
}

const ROOT_NUMBER: u64 = 1;

/// What all nodes have in common.
struct FileSystem {
    uid: u32,
    gid: u32,
    space: Arc<Space>,
    namespace: RwLock<Namespace>,
    last_inode: AtomicU64,
    last_open_file: AtomicU64,
}

impl FileSystem {
    fn next_inode_number(&self) -> u64 {
        next(&self.last_inode)
    }

    fn next_open_file(&self) -> OpenFileId {
        OpenFileId(next(&self.last_open_file))
    }
}

/// 64 bits do not run out: at a billion a second they last for centuries.
fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}
