//! The tests that need a kernel in front of the daemon: in a guest, or on a
//! host mount.

pub(crate) mod boots;
pub(crate) mod guest;
pub(crate) mod host_mount;
pub(crate) mod host_role;
pub(crate) mod judge;
