//! The tests that need something in front of the daemon: a guest's kernel, the
//! host's, or the benchmark's front end.

pub(crate) mod boots;
mod bucket_volume;
pub(crate) mod guest;
pub(crate) mod host_mount;
pub(crate) mod host_role;
pub(crate) mod image;
pub(crate) mod judge;
mod layers;
pub(crate) mod libvirt;
pub(crate) mod native_front_end;
pub(crate) mod plugin;
pub(crate) mod registry;
pub(crate) mod run_image;
pub(crate) mod scene;
pub(crate) mod two_guests;
