//! What is asked for when an entry is made, and what comes back.

use std::fmt;
use std::sync::Arc;

use crate::{Attributes, Device, File, FileCaching, FileKind, Name, Node, RenameFlags, Ttl};

/// A name in a directory, resolved.
#[derive(Clone)]
pub struct Entry {
    /// The file it names.
    pub node: Arc<dyn Node>,
    /// Attributes at the time of the answer.
    pub attributes: Attributes,
    /// How long the guest may keep the name for this file.
    pub entry_ttl: Ttl,
    /// How long the guest may keep the attributes.
    pub attribute_ttl: Ttl,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

/// The answer to a lookup.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// The name exists.
    Found(Entry),
    /// The name does not exist, and the guest may remember that.
    Missing {
        /// For how long.
        ttl: Ttl,
    },
}

/// An open file, and how the guest may cache it.
#[derive(Clone)]
pub struct Opened {
    /// The open file.
    pub file: Arc<dyn File>,
    /// What the guest may keep of its content.
    pub caching: FileCaching,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("caching", &self.caching)
            .finish_non_exhaustive()
    }
}

/// A file that was made, or found, and opened in one step.
#[derive(Debug, Clone)]
pub struct Created {
    /// The file's entry.
    pub entry: Entry,
    /// The open file.
    pub opened: Opened,
}

/// A security label for a new inode, for instance `security.selinux`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityContext<'a> {
    /// Name of the extended attribute.
    pub name: crate::XattrName<'a>,
    /// Its value.
    pub value: &'a [u8],
}

/// What all new inodes have in common.
#[derive(Debug, Clone, Copy)]
pub struct NewInode<'a> {
    /// Permission, set-id and sticky bits wanted: 0 to 0o7777.
    pub permissions: u32,
    /// Permission bits to take away, unless a default ACL stands in for it. Always 0 for a backend
    /// without [`Capabilities::POSIX_ACL`](crate::Capabilities::POSIX_ACL): there the guest has applied it.
    pub umask: u32,
    /// Labels to be stored with the inode, before anyone can see it.
    pub security: Option<SecurityContext<'a>>,
}

/// A new inode that is neither a directory nor a symbolic link.
#[derive(Debug, Clone, Copy)]
pub struct NewDevice<'a> {
    /// Regular file, FIFO, socket or device.
    pub kind: FileKind,
    /// The device number, for device nodes.
    pub device: Device,
    /// Permissions and labels.
    pub inode: NewInode<'a>,
}

/// A rename.
#[derive(Clone, Copy)]
pub struct Rename<'a> {
    /// The old name, in the directory that is asked.
    pub name: Name<'a>,
    /// The directory of the new name: a node of the same backend.
    pub new_parent: &'a dyn Node,
    /// The new name.
    pub new_name: Name<'a>,
    /// Checked: at most one of NOREPLACE and EXCHANGE, never EXCHANGE with WHITEOUT.
    pub flags: RenameFlags,
}

impl fmt::Debug for Rename<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rename")
            .field("name", &self.name)
            .field("new_name", &self.new_name)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}
