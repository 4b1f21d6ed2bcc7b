//! renameat2(2).

use std::sync::Arc;

use vfsd_backend::{Caller, Device, Errno, FileKind, Name, NewInode, RenameFlags, Result};

use crate::create::Kind;
use crate::inode::Inode;
use crate::meta::EntryRow;
use crate::names::check_empty_directory;
use crate::node::VolumeNode;
use crate::txn::Txn;

/// One end of a rename: a name in a directory, and what it stands for.
struct End<'a> {
    directory: &'a VolumeNode,
    name: Name<'a>,
    row: Option<EntryRow>,
    inode: Option<Arc<Inode>>,
}

impl<'a> End<'a> {
    fn find(directory: &'a VolumeNode, name: Name<'a>) -> Result<Self> {
        let row = directory.core().find(&directory.inode, name)?;
        let inode = row.map(|row| directory.core().inode(row.ino)).transpose()?;
        Ok(Self {
            directory,
            name,
            row,
            inode,
        })
    }

    fn ino(&self) -> u64 {
        self.directory.inode.ino
    }

    /// Makes the name stand for `inode`. A name that exists keeps its place in listings.
    fn put(&self, txn: &mut Txn<'a>, inode: &Inode) {
        let directory = &*self.directory.inode;
        let cookie = match self.row {
            Some(row) => row.cookie,
            None => txn.new_cookie(directory),
        };
        let row = EntryRow {
            ino: inode.ino,
            kind: inode.kind,
            cookie,
        };
        txn.put_entry(directory, self.name.as_bytes().into(), Some(row));
    }
}

impl VolumeNode {
    /// Moves `name` of this directory to `new_name` of `new_parent`.
    pub(crate) fn move_name(
        &self,
        caller: Caller,
        name: Name<'_>,
        new_parent: &Self,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let core = self.core();
        let _names = core.names.lock();
        if !self.inode.is_directory() || !new_parent.inode.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        // Either may have been removed: that is found by who looks for a name in it.
        let old = End::find(self, name)?;
        let new = End::find(new_parent, new_name)?;
        let moved = old.inode.clone().ok_or(Errno::NOENT)?;
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = new.inode.clone().ok_or(Errno::NOENT)?;
            return exchange(&old, &moved, &new, &other);
        }
        if new.inode.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EXIST.into());
        }
        if moved.is_directory() && core.is_within(new.ino(), moved.ino)? {
            return Err(Errno::INVAL.into());
        }
        if let Some(replaced) = &new.inode {
            if replaced.is_directory() && core.is_within(old.ino(), replaced.ino)? {
                return Err(Errno::NOTEMPTY.into());
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
                    check_empty_directory(replaced)?;
                } else if replaced.is_directory() {
                    return Err(Errno::ISDIR.into());
                }
            }
        }
        new_parent.check_project(&moved)?;
        let whiteout = flags
            .contains(RenameFlags::WHITEOUT)
            .then(|| self.new_whiteout(caller))
            .transpose()?;
        if new.inode.is_some() && moved.has_unsynced_data() {
            core.sync_before_names(moved.ino);
        }

        let mut txn = Txn::new(core);
        new.put(&mut txn, &moved);
        match &whiteout {
            Some(whiteout) => {
                txn.add_new(whiteout);
                old.put(&mut txn, whiteout);
            }
            None => txn.put_entry(&self.inode, name.as_bytes().into(), None),
        }
        let leaves = i32::from(moved.is_directory());
        let replaced = new.inode.as_deref();
        let goes = i32::from(replaced.is_some_and(Inode::is_directory));
        if let Some(replaced) = replaced {
            txn.change_links(replaced, if replaced.is_directory() { -2 } else { -1 });
        }
        let state = txn.state(&moved);
        state.attributes_changed();
        if moved.is_directory() {
            state.row.parent = new.ino();
        }
        let gone = if whiteout.is_some() { 0 } else { -1 };
        txn.entries_changed(&self.inode, gone, leaves.saturating_neg());
        let came = i64::from(replaced.is_none());
        txn.entries_changed(&new_parent.inode, came, leaves.saturating_sub(goes));
        txn.commit()
    }

    /// The character device 0/0 that an overlay takes for a removed name.
    fn new_whiteout(&self, caller: Caller) -> Result<Arc<Inode>, Errno> {
        let new = NewInode {
            permissions: 0,
            umask: 0,
            security: None,
        };
        let kind = Kind::Special(FileKind::CharDevice, Device::default());
        let state = self.new_state(caller, &kind, &new)?;
        Ok(self.core().new_inode(state))
    }
}

/// Lets two names change places.
fn exchange(old: &End<'_>, moved: &Arc<Inode>, new: &End<'_>, other: &Arc<Inode>) -> Result<()> {
    let core = old.directory.core();
    let loops = |directory: u64, inode: &Inode| match inode.is_directory() {
        true => core.is_within(directory, inode.ino),
        false => Ok(false),
    };
    if loops(new.ino(), moved)? || loops(old.ino(), other)? {
        return Err(Errno::INVAL.into());
    }
    if Arc::ptr_eq(moved, other) {
        return Ok(());
    }
    old.directory.check_entry_can_be_removed(moved)?;
    new.directory.check_entry_can_be_removed(other)?;
    new.directory.check_project(moved)?;
    old.directory.check_project(other)?;
    let mut txn = Txn::new(core);
    old.put(&mut txn, other);
    new.put(&mut txn, moved);
    for (inode, parent) in [(moved, new.ino()), (other, old.ino())] {
        let state = txn.state(inode);
        state.attributes_changed();
        if inode.is_directory() {
            state.row.parent = parent;
        }
    }
    let arrives = i32::from(other.is_directory());
    let leaves = i32::from(moved.is_directory());
    let (from, to) = (&*old.directory.inode, &*new.directory.inode);
    txn.entries_changed(from, 0, arrives.saturating_sub(leaves));
    txn.entries_changed(to, 0, leaves.saturating_sub(arrives));
    txn.commit()
}
