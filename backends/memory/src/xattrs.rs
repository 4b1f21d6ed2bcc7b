//! The extended attributes of an inode, and which names it may have.

use std::collections::BTreeMap;

use vfsd_backend::{Errno, FileKind, XattrFlags, XattrName};

use crate::space::Space;

/// The access ACL.
pub(crate) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The ACL that new entries of a directory get.
pub(crate) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// File capabilities: dropped when the content or the owner changes.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// All names of an inode with their terminators fit in one answer of listxattr(2), beside the two
/// of ACLs.
const MAX_NAME_BYTES: usize = 64 * 1024 - 64;
/// All values of an inode together.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// What a table entry costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

/// Where an attribute is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `user.*`, `trusted.*` and `security.*`: a name and a value.
    Plain,
    /// The access ACL.
    AccessAcl,
    /// The default ACL.
    DefaultAcl,
}

impl Namespace {
    /// Where `name` is kept for a file of this kind.
    ///
    /// # Errors
    /// EOPNOTSUPP for a name in no known namespace, EINVAL for a namespace without a name,
    /// `unowned` for `user.*` on a file that is neither regular nor a directory.
    pub(crate) fn of(name: XattrName<'_>, kind: FileKind, unowned: Errno) -> Result<Self, Errno> {
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

/// Names and values.
#[derive(Debug, Default)]
pub(crate) struct Xattrs {
    values: BTreeMap<Box<[u8]>, Box<[u8]>>,
    name_bytes: usize,
    value_bytes: usize,
}

impl Xattrs {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.get(name).map(AsRef::as_ref)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.values.keys().map(AsRef::as_ref)
    }

    /// What the attributes cost.
    pub(crate) fn charged_bytes(&self) -> u64 {
        let table = self.values.len().saturating_mul(OVERHEAD_BYTES);
        let bytes = table
            .saturating_add(self.name_bytes)
            .saturating_add(self.value_bytes);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Sets a value.
    ///
    /// # Errors
    /// EEXIST or ENODATA as the flags say; ENOSPC when the inode or the file system is full.
    pub(crate) fn set(
        &mut self,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
        space: &Space,
    ) -> Result<(), Errno> {
        let old = self.values.get(name).map(|old| old.len());
        match old {
            Some(_) if flags.contains(XattrFlags::CREATE) => return Err(Errno::EXIST),
            None if flags.contains(XattrFlags::REPLACE) => return Err(Errno::NODATA),
            _ => {}
        }
        let name_bytes = match old {
            Some(_) => self.name_bytes,
            None => self.name_bytes.saturating_add(name.len()).saturating_add(1),
        };
        let value_bytes = self
            .value_bytes
            .saturating_sub(old.unwrap_or(0))
            .saturating_add(value.len());
        if name_bytes > MAX_NAME_BYTES || value_bytes > MAX_VALUE_BYTES {
            return Err(Errno::NOSPC);
        }
        let before = self.charged_bytes();
        let entries = self.values.len().saturating_add(usize::from(old.is_none()));
        let after = entries
            .saturating_mul(OVERHEAD_BYTES)
            .saturating_add(name_bytes)
            .saturating_add(value_bytes);
        space.recharge(before, u64::try_from(after).unwrap_or(u64::MAX))?;
        self.values.insert(name.into(), value.into());
        self.name_bytes = name_bytes;
        self.value_bytes = value_bytes;
        Ok(())
    }

    /// Removes a value, and says whether there was one.
    pub(crate) fn remove(&mut self, name: &[u8], space: &Space) -> bool {
        let before = self.charged_bytes();
        let Some(old) = self.values.remove(name) else {
            return false;
        };
        self.name_bytes = self.name_bytes.saturating_sub(name.len().saturating_add(1));
        self.value_bytes = self.value_bytes.saturating_sub(old.len());
        space.refund(before.saturating_sub(self.charged_bytes()));
        true
    }
}
