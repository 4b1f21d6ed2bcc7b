//! Telling one mount from another at the same place.

use std::path::Path;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::io::Errno;

/// The number of a mount, which no other ever has from Linux 6.8 on. Older kernels use a number
/// again when its mount is gone, those before 5.8 give none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountId(u64);

/// `STATX_MNT_ID_UNIQUE` of include/uapi/linux/stat.h.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The mount on top at `path`. Nothing is asked of the file system's server, which may be gone.
///
/// # Errors
/// What statx(2) answers, and EOPNOTSUPP where mounts have no numbers.
pub(crate) fn at(path: &Path) -> rustix::io::Result<MountId> {
    of(CWD, path)
}

/// The mount of `path` below `directory`, or of `directory` itself where the path is empty. As [`at`].
///
/// # Errors
/// As [`at`].
pub(crate) fn of(directory: impl AsFd, path: &Path) -> rustix::io::Result<MountId> {
    for number in [MNT_ID_UNIQUE, StatxFlags::MNT_ID] {
        let status = unasked(&directory, path, number)?;
        if status.stx_mask & number.bits() != 0 {
            return Ok(MountId(status.stx_mnt_id));
        }
    }
    Err(Errno::OPNOTSUPP)
}

/// The number of the connection behind the mount of `path` below `directory`, or of `directory` itself, as in
/// `/sys/fs/fuse/connections`.
///
/// # Errors
/// What statx(2) answers.
pub(crate) fn connection(directory: impl AsFd, path: &Path) -> rustix::io::Result<u32> {
    // It has a device number of no device: `fuse_ctl_add_conn` takes its minor, and the major is 0.
    Ok(unasked(directory, path, StatxFlags::empty())?.stx_dev_minor)
}

/// What the kernel knows by itself.
fn unasked(directory: impl AsFd, path: &Path, wanted: StatxFlags) -> rustix::io::Result<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC
        | AtFlags::NO_AUTOMOUNT
        | AtFlags::SYMLINK_NOFOLLOW
        | AtFlags::EMPTY_PATH;
    statx(directory, path, flags, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_one_mount_have_its_number_and_others_have_not() {
        assert_eq!(at(Path::new("/proc")), at(Path::new("/proc/self")));
        assert_ne!(at(Path::new("/proc")), at(Path::new("/")));
    }
}
