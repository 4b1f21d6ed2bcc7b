//! renameat2(2).

use std::sync::Arc;

use vfsd_backend::{Caller, Device, Errno, FileKind, Name, NewInode, RenameFlags};

use crate::create::Kind;
use crate::inode::Inode;
use crate::namespace::Namespace;
use crate::node::MemoryNode;

/// One end of a rename: a name in a directory, and what it stands for.
struct End<'a> {
    directory: &'a MemoryNode,
    name: Name<'a>,
    inode: Option<Arc<Inode>>,
}

impl MemoryNode {
    /// Moves `name` of this directory to `new_name` of `new_parent`.
    pub(crate) fn move_name(
        &self,
        caller: Caller,
        name: Name<'_>,
        new_parent: &Self,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.check_directory()?;
        new_parent.check_directory()?;
        let mut namespace = self.file_system().namespace.write();
        let old = End::find(&namespace, self, name)?;
        let new = End::find(&namespace, new_parent, new_name)?;
        let moved = old.inode.clone().ok_or(Errno::NOENT)?;
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = new.inode.clone().ok_or(Errno::NOENT)?;
            return exchange(&mut namespace, &old, &moved, &new, &other);
        }
        if new.inode.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EXIST);
        }
        if namespace.is_within(new_parent.inode().number, moved.number) {
            return Err(Errno::INVAL);
        }
        if let Some(replaced) = &new.inode {
            if namespace.is_within(self.inode().number, replaced.number) {
                return Err(Errno::NOTEMPTY);
            }
            if Arc::ptr_eq(replaced, &moved) {
                return Ok(());
            }
        }
        self.check_entry_can_be_removed(&moved)?;
        match &new.inode {
            None => new_parent.check_entries_can_be_added()?,
            Some(replaced) => {
                new_parent.check_entry_can_be_removed(replaced)?;
                if moved.is_directory() {
                    self.check_directory_is_empty(&namespace, replaced)?;
                } else if replaced.is_directory() {
                    return Err(Errno::ISDIR);
                }
            }
        }
        new_parent.check_project(&moved)?;
        // What can fail comes first: from here on nothing is refused.
        let whiteout = flags
            .contains(RenameFlags::WHITEOUT)
            .then(|| self.new_whiteout(caller))
            .transpose()?;
        let space = &self.file_system().space;
        let replaced = namespace.entries_mut(new_parent.inode().number)?.put(
            new_name,
            moved.clone(),
            space,
        )?;
        let entries = namespace.entries_mut(self.inode().number)?;
        match whiteout {
            // The name exists, so that no space is needed for it.
            Some(whiteout) => drop(entries.put(name, whiteout, space)?),
            None => drop(entries.remove(name, space)),
        }
        let leaves = i32::from(moved.is_directory());
        let goes = i32::from(replaced.as_ref().is_some_and(|inode| inode.is_directory()));
        if moved.is_directory() {
            namespace.set_parent(moved.number, new_parent.inode().number);
        }
        if let Some(replaced) = replaced {
            namespace.remove(replaced.number);
            replaced.change_links(if replaced.is_directory() { -2 } else { -1 });
        }
        moved.state.write().attributes_changed();
        note(&namespace, self, leaves.saturating_neg())?;
        note(&namespace, new_parent, leaves.saturating_sub(goes))
    }

    /// The character device 0/0 that an overlay takes for a removed name.
    fn new_whiteout(&self, caller: Caller) -> Result<Arc<Inode>, Errno> {
        self.new_inode(
            caller,
            &Kind::Special(FileKind::CharDevice, Device::default()),
            NewInode {
                permissions: 0,
                umask: 0,
                security: None,
            },
        )
    }
}

impl<'a> End<'a> {
    fn find(
        namespace: &Namespace,
        directory: &'a MemoryNode,
        name: Name<'a>,
    ) -> Result<Self, Errno> {
        let inode = namespace
            .entries(directory.inode().number)?
            .get(name)
            .cloned();
        Ok(Self {
            directory,
            name,
            inode,
        })
    }
}

/// Lets two names change places.
fn exchange(
    namespace: &mut Namespace,
    old: &End<'_>,
    moved: &Arc<Inode>,
    new: &End<'_>,
    other: &Arc<Inode>,
) -> Result<(), Errno> {
    let (old_parent, new_parent) = (old.directory.inode(), new.directory.inode());
    if namespace.is_within(new_parent.number, moved.number)
        || namespace.is_within(old_parent.number, other.number)
    {
        return Err(Errno::INVAL);
    }
    if Arc::ptr_eq(moved, other) {
        return Ok(());
    }
    old.directory.check_entry_can_be_removed(moved)?;
    new.directory.check_entry_can_be_removed(other)?;
    new.directory.check_project(moved)?;
    old.directory.check_project(other)?;
    let space = &old.directory.file_system().space;
    // Both names exist, so that no space is needed.
    namespace
        .entries_mut(old_parent.number)?
        .put(old.name, other.clone(), space)?;
    namespace
        .entries_mut(new_parent.number)?
        .put(new.name, moved.clone(), space)?;
    for (inode, parent) in [(moved, new_parent), (other, old_parent)] {
        if inode.is_directory() {
            namespace.set_parent(inode.number, parent.number);
        }
        inode.state.write().attributes_changed();
    }
    let arrives = i32::from(other.is_directory());
    let leaves = i32::from(moved.is_directory());
    note(namespace, old.directory, arrives.saturating_sub(leaves))?;
    note(namespace, new.directory, leaves.saturating_sub(arrives))
}

/// Brings a directory's own attributes in step with its entries.
fn note(namespace: &Namespace, directory: &MemoryNode, subdirectories: i32) -> Result<(), Errno> {
    let bytes = namespace.entries(directory.inode().number)?.bytes();
    directory.inode().entries_changed(bytes, subdirectories);
    Ok(())
}
