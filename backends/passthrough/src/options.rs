//! What an operator can choose for a shared directory.

use crate::XattrMap;

/// Whether inodes may be remembered by file handles (name_to_handle_at(2)) instead of open
/// descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileHandles {
    /// Each inode that the guest knows keeps a descriptor open.
    Never,
    /// Where the file system and the daemon's privileges allow it (`CAP_DAC_READ_SEARCH`).
    #[default]
    Prefer,
    /// Always: [`Passthrough::open`](crate::Passthrough::open) fails, and so does the lookup of a mount point, where
    /// handles do not work.
    Mandatory,
}

/// The choices for one shared directory. The default is what a newcomer wants: extended attributes
/// and device nodes, everything else off.
#[derive(Debug, Clone)]
pub struct Options {
    /// Serve extended attributes.
    pub xattr: bool,
    /// Rename, hide or refuse extended attributes.
    pub xattr_map: Option<XattrMap>,
    /// Serve POSIX ACLs and apply default ACLs to new files. Needs `xattr`. While off, the ACL
    /// attributes are EOPNOTSUPP.
    pub posix_acl: bool,
    /// Store security labels that come with a new file.
    pub security_labels: bool,
    /// Whether inodes may be remembered by file handles.
    pub file_handles: FileHandles,
    /// Let the guest make character and block devices. They are never opened on the host. An
    /// overlay whiteout (character device 0/0) is always allowed.
    pub device_nodes: bool,
    /// Mark the roots of other file systems below the share, so that the guest shows them as
    /// mounts of their own. They are crossed in any case.
    pub announce_submounts: bool,
    /// Honour `O_DIRECT`; otherwise it is taken away.
    pub allow_direct_io: bool,
    /// Honour `O_NOATIME`; otherwise it is taken away.
    pub preserve_noatime: bool,
    /// The guest holds back and merges writes: files opened for writing only are opened for
    /// reading too, because the guest fills up partly written pages, and `O_APPEND` is left to the guest.
    pub writeback: bool,
    /// Clear set-id bits and file capabilities for the guest (`FUSE_HANDLE_KILLPRIV_V2`).
    pub kill_privileges: bool,
    /// Descriptors that the guest's nodes, open files and locks may use together; beyond it the
    /// guest sees ENFILE. `None`: the process's limit less a reserve of 512.
    pub descriptor_budget: Option<usize>,
    /// Of those, how many nodes that could be found by file handle keep a descriptor all the same,
    /// to be faster. Each also keeps an inode in the host's memory. `None`: half of the budget, at
    /// most 65,536.
    pub cached_descriptors: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            xattr: true,
            xattr_map: None,
            posix_acl: false,
            security_labels: false,
            file_handles: FileHandles::Prefer,
            device_nodes: true,
            announce_submounts: true,
            allow_direct_io: false,
            preserve_noatime: false,
            writeback: false,
            kill_privileges: false,
            descriptor_budget: None,
            cached_descriptors: None,
        }
    }
}
