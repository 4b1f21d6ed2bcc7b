//! The traits a storage implements, and their vocabulary: the only crate a backend must know.
//!
//! A backend hands out objects: a [`Node`] for each file it is asked about, a [`File`] or
//! [`Directory`] for each open one. The server owns the numbers that guests use for them, counts
//! their references and checks every id, name, length and flag before a method here is called.
//! What reaches a backend is therefore well formed, but its *content* is still the guest's choice.
//!
//! Permissions are checked before a backend is called: by the guest's kernel, which mounts
//! virtio-fs with `default_permissions`, or by the host's for a mount through `/dev/fuse`. A
//! backend enforces only what concerns the host itself. Read-only exports are enforced by the
//! server.
//!
//! Every method returns an [`Answer`], which is ready at once or a future: the same trait serves
//! a storage that answers from memory and one that waits for a network.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod answer;
mod attributes;
mod buffer;
mod caching;
mod caller;
mod capabilities;
mod counter;
mod create;
mod directory;
mod error;
mod extent;
mod file;
mod flags;
mod locator;
mod lock;
mod name;
mod network;
mod node;
mod payload;
pub mod posix;

pub use answer::Answer;
pub use attributes::{
    AttributeChanges, Attributes, Device, FileKind, FsStatistics, FsXattr, SetTime, Timestamp,
};
pub use buffer::{BufferSink, SliceSource};
pub use caching::{FileCaching, Ttl};
pub use caller::{Caller, Identity};
pub use capabilities::Capabilities;
pub use counter::StripedCounter;
pub use create::{Created, Entry, Lookup, NewDevice, NewInode, Opened, Rename, SecurityContext};
pub use directory::{DirEntry, DirSink, Directory, EntrySink};
pub use error::{Errno, Error, Result, one_line};
pub use extent::{Extent, ExtentSource};
pub use file::{CopyRange, FallocateRequest, File, ReadRequest, WriteRequest};
pub use flags::{AccessMask, FallocateMode, OpenFlags, RenameFlags, SeekFrom, XattrFlags};
pub use locator::Locator;
pub use lock::{HeldLock, LockKind, LockOwner, LockRange, LockRequest, LockStyle};
pub use name::{LinkTarget, Name, XattrName};
pub use network::is_loopback;
pub use node::{Node, NodeIdentity, OpenRequest};
pub use payload::{ReadSink, Wait, WriteSource};
pub use vfsd_exec::{BackOff, blocking_section, is_worker};

use std::sync::Arc;

/// A storage that can be served as a file system.
pub trait Backend: Send + Sync {
    /// The directory, or single file, at the top of the tree. The same node at each call.
    fn root(&self) -> Arc<dyn Node>;

    /// What this storage can do. It decides which features are offered to the guest, so it must
    /// not change while a session runs.
    fn capabilities(&self) -> Capabilities;

    /// The file that a [`Node::locator`] of this storage was made of, whoever has opened the storage now. ESTALE when it
    /// is gone, or the locator is none of this storage's; EOPNOTSUPP where this process may not follow it.
    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        let _ = locator;
        Answer::not_supported()
    }

    /// Brings what is still on its way to where it belongs, and gives up what keeps others out. Called once, when
    /// nobody will use the storage any more, by a thread that may wait.
    ///
    /// # Errors
    /// What could not be brought there.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
