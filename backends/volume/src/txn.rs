//! A transaction: all changes of an operation to rows, in memory and in the journal, or none of them.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use smallvec::SmallVec;
use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT, Acl, CAPABILITY, SET_GROUP_ID};
use vfsd_backend::{Errno, FileKind, Result, XattrFlags};

use crate::core::Core;
use crate::inode::{Inode, Pending, State};
use crate::live::Passing;
use crate::meta::{Change, EntryRow, Purpose};

/// All names of an inode with their terminators fit in one answer of listxattr(2), beside the two
/// of ACLs.
const MAX_NAME_BYTES: usize = 64 * 1024 - 64;
/// All values of an inode together.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Changes that are not made yet. Dropped, it changes nothing.
pub(crate) struct Txn<'a> {
    core: &'a Core,
    held: SmallVec<[Held<'a>; 2]>,
    entries: SmallVec<[NewEntry<'a>; 2]>,
    changes: Vec<Change>,
    /// How many inodes are new.
    new: u64,
    purpose: Purpose,
    /// Until the states are let go of.
    _passing: Option<Passing<'a>>,
}

/// A name in a directory, and what it stands for from then on.
type NewEntry<'a> = (&'a Inode, Arc<[u8]>, Option<EntryRow>);

struct Held<'a> {
    inode: &'a Inode,
    now: RwLockWriteGuard<'a, State>,
    new: State,
}

impl<'a> Txn<'a> {
    /// Changes to the rows of one inode, or of several by who holds the lock of names.
    pub(crate) fn new(core: &'a Core) -> Self {
        Self {
            _passing: Some(core.pass()),
            ..Self::within(core)
        }
    }

    /// As [`new`](Self::new), by who passes, or has the cut alone.
    pub(crate) fn within(core: &'a Core) -> Self {
        Self {
            core,
            held: SmallVec::new(),
            entries: SmallVec::new(),
            changes: Vec::with_capacity(8),
            new: 0,
            purpose: Purpose::Usual,
            _passing: None,
        }
    }

    /// It is to be done also when the disk is full.
    pub(crate) fn gives_space_back(&mut self) {
        self.purpose = Purpose::Freeing;
    }

    /// The state of an inode as it will be. It stays locked until the end.
    pub(crate) fn state(&mut self, inode: &'a Inode) -> &mut State {
        let known = self
            .held
            .iter()
            .position(|held| std::ptr::eq(held.inode, inode));
        let index = known.unwrap_or_else(|| {
            let now = inode.state.write();
            let new = State::clone(&now);
            self.held.push(Held { inode, now, new });
            self.held.len().saturating_sub(1)
        });
        #[allow(clippy::indexing_slicing, reason = "found, or pushed, just now")]
        &mut self.held[index].new
    }

    /// Writes an inode that nobody can have found yet.
    pub(crate) fn add_new(&mut self, inode: &Inode) {
        let state = inode.state.read();
        self.new = self.new.saturating_add(1);
        self.changes
            .push(Change::Node(inode.ino, Some(state.row.clone())));
        let acls = [(ACL_ACCESS, &state.acl), (ACL_DEFAULT, &state.default_acl)];
        for (name, acl) in acls {
            if let Some(acl) = acl {
                self.push_xattr(inode.ino, name.into(), Some(acl.encode().into()));
            }
        }
        for (name, value) in state.xattrs.iter() {
            self.push_xattr(inode.ino, name.clone(), Some(value.clone()));
        }
        if state.row.links == 0 {
            self.changes.push(Change::Orphan(inode.ino, true));
        }
    }

    /// Makes a name stand for an inode, or removes it.
    pub(crate) fn put_entry(
        &mut self,
        directory: &'a Inode,
        name: Arc<[u8]>,
        row: Option<EntryRow>,
    ) {
        self.changes
            .push(Change::Entry(directory.ino, name.clone(), row));
        self.entries.push((directory, name, row));
    }

    /// A place in the listings of a directory.
    pub(crate) fn new_cookie(&mut self, directory: &'a Inode) -> u64 {
        let row = &mut self.state(directory).row;
        let cookie = row.next_cookie;
        row.next_cookie = cookie.saturating_add(1);
        cookie
    }

    /// Takes note, in a directory, of how many entries, and subdirectories, there are more or fewer.
    pub(crate) fn entries_changed(&mut self, directory: &'a Inode, entries: i64, subs: i32) {
        let state = self.state(directory);
        state.row.entries = state.row.entries.saturating_add_signed(entries);
        state.row.links = state.row.links.saturating_add_signed(subs);
        state.content_changed();
    }

    /// Takes note that an inode has so many names more or fewer.
    pub(crate) fn change_links(&mut self, inode: &'a Inode, by: i32) {
        let state = self.state(inode);
        let before = state.row.links;
        state.row.links = before.saturating_add_signed(by);
        state.row.linkable = false;
        state.attributes_changed();
        let (had, has) = (before > 0, state.row.links > 0);
        if had != has {
            self.changes.push(Change::Orphan(inode.ino, had));
        }
    }

    /// Takes note of a hole in the content of an inode of a volume in a bucket.
    pub(crate) fn note_hole(&mut self, inode: &Inode, hole: &Range<u64>) {
        if self.core.live.is_some() && hole.start < hole.end {
            let hole = Change::Hole(inode.ino, hole.start, hole.end);
            self.changes.push(hole);
        }
    }

    fn push_xattr(&mut self, ino: u64, name: Arc<[u8]>, value: Option<Arc<[u8]>>) {
        self.changes.push(Change::Xattr(ino, name, value));
    }

    /// Sets an extended attribute that is no ACL.
    ///
    /// # Errors
    /// EEXIST or ENODATA as the flags say; ENOSPC when the inode has too many.
    pub(crate) fn set_xattr(
        &mut self,
        inode: &'a Inode,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<(), Errno> {
        let state = self.state(inode);
        let old = state.xattrs.get(name).map(|old| old.len());
        match old {
            Some(_) if flags.contains(XattrFlags::CREATE) => return Err(Errno::EXIST),
            None if flags.contains(XattrFlags::REPLACE) => return Err(Errno::NODATA),
            _ => {}
        }
        insert_xattr(state, name, value)?;
        self.push_xattr(inode.ino, name.into(), Some(value.into()));
        Ok(())
    }

    /// Removes an extended attribute that is no ACL, and says whether there was one.
    pub(crate) fn remove_xattr(&mut self, inode: &'a Inode, name: &[u8]) -> bool {
        let state = self.state(inode);
        if !state.xattrs.contains_key(name) {
            return false;
        }
        Arc::make_mut(&mut state.xattrs).remove(name);
        count_xattrs(state);
        self.push_xattr(inode.ino, name.into(), None);
        true
    }

    /// Drops file capabilities, which were granted to other content or another owner. Unlike set-id
    /// bits, they go whoever makes the change.
    pub(crate) fn drop_capability(&mut self, inode: &'a Inode) {
        self.remove_xattr(inode, CAPABILITY);
    }

    /// Replaces the access ACL, and the permission bits by what it says. A list that says no more
    /// than the bits is not kept.
    pub(crate) fn set_access_acl(&mut self, inode: &'a Inode, acl: Option<Acl>, flags: XattrFlags) {
        let state = self.state(inode);
        if let Some(acl) = &acl {
            state.row.permissions = acl.apply_to_mode(state.row.permissions);
            if flags.contains(XattrFlags::KILL_SGID) {
                state.row.permissions &= !SET_GROUP_ID;
            }
        }
        let kept = acl.filter(|acl| !acl.is_minimal()).map(Arc::new);
        let value = kept.as_ref().map(|acl| acl.encode().into());
        state.acl = kept;
        count_xattrs(state);
        self.push_xattr(inode.ino, ACL_ACCESS.into(), value);
    }

    /// Replaces the default ACL.
    pub(crate) fn set_default_acl(&mut self, inode: &'a Inode, acl: Option<Acl>) {
        let value = acl.as_ref().map(|acl| acl.encode().into());
        let state = self.state(inode);
        state.default_acl = acl.map(Arc::new);
        count_xattrs(state);
        self.push_xattr(inode.ino, ACL_DEFAULT.into(), value);
    }

    /// Replaces the permission bits, and those of the access ACL.
    pub(crate) fn set_permissions(&mut self, inode: &'a Inode, permissions: u32) {
        let state = self.state(inode);
        state.row.permissions = permissions & 0o7777;
        if let Some(acl) = &mut state.acl {
            let acl = Arc::make_mut(acl);
            acl.apply_mode(permissions & 0o7777);
            let value = acl.encode().into();
            self.push_xattr(inode.ino, ACL_ACCESS.into(), Some(value));
        }
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// ENOSPC or EIO as the host's file system says, ENOSPC where there are too many inodes; then nothing has changed.
    pub(crate) fn commit(mut self) -> Result<()> {
        for held in &mut self.held {
            let unsettled = held.new.pending == Pending::Content;
            // Who has the content alone has set them already.
            if unsettled && let Some(blocks) = held.inode.blocks_now() {
                held.new.row.blocks = blocks;
            }
            held.new.pending = Pending::Nothing;
            if held.new.row != held.now.row || held.now.pending != Pending::Nothing {
                self.changes
                    .push(Change::Node(held.inode.ino, Some(held.new.row.clone())));
            }
            if unsettled {
                self.changes.push(Change::Unsettled(held.inode.ino, false));
            }
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        let usage = &self.core.usage;
        usage.may_add(self.new)?;
        self.core.commit(self.changes, self.purpose)?;
        self.core.count_new(self.new);
        usage.added(self.new);
        for held in self.held {
            let Held {
                inode,
                mut now,
                new,
            } = held;
            usage.resized(now.row.size, new.row.size);
            if usage.is_limited() && now.row.links > 0 && new.row.links == 0 {
                self.core.upkeep.unlinked(inode.ino);
            }
            *now = new;
        }
        // All at once: who looks for two names sees both ends of a rename, or none.
        let mut slots: SmallVec<[_; 2]> = SmallVec::new();
        for (directory, ..) in &self.entries {
            if !slots
                .iter()
                .any(|(known, _): &(&Inode, _)| std::ptr::eq(*known, *directory))
            {
                slots.push((*directory, directory.entries.write()));
            }
        }
        for (directory, name, row) in self.entries {
            let slot = slots
                .iter_mut()
                .find(|(known, _)| std::ptr::eq(*known, directory));
            if let Some((_, slot)) = slot {
                self.core.put_entry(slot, name, row);
            }
        }
        Ok(())
    }
}

/// Puts an attribute into a state.
///
/// # Errors
/// ENOSPC when the inode has too many.
pub(crate) fn insert_xattr(state: &mut State, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let others = state.xattrs.iter().filter(|(other, _)| &***other != name);
    let (names, values) = others.fold((0_usize, 0_usize), |(names, values), (name, value)| {
        let names = names.saturating_add(name.len()).saturating_add(1);
        (names, values.saturating_add(value.len()))
    });
    let names = names.saturating_add(name.len()).saturating_add(1);
    if names > MAX_NAME_BYTES || values.saturating_add(value.len()) > MAX_VALUE_BYTES {
        return Err(Errno::NOSPC);
    }
    Arc::make_mut(&mut state.xattrs).insert(name.into(), value.into());
    count_xattrs(state);
    Ok(())
}

pub(crate) fn count_xattrs(state: &mut State) {
    let acls = [state.acl.is_some(), state.default_acl.is_some()];
    let count = state
        .xattrs
        .len()
        .saturating_add(acls.into_iter().filter(|acl| *acl).count());
    state.row.xattrs = u32::try_from(count).unwrap_or(u32::MAX);
}

/// Whether a kind of inode has content of its own.
///
/// # Errors
/// EISDIR for a directory, EINVAL for all else that has none.
pub(crate) fn check_has_content(kind: FileKind) -> Result<(), Errno> {
    match kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}
