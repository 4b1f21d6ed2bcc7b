//! Adding and removing names of inodes that exist.

use std::sync::Arc;

use vfsd_backend::posix::InodeFlags;
use vfsd_backend::{Errno, Name, Result};

use crate::inode::{Inode, MAX_LINKS};
use crate::meta::EntryRow;
use crate::node::VolumeNode;
use crate::txn::Txn;

impl VolumeNode {
    /// EPERM when the flags of this directory forbid new entries.
    pub(crate) fn check_entries_can_be_added(&self) -> Result<(), Errno> {
        if self.inode.state.read().flags().is_immutable() {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }

    /// EPERM when the flags of this directory, or of the entry's inode, forbid its removal.
    pub(crate) fn check_entry_can_be_removed(&self, entry: &Inode) -> Result<(), Errno> {
        self.inode.state.read().flags().check_changeable()?;
        entry.state.read().flags().check_changeable()
    }

    /// EXDEV when a directory that hands its project on would get an inode of another project.
    pub(crate) fn check_project(&self, entry: &Inode) -> Result<(), Errno> {
        let project = {
            let state = self.inode.state.read();
            if !state.flags().contains(InodeFlags::PROJINHERIT) {
                return Ok(());
            }
            state.row.project
        };
        if entry.state.read().row.project == project {
            Ok(())
        } else {
            Err(Errno::XDEV)
        }
    }

    /// Gives an inode one more name.
    pub(crate) fn add_link(&self, target: &Arc<Inode>, name: Name<'_>) -> Result<()> {
        let _names = self.core().names.lock();
        if self.core().find(&self.inode, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        self.check_entries_can_be_added()?;
        if target.is_directory() {
            return Err(Errno::PERM.into());
        }
        {
            let state = target.state.read();
            state.flags().check_changeable()?;
            if state.row.links == 0 && !state.row.linkable {
                return Err(Errno::NOENT.into());
            }
            if state.row.links >= MAX_LINKS {
                return Err(Errno::MLINK.into());
            }
        }
        self.check_project(target)?;
        let mut txn = Txn::new(self.core());
        let row = EntryRow {
            ino: target.ino,
            kind: target.kind,
            cookie: txn.new_cookie(&self.inode),
        };
        txn.put_entry(&self.inode, name.as_bytes().into(), Some(row));
        txn.change_links(target, 1);
        txn.entries_changed(&self.inode, 1, 0);
        txn.commit()
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn remove_name(&self, name: Name<'_>) -> Result<()> {
        let _names = self.core().names.lock();
        let inode = self.find(name)?.ok_or(Errno::NOENT)?;
        self.check_entry_can_be_removed(&inode)?;
        if inode.is_directory() {
            return Err(Errno::ISDIR.into());
        }
        let mut txn = Txn::new(self.core());
        txn.gives_space_back();
        txn.put_entry(&self.inode, name.as_bytes().into(), None);
        txn.change_links(&inode, -1);
        txn.entries_changed(&self.inode, -1, 0);
        txn.commit()
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, name: Name<'_>) -> Result<()> {
        let _names = self.core().names.lock();
        let inode = self.find(name)?.ok_or(Errno::NOENT)?;
        self.check_entry_can_be_removed(&inode)?;
        check_empty_directory(&inode)?;
        let mut txn = Txn::new(self.core());
        txn.gives_space_back();
        txn.put_entry(&self.inode, name.as_bytes().into(), None);
        txn.change_links(&inode, -2);
        txn.entries_changed(&self.inode, -1, -1);
        txn.commit()
    }
}

/// ENOTDIR for what is no directory, ENOTEMPTY for one with entries.
pub(crate) fn check_empty_directory(inode: &Inode) -> Result<(), Errno> {
    if !inode.is_directory() {
        return Err(Errno::NOTDIR);
    }
    if inode.state.read().row.entries == 0 {
        Ok(())
    } else {
        Err(Errno::NOTEMPTY)
    }
}
