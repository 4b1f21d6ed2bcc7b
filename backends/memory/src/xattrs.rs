//! The extended attributes of an inode.

use std::collections::BTreeMap;

use vfsd_backend::{Errno, XattrFlags};

use crate::space::Space;

/// All names of an inode with their terminators fit in one answer of listxattr(2), beside the two
/// of ACLs.
const MAX_NAME_BYTES: usize = 64 * 1024 - 64;
/// All values of an inode together.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// What a table entry costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

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
