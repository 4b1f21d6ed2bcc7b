//! The area: memory that the host writes the data of WRITEs to, and the plugin reads them from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bit of a WRITE's `write_flags`: its data are in the area, and an [`AreaIn`] stands in their place.
pub const WRITE_AREA: u32 = 1 << 31;

/// Where in the area the data of a WRITE are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct AreaIn {
    /// Their first byte. They end in the area.
    pub offset: u64,
}

const _: () = assert!(size_of::<AreaIn>() == 8);

/// Makes an area of so many bytes, all 0: a memfd whose size nobody can change.
///
/// # Errors
/// What memfd_create(2) and ftruncate(2) answer: EMFILE, ENOMEM.
pub fn make_area(bytes: u32) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let area = memfd_create(c"vfsd-plugin-area", flags)?;
    ftruncate(&area, u64::from(bytes))?;
    fcntl_add_seals(&area, SIZE_IS_FIXED | SealFlags::SEAL)?;
    Ok(area)
}

const SIZE_IS_FIXED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Whether a descriptor is an area of so many bytes, which can be mapped: it stays as large as it is.
pub fn is_area(descriptor: impl AsFd, bytes: u32) -> bool {
    let descriptor = descriptor.as_fd();
    let large =
        fstat(descriptor).is_ok_and(|status| u64::try_from(status.st_size) == Ok(u64::from(bytes)));
    large && fcntl_get_seals(descriptor).is_ok_and(|seals| seals.contains(SIZE_IS_FIXED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn nobody_changes_the_size_of_an_area_or_seals_it() {
        let area = make_area(8192).unwrap();
        assert!(is_area(&area, 8192) && !is_area(&area, 4096));
        assert_eq!(ftruncate(&area, 0), Err(Errno::PERM));
        assert_eq!(ftruncate(&area, 1 << 30), Err(Errno::PERM));
        assert_eq!(
            fcntl_add_seals(&area, SealFlags::WRITE),
            Err(Errno::PERM),
            "the host could not write any more"
        );
        assert_eq!(rustix::io::pwrite(&area, b"x", 8191), Ok(1));
        assert_eq!(rustix::io::pwrite(&area, b"x", 8192), Err(Errno::PERM));
    }

    #[test]
    fn a_file_that_may_shrink_is_no_area() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = memfd_create(c"test", flags).unwrap();
        ftruncate(&memfd, 4096).unwrap();
        assert!(!is_area(&memfd, 4096));
        let file = tempfile();
        ftruncate(&file, 4096).unwrap();
        assert!(!is_area(&file, 4096));
    }

    fn tempfile() -> OwnedFd {
        use rustix::fs::{Mode, OFlags, open};
        open("/tmp", OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).unwrap()
    }
}
