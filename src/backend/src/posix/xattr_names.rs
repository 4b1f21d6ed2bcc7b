//! Which extended attributes an inode may have, and what they mean to a file system.

use crate::{Errno, FileKind, XattrName};

/// The access ACL.
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The ACL that new entries of a directory get.
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// File capabilities: dropped when the content or the owner changes.
pub const CAPABILITY: &[u8] = b"security.capability";

/// Where an attribute is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrNamespace {
    /// `user.*`, `trusted.*` and `security.*`: a name and a value.
    Plain,
    /// The access ACL.
    AccessAcl,
    /// The default ACL.
    DefaultAcl,
}

impl XattrNamespace {
    /// Where `name` is kept for a file of this kind.
    ///
    /// # Errors
    /// EOPNOTSUPP for a name in no known namespace, EINVAL for a namespace without a name,
    /// `unowned` for `user.*` on a file that is neither regular nor a directory.
    pub fn of(name: XattrName<'_>, kind: FileKind, unowned: Errno) -> Result<Self, Errno> {
        let name = name.as_bytes();
        if name == ACL_ACCESS || name == ACL_DEFAULT {
            if kind == FileKind::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            return Ok(if name == ACL_ACCESS {
                Self::AccessAcl
            } else {
                Self::DefaultAcl
            });
        }
        let has_user = matches!(kind, FileKind::Regular | FileKind::Directory);
        for prefix in [&b"user."[..], b"trusted.", b"security."] {
            match name.strip_prefix(prefix) {
                Some(_) if prefix == b"user." && !has_user => return Err(unowned),
                Some(b"") => return Err(Errno::INVAL),
                Some(_) => return Ok(Self::Plain),
                None => {}
            }
        }
        Err(Errno::OPNOTSUPP)
    }
}
