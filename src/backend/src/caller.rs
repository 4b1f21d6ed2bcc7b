//! Who asked.

/// The process in the guest that made a request. Already translated to the host's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// Whom new files belong to. `None` where the guest tells no identity (idmapped mounts do so
    /// for operations that create nothing): act as the daemon, the guest has checked permissions.
    pub identity: Option<Identity>,
    /// Process id in the guest; 0 when unknown.
    pub pid: u32,
}

/// User and group of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// User; never `u32::MAX`.
    pub uid: u32,
    /// Group; never `u32::MAX`.
    pub gid: u32,
    /// A supplementary group that the caller has and the parent directory belongs to.
    pub supplementary: Option<u32>,
}
