//! What leads to a file again when its node, and perhaps the process, is gone.

use std::fmt;

use crate::{Errno, Result};

/// What leads to a file of a storage for as long as the file exists: after a restart, or on another host with the same
/// storage. Opaque but for its first byte, by which storages of different kinds do not mistake one another's.
///
/// It is no proof of a right: a storage that is reached by file handles may find any file of its file system. So it is
/// taken from where the daemon itself has kept it, never from a guest.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Locator(Box<[u8]>);

/// The first byte of an inode number's.
const INODE: u8 = 1;

/// `struct ovl_fb` of fs/overlayfs/overlayfs.h: version, magic, length, flags, type, UUID, handle.
const HANDLE_START: [u8; 2] = [0, 0xfb];
const HANDLE_HEADER: usize = 21;

impl Locator {
    /// The longest, in bytes.
    pub const MAX: usize = 128;

    /// From bytes that were kept.
    ///
    /// # Errors
    /// EOVERFLOW over 128 bytes, EINVAL for none.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        match bytes.len() {
            0 => Err(Errno::INVAL),
            1..=Self::MAX => Ok(Self(bytes.into())),
            _ => Err(Errno::OVERFLOW),
        }
    }

    /// Of a storage whose inode numbers are each of one file for ever.
    pub fn of_inode(inode: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = inode.to_be_bytes();
        Self([INODE, a, b, c, d, e, f, g, h].into())
    }

    /// The inode number, if it is made by [`of_inode`](Self::of_inode).
    pub fn inode(&self) -> Option<u64> {
        match self.0.split_first() {
            Some((&INODE, number)) => Some(u64::from_be_bytes(number.try_into().ok()?)),
            _ => None,
        }
    }

    /// By a file handle (name_to_handle_at(2)) of the file system with this UUID, in the form in which the kernel's
    /// overlayfs keeps them, and what else its maker wants to know.
    ///
    /// # Errors
    /// EOVERFLOW when it does not fit.
    pub fn of_file_handle(
        file_system: [u8; 16],
        kind: u8,
        handle: &[u8],
        more: &[u8],
    ) -> Result<Self, Errno> {
        let length = handle.len().saturating_add(HANDLE_HEADER);
        let length = u8::try_from(length).map_err(|_| Errno::OVERFLOW)?;
        let flags = u8::from(cfg!(target_endian = "big"));
        let header = [&HANDLE_START[..], &[length, flags, kind], &file_system].concat();
        Self::new(&[&header, handle, more].concat())
    }

    /// The file handle in the kernel's form (`overlay.origin`), and what follows it.
    pub fn file_handle(&self) -> Option<(&[u8], &[u8])> {
        if !self.0.starts_with(&HANDLE_START) {
            return None;
        }
        let length = usize::from(*self.0.get(2)?);
        self.0
            .split_at_checked(length)
            .filter(|_| length > HANDLE_HEADER)
    }

    /// The bytes, to be kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_number_comes_back() {
        let locator = Locator::of_inode(u64::MAX - 1);
        assert_eq!(locator.inode(), Some(u64::MAX - 1));
        assert_eq!(Locator::new(locator.as_bytes()), Ok(locator.clone()));
        assert_eq!(locator.file_handle(), None);
        assert_eq!(Locator::new(&[INODE, 1]).unwrap().inode(), None);
    }

    #[test]
    fn a_file_handle_has_the_form_that_the_kernel_writes() {
        let handle = [0x42, 0x72, 0x27, 0, 0x48, 0x74, 0x53, 0xd0];
        let locator = Locator::of_file_handle([0; 16], 1, &handle, b"/name").unwrap();
        let (kernels, more) = locator.file_handle().unwrap();
        // `trusted.overlay.origin` as Linux 6.18 has written it.
        let seen = [&[0, 0xfb, 0x1d, 0, 1][..], &[0; 16], &handle].concat();
        assert_eq!((kernels, more), (&seen[..], &b"/name"[..]));
        assert_eq!(locator.inode(), None);
    }

    #[test]
    fn what_is_damaged_or_too_long_is_no_locator() {
        assert_eq!(Locator::new(b""), Err(Errno::INVAL));
        assert_eq!(Locator::new(&[7; 129]), Err(Errno::OVERFLOW));
        assert!(Locator::of_file_handle([0; 16], 1, &[7; 250], b"").is_err());
        for damaged in [&[0, 0xfb][..], &[0, 0xfb, 255], &[0, 0xfb, 3], &[0, 1, 3]] {
            assert_eq!(Locator::new(damaged).unwrap().file_handle(), None);
        }
    }
}
