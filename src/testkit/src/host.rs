//! What the host lets a backend do that keeps its files in a directory of the host.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};

use crate::conformance::Features;

/// `EXT4_SUPER_MAGIC` of linux/magic.h.
const EXT4: u64 = 0xef53;

/// Prepares `dir` as the root of a backend under test, with permissions 0755, and says what can be
/// expected of it. Only ext4 is known well enough to expect what not every file system has.
///
/// # Panics
/// When `dir` is not a directory that this process may change.
#[expect(clippy::expect_used, reason = "without a directory a test has failed")]
pub fn features(dir: &Path) -> Features {
    let open = File::open(dir).expect("open the directory");
    open.set_permissions(Permissions::from_mode(0o755))
        .expect("set the permissions of the directory");
    let magic = fstatfs(&open).expect("statfs of the directory").f_type;
    let flags = fstatvfs(&open).expect("statvfs of the directory").f_flag;
    let root = rustix::process::geteuid().is_root();
    let ext4 = u64::try_from(magic) == Ok(EXT4);

    let mut features = Features::all();
    features.set(
        Features::PRIVILEGED | Features::DEVICE_NODES | Features::INODE_FLAGS,
        root,
    );
    features.set(
        Features::EXT4_LIMITS
            | Features::SHIFT_RANGES
            | Features::DIRECTORY_LINKS
            | Features::BIRTH_TIME
            | Features::BIRTH_TIME_IN_ENTRIES
            | Features::ALLOCATION
            | Features::HOLES,
        ext4,
    );
    let no_access_times = flags.contains(StatVfsMountFlags::NOATIME);
    features.set(Features::RELATIME, ext4 && !no_access_times);
    features
}
