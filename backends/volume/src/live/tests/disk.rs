//! A disk for a local directory that can be filled.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// What the local directory has room for.
const DISK: &std::ffi::CStr = c"size=12m";
/// A file system of its own, in memory; unmounted at the end.
pub(super) struct Disk(TempDir);

impl Disk {
    /// `None` where the test may not mount.
    pub(super) fn mount() -> Option<Self> {
        let point = tempfile::tempdir().unwrap();
        if let Err(errno) = mount("tmpfs", point.path(), "tmpfs", MountFlags::empty(), DISK) {
            eprintln!("skipped: cannot mount: {errno}");
            return None;
        }
        Some(Self(point))
    }

    pub(super) fn host(&self) -> PathBuf {
        self.0.path().join("host")
    }

    pub(super) fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    pub(super) fn fill(&self) {
        fill(&self.ballast());
    }

    /// Leaves room, if there was none.
    pub(super) fn make_room(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Takes all room that is left on a disk.
pub(super) fn fill(ballast: &Path) {
    let mut ballast = std::fs::File::create(ballast).unwrap();
    while ballast.write_all(&[0; 4096]).is_ok() {}
}
