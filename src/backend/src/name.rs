//! Names as types: whoever holds one knows that it was checked.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::Errno;

/// The name of a directory entry: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
///
/// It can be given to a system call as one path component; it cannot leave the directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The longest name, in bytes (`NAME_MAX`).
    pub const MAX: usize = 255;

    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// ENAMETOOLONG over 255 bytes, EINVAL for all else that is not a name.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.len() > Self::MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let special = matches!(bytes, b"" | b"." | b"..");
        if special || bytes.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(Errno::INVAL);
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a terminator.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The name as the standard library spells it.
    pub fn as_os_str(self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }
}

/// The target of a symbolic link: 1 to 4095 bytes, no NUL. It is data, never followed here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkTarget<'a>(&'a [u8]);

impl<'a> LinkTarget<'a> {
    /// The longest target, in bytes (`PATH_MAX` less the terminator).
    pub const MAX: usize = 4095;

    /// Checks a target that came from outside.
    ///
    /// # Errors
    /// ENAMETOOLONG over 4095 bytes, EINVAL when empty or with a NUL.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.len() > Self::MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a terminator.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// The name of an extended attribute: 1 to 255 bytes, no NUL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName<'a>(&'a [u8]);

impl<'a> XattrName<'a> {
    /// The longest name, in bytes (`XATTR_NAME_MAX`).
    pub const MAX: usize = 255;

    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// ERANGE when empty or over 255 bytes, as setxattr(2) answers; EINVAL with a NUL.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.is_empty() || bytes.len() > Self::MAX {
            return Err(Errno::RANGE);
        }
        if bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a terminator.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

macro_rules! shown_escaped {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.0.escape_ascii())
            }
        }
        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.escape_ascii().fmt(f)
            }
        }
    )*};
}
shown_escaped!(Name LinkTarget XattrName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"/etc", b"a\0", b"\0"] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL), "{}", bad.escape_ascii());
        }
        for good in [
            &b"a"[..],
            b"...",
            b"..a",
            b".a",
            b"a b",
            b"\xff\xfe",
            b"a\nb",
        ] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn names_end_at_255_bytes() {
        assert!(Name::new(&[b'a'; 255]).is_ok());
        assert_eq!(Name::new(&[b'a'; 256]), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn link_targets_may_be_absolute_but_not_empty_or_endless() {
        assert!(LinkTarget::new(b"/etc/passwd").is_ok());
        assert_eq!(LinkTarget::new(b""), Err(Errno::INVAL));
        assert_eq!(LinkTarget::new(b"a\0b"), Err(Errno::INVAL));
        assert!(LinkTarget::new(&[b'a'; 4095]).is_ok());
        assert_eq!(LinkTarget::new(&[b'a'; 4096]), Err(Errno::NAMETOOLONG));
    }
}
