//! What an operator decides about a session.

use std::time::Duration;

use crate::IdMap;

/// How long the guest may believe what it knows of a tree that others can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// What may be cached.
    pub mode: CacheMode,
    /// Lifetime of attributes.
    pub attribute_ttl: Duration,
    /// Lifetime of names.
    pub entry_ttl: Duration,
    /// Lifetime of the knowledge that a name does not exist; zero for none.
    pub negative_ttl: Duration,
}

/// What may be cached in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Names and attributes for a second, content until the file is seen changed at an open.
    #[default]
    Auto,
    /// Everything, for a day: nobody else changes the tree.
    Always,
    /// Nothing; reads and writes bypass the guest's page cache.
    Never,
    /// Names and attributes for a day; content never.
    Metadata,
}

impl CachePolicy {
    /// The lifetimes that go with a mode: those of virtiofsd 1.14.
    pub fn new(mode: CacheMode) -> Self {
        let ttl = match mode {
            CacheMode::Never => Duration::ZERO,
            CacheMode::Auto => Duration::from_secs(1),
            CacheMode::Always | CacheMode::Metadata => Duration::from_secs(86_400),
        };
        Self {
            mode,
            attribute_ttl: ttl,
            entry_ttl: ttl,
            negative_ttl: Duration::ZERO,
        }
    }
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self::new(CacheMode::Auto)
    }
}

/// Whether a feature is offered that some guests cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offer {
    /// Never.
    #[default]
    Never,
    /// If the guest can.
    Auto,
    /// Always: a guest that cannot is refused (EPROTO to INIT).
    Always,
}

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// A guest's virtio-fs driver.
    #[default]
    Virtio,
    /// The host's own kernel, through /dev/fuse.
    HostKernel,
}

/// Limits of a session: what one guest may make the daemon hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Nodes that the guest may know; ENOMEM beyond.
    pub nodes: usize,
    /// Files and directories that the guest may have open; ENFILE beyond.
    pub handles: usize,
    /// Requests that may wait at the same time for a lock, ENOLCK beyond.
    pub lock_waits: usize,
    /// Other requests that may go on at the same time because they were not ready at once. Beyond, the
    /// transport takes none in until one has ended.
    pub deferred: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            nodes: 4_000_000,
            handles: 1_000_000,
            lock_waits: 4_096,
            deferred: 512,
        }
    }
}

/// What an operator decides about a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Where requests come from.
    pub transport: Transport,
    /// What the guest may cache.
    pub cache: CachePolicy,
    /// Let the guest hold back and merge writes (`WRITEBACK_CACHE`).
    pub writeback: bool,
    /// Let directory listings carry attributes: where the guest chooses (`DO_READDIRPLUS`,
    /// `READDIRPLUS_AUTO`), or always (`DO_READDIRPLUS` alone) in a tree of its own that it opens nothing of.
    pub readdirplus: bool,
    /// Let files that bypass the page cache be mapped (`DIRECT_IO_ALLOW_MMAP`).
    pub allow_mmap: bool,
    /// Let the guest make idmapped mounts (`ALLOW_IDMAP`). It then tells identities only with new
    /// inodes. A switch, because some vendor kernels refuse the mount with it.
    pub allow_idmap: bool,
    /// Clear set-id bits here instead of in the guest (`HANDLE_KILLPRIV_V2`).
    pub kill_privileges: bool,
    /// POSIX access control lists.
    pub posix_acl: Offer,
    /// Security labels for new files (`SECURITY_CTX`).
    pub security_label: Offer,
    /// Translation of user ids between guest and host.
    pub uid_map: IdMap,
    /// Translation of group ids between guest and host.
    pub gid_map: IdMap,
    /// What the guest may make us hold.
    pub budget: Budget,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            transport: Transport::Virtio,
            cache: CachePolicy::default(),
            writeback: false,
            readdirplus: true,
            allow_mmap: false,
            allow_idmap: true,
            kill_privileges: false,
            posix_acl: Offer::Never,
            security_label: Offer::Never,
            uid_map: IdMap::default(),
            gid_map: IdMap::default(),
            budget: Budget::default(),
        }
    }
}
