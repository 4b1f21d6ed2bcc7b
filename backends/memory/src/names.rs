//! Adding and removing names of inodes that exist.

use std::sync::Arc;

use vfsd_backend::posix::InodeFlags;
use vfsd_backend::{Errno, Name};

use crate::inode::{Inode, MAX_LINKS};
use crate::node::MemoryNode;

impl MemoryNode {
    /// ENOTDIR unless this is a directory.
    pub(crate) fn check_directory(&self) -> Result<(), Errno> {
        if self.inode().is_directory() {
            Ok(())
        } else {
            Err(Errno::NOTDIR)
        }
    }

    /// EPERM when the flags of this directory forbid new entries.
    pub(crate) fn check_entries_can_be_added(&self) -> Result<(), Errno> {
        if self.inode().state.read().flags.is_immutable() {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }

    /// EPERM when the flags of this directory, or of the entry's inode, forbid its removal.
    pub(crate) fn check_entry_can_be_removed(&self, entry: &Inode) -> Result<(), Errno> {
        self.inode().state.read().flags.check_changeable()?;
        entry.state.read().flags.check_changeable()
    }

    /// EXDEV when a directory that hands its project on would get an inode of another project.
    pub(crate) fn check_project(&self, entry: &Inode) -> Result<(), Errno> {
        let project = {
            let state = self.inode().state.read();
            if !state.flags.contains(InodeFlags::PROJINHERIT) {
                return Ok(());
            }
            state.project
        };
        if entry.state.read().project == project {
            Ok(())
        } else {
            Err(Errno::XDEV)
        }
    }

    /// Finds the inode with a name in this directory.
    pub(crate) fn find(&self, name: Name<'_>) -> Result<Option<Arc<Inode>>, Errno> {
        self.check_directory()?;
        let namespace = self.file_system().namespace.read();
        Ok(namespace.entries(self.inode().number)?.get(name).cloned())
    }

    /// Gives an inode one more name.
    pub(crate) fn add_link(&self, target: &Arc<Inode>, name: Name<'_>) -> Result<(), Errno> {
        self.check_directory()?;
        let mut namespace = self.file_system().namespace.write();
        let entries = namespace.entries_mut(self.inode().number)?;
        if entries.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        self.check_entries_can_be_added()?;
        if target.is_directory() {
            return Err(Errno::PERM);
        }
        {
            let state = target.state.read();
            state.flags.check_changeable()?;
            if state.links == 0 && !state.linkable {
                return Err(Errno::NOENT);
            }
            if state.links >= MAX_LINKS {
                return Err(Errno::MLINK);
            }
        }
        self.check_project(target)?;
        entries.put(name, target.clone(), &self.file_system().space)?;
        target.change_links(1);
        self.inode().entries_changed(entries.bytes(), 0);
        Ok(())
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn remove_name(&self, name: Name<'_>) -> Result<(), Errno> {
        self.check_directory()?;
        let mut namespace = self.file_system().namespace.write();
        let entries = namespace.entries_mut(self.inode().number)?;
        let inode = entries.get(name).ok_or(Errno::NOENT)?.clone();
        self.check_entry_can_be_removed(&inode)?;
        if inode.is_directory() {
            return Err(Errno::ISDIR);
        }
        entries.remove(name, &self.file_system().space);
        inode.change_links(-1);
        self.inode().entries_changed(entries.bytes(), 0);
        Ok(())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, name: Name<'_>) -> Result<(), Errno> {
        self.check_directory()?;
        let mut namespace = self.file_system().namespace.write();
        let number = self.inode().number;
        let inode = namespace
            .entries(number)?
            .get(name)
            .ok_or(Errno::NOENT)?
            .clone();
        self.check_entry_can_be_removed(&inode)?;
        self.check_directory_is_empty(&namespace, &inode)?;
        let entries = namespace.entries_mut(number)?;
        entries.remove(name, &self.file_system().space);
        self.inode().entries_changed(entries.bytes(), -1);
        namespace.remove(inode.number);
        inode.change_links(-2);
        Ok(())
    }

    /// ENOTDIR for what is no directory, ENOTEMPTY for one with entries.
    pub(crate) fn check_directory_is_empty(
        &self,
        namespace: &crate::namespace::Namespace,
        inode: &Inode,
    ) -> Result<(), Errno> {
        if !inode.is_directory() {
            return Err(Errno::NOTDIR);
        }
        if namespace.entries(inode.number)?.is_empty() {
            Ok(())
        } else {
            Err(Errno::NOTEMPTY)
        }
    }
}
