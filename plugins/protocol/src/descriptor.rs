//! Which descriptors may be handed over.

use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat, fstatfs};

/// Why a descriptor is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is a directory, a pipe, a socket or a device.
    #[error("it is no regular file")]
    Kind,
    /// It is not open for reading.
    #[error("it cannot be read")]
    Mode,
    /// It is a memfd that can shrink. It needs `F_SEAL_SHRINK`.
    #[error("it is a memfd that is not sealed against shrinking")]
    Seals,
    /// Its file system may be served by whoever hands it over, and then decides how long a read lasts.
    #[error("its file system is not one of the kernel's own")]
    FileSystem,
    /// It cannot be looked at.
    #[error("it cannot be looked at")]
    Unknown,
}

/// File systems that the kernel serves by itself from memory or a disk (`linux/magic.h`, and the sources of those that
/// are not in it): ext2 to ext4, XFS, Btrfs, tmpfs, F2FS, bcachefs, ZFS, EROFS, SquashFS.
///
/// Overlayfs is not among them, because what is below it may be anything.
const OWN: [u32; 9] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0xF2F5_2010,
    0xCA45_1A4E,
    0x2FC1_2FC1,
    0xE0F5_E1E2,
    0x7371_7368,
];

/// Whether the host takes a descriptor: a regular file of a file system that the kernel serves by
/// itself, open for reading; a memfd only if it cannot shrink.
///
/// # Errors
/// What speaks against it.
pub fn check_descriptor(descriptor: impl AsFd) -> Result<(), Unfit> {
    let descriptor = descriptor.as_fd();
    let status = fstat(descriptor).map_err(|_| Unfit::Unknown)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Unfit::Kind);
    }
    let mode = fcntl_getfl(descriptor).map_err(|_| Unfit::Unknown)?;
    let readable = matches!(mode & OFlags::RWMODE, OFlags::RDONLY | OFlags::RDWR);
    if !readable || mode.contains(OFlags::PATH) {
        return Err(Unfit::Mode);
    }
    let kind = fstatfs(descriptor).map_err(|_| Unfit::Unknown)?.f_type;
    // The numbers have 32 bits, wherever the field's type has a sign.
    let known = u32::try_from(kind & 0xFFFF_FFFF).is_ok_and(|kind| OWN.contains(&kind));
    if !known {
        return Err(Unfit::FileSystem);
    }
    match fcntl_get_seals(descriptor) {
        // F_SEAL_SEAL alone is what an ordinary file of a tmpfs has.
        Ok(seals) if seals.intersects(SealFlags::SHRINK | SealFlags::SEAL) => Ok(()),
        Ok(_) => Err(Unfit::Seals),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    #[test]
    fn a_memfd_is_taken_when_it_cannot_shrink() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = memfd_create(c"test", flags).unwrap();
        assert_eq!(check_descriptor(&memfd), Err(Unfit::Seals));
        fcntl_add_seals(&memfd, SealFlags::SHRINK).unwrap();
        assert_eq!(check_descriptor(&memfd), Ok(()));
    }

    #[test]
    fn what_is_no_file_of_the_kernels_own_is_not_taken() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(check_descriptor(&socket), Err(Unfit::Kind));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(check_descriptor(&null), Err(Unfit::Kind));
        let proc = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(check_descriptor(&proc), Err(Unfit::FileSystem));
    }
}
