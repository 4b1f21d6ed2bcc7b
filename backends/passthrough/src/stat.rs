//! The attributes of a host file, and where it is.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, statx};
use vfsd_backend::{Attributes, Device, Errno, FileKind, Name, Timestamp};

/// What statx(2) says of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    /// The attributes; `mount_root` is not decided here.
    pub(crate) attributes: Attributes,
    /// The file system and the mount through which the file was reached: two mounts of one file
    /// system have two keys, because renames and links do not cross them.
    pub(crate) mount_key: u64,
}

impl Stat {
    /// Of an open file, `O_PATH` or not.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::from_statx(&statx(file, c"", AtFlags::EMPTY_PATH, WANTED)?)
    }

    /// Of a name in a directory; links are not followed.
    pub(crate) fn at(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::from_statx(&statx(directory, name.as_bytes(), flags, WANTED)?)
    }

    fn from_statx(raw: &Statx) -> Result<Self, Errno> {
        let mode = u32::from(raw.stx_mode);
        let born = StatxFlags::from_bits_retain(raw.stx_mask).contains(StatxFlags::BTIME);
        Ok(Self {
            attributes: Attributes {
                inode: raw.stx_ino,
                kind: FileKind::from_mode(mode).ok_or(Errno::IO)?,
                permissions: mode & 0o7777,
                links: raw.stx_nlink,
                uid: raw.stx_uid,
                gid: raw.stx_gid,
                device: Device {
                    major: raw.stx_rdev_major,
                    minor: raw.stx_rdev_minor,
                },
                size: raw.stx_size.min(i64::MAX.unsigned_abs()),
                blocks: raw.stx_blocks,
                block_size: raw.stx_blksize,
                accessed: timestamp(raw.stx_atime),
                modified: timestamp(raw.stx_mtime),
                changed: timestamp(raw.stx_ctime),
                born: born.then(|| timestamp(raw.stx_btime)),
                mount_root: false,
            },
            mount_key: mount_key(raw),
        })
    }

    /// A number that differs, as far as the file system knows, between files that have the same
    /// inode number one after the other.
    pub(crate) fn generation(&self) -> u64 {
        let born = self.attributes.born.unwrap_or_default();
        born.seconds
            .cast_unsigned()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(u64::from(born.nanoseconds))
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

fn timestamp(raw: StatxTimestamp) -> Timestamp {
    Timestamp {
        seconds: raw.tv_sec,
        nanoseconds: raw.tv_nsec,
    }
}

/// The mount id in the upper half, the device (12 and 20 bits, as the kernel keeps it) below.
/// Kernels before 5.8 tell no mount id.
fn mount_key(raw: &Statx) -> u64 {
    let mount = match StatxFlags::from_bits_retain(raw.stx_mask).contains(StatxFlags::MNT_ID) {
        true => raw.stx_mnt_id,
        false => 0,
    };
    let device = (u64::from(raw.stx_dev_major) << 20) | u64::from(raw.stx_dev_minor & 0xf_ffff);
    (mount << 32) | (device & 0xffff_ffff)
}
