//! Changes of attributes.

use parking_lot::RwLockWriteGuard;
use vfsd_backend::{AttributeChanges, Attributes, Errno, FileKind, Result, SetTime, Timestamp};

use crate::content::Slot;
use crate::inode::{Inode, State, resolve};
use crate::live::ranges::{END, down, up};
use crate::meta::Purpose;
use crate::node::VolumeNode;
use crate::txn::{Txn, check_has_content};

impl VolumeNode {
    pub(crate) fn change_attributes(&self, changes: AttributeChanges) -> Result<Attributes> {
        let inode = &*self.inode;
        check_changes(&inode.state.read(), &changes, inode.kind)?;
        let slot = match changes.size {
            Some(size) => Some((size, self.alone_to_cut(size)?)),
            None => None,
        };
        if let Some((size, _)) = &slot {
            let usage = &inode.core.usage;
            usage.may_reach(*size, || inode.state.read().row.size)?;
        }
        let _passing = inode.core.pass();
        let cut = match &slot {
            Some((size, slot)) => Some((*size, inode.cut(slot, *size)?)),
            None => None,
        };
        let mut txn = Txn::within(&inode.core);
        if cut.is_some() {
            txn.gives_space_back();
        }
        let state = txn.state(inode);
        // Others may have changed the flags meanwhile.
        check_changes(state, &changes, inode.kind)?;
        if let Some((size, blocks)) = cut {
            state.row.size = size;
            state.row.blocks = blocks;
            state.content_changed();
            txn.note_hole(inode, &(up(size)..END));
            txn.drop_capability(inode);
        }
        let now = Timestamp::now();
        let state = txn.state(inode);
        let new_owner = changes.uid.is_some() || changes.gid.is_some();
        state.row.uid = changes.uid.unwrap_or(state.row.uid);
        state.row.gid = changes.gid.unwrap_or(state.row.gid);
        // A change of owner takes set-id bits from whoever makes it, as chown(2) of Linux does.
        if !inode.is_directory() && (new_owner || changes.kill_privileges) {
            state.clear_set_id();
            txn.drop_capability(inode);
        }
        if let Some(permissions) = changes.permissions {
            txn.set_permissions(inode, permissions);
        }
        let state = txn.state(inode);
        if let Some(time) = changes.accessed {
            state.row.accessed = resolve(time, now);
        }
        if let Some(time) = changes.modified {
            state.row.modified = resolve(time, now);
        }
        if !changes.is_empty() {
            state.row.changed = now;
        }
        txn.commit()?;
        drop(slot);
        Ok(inode.attributes())
    }

    /// Drops the content of a file that is opened.
    pub(crate) fn truncate_at_open(&self, kill_privileges: bool) -> Result<()> {
        let inode = &*self.inode;
        inode.before_order()?;
        let slot = inode.alone(false)?;
        let _passing = inode.core.pass();
        let blocks = inode.cut(&slot, 0)?;
        let mut txn = Txn::within(&inode.core);
        txn.gives_space_back();
        let state = txn.state(inode);
        if kill_privileges {
            state.clear_set_id();
        }
        state.row.size = 0;
        state.row.blocks = blocks;
        state.content_changed();
        txn.note_hole(inode, &(0..END));
        txn.drop_capability(inode);
        txn.commit()
    }

    /// The content alone, with all of the block here that a new size is in the middle of.
    fn alone_to_cut(&self, size: u64) -> Result<RwLockWriteGuard<'_, Slot>> {
        self.inode.before_order()?;
        let _pin = self.inode.content.pin();
        loop {
            let slot = self.inode.alone(size > 0)?;
            let block = down(size)..size;
            let Some((_, map)) = self.inode.live() else {
                return Ok(slot);
            };
            if slot.is_none() || !map.misses(&block) {
                return Ok(slot);
            }
            drop(slot);
            self.inode.fetch_now(&block)?;
        }
    }
}

impl Inode {
    /// Sets the size of the data file, and answers its blocks. Without one the size is 0 already.
    fn cut(&self, slot: &Slot, size: u64) -> Result<u64> {
        let Some(file) = slot else {
            return Ok(0);
        };
        self.mark_unsettled(Purpose::Freeing)?;
        let mut elsewhere = Vec::new();
        if size < self.state.read().row.size {
            elsewhere = self.missing(&(up(size)..END));
            let end = up(size)..END;
            self.ready_for_holes(&end, &elsewhere, || {
                self.keep_order(|| self.note_holes(&end, &elsewhere, Purpose::Freeing))?;
                Ok(self.about_to_change(file, &(size..END), false)?)
            })?;
        }
        if let Err(errno) = rustix::fs::ftruncate(file, size) {
            self.give_back(Some(file), &elsewhere, 0)?;
            return Err(errno.into());
        }
        self.core.failpoints.reach("cut off");
        self.content.changed();
        Ok(self.blocks_of(file)?)
    }
}

/// What `may_setattr` of the kernel refuses, and sizes for what has none.
fn check_changes(state: &State, changes: &AttributeChanges, kind: FileKind) -> Result<(), Errno> {
    let times = [changes.accessed, changes.modified];
    let explicit = times
        .iter()
        .any(|time| matches!(time, Some(SetTime::At(_))));
    let touched = times.contains(&Some(SetTime::Now));
    let owned = changes.permissions.is_some() || changes.uid.is_some() || changes.gid.is_some();
    if owned || explicit || changes.size.is_some() {
        state.flags().check_changeable()?;
    }
    if touched && state.flags().is_immutable() {
        return Err(Errno::PERM);
    }
    if changes.permissions.is_some() && kind == FileKind::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    if changes.size.is_some() {
        check_has_content(kind)?;
    }
    Ok(())
}
