//! How new inodes come to be.

use std::sync::Arc;

use vfsd_backend::posix::{NewRights, Parent};
use vfsd_backend::{Caller, Device, Errno, FileKind, Identity, Name, NewInode, Result, Timestamp};

use crate::core::check_directory;
use crate::inode::{Inode, State};
use crate::meta::{EntryRow, NodeRow};
use crate::node::VolumeNode;
use crate::txn::{Txn, count_xattrs, insert_xattr};

/// What kind of inode, and what belongs to the kind.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Regular,
    Directory,
    Symlink(&'a [u8]),
    Special(FileKind, Device),
}

impl Kind<'_> {
    fn file_kind(&self) -> FileKind {
        match self {
            Self::Regular => FileKind::Regular,
            Self::Directory => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::Special(kind, _) => *kind,
        }
    }
}

impl VolumeNode {
    /// What a new inode of this directory begins with.
    pub(crate) fn new_state(
        &self,
        caller: Caller,
        kind: &Kind<'_>,
        new: &NewInode<'_>,
    ) -> Result<State, Errno> {
        let (uid, gid) = self.core().owner;
        let maker = caller.identity.unwrap_or(Identity {
            uid,
            gid,
            supplementary: None,
        });
        let file_kind = kind.file_kind();
        let rights = {
            let parent = self.inode.state.read();
            let above = Parent {
                permissions: parent.row.permissions,
                gid: parent.row.gid,
                default_acl: parent.default_acl.as_deref(),
                flags: parent.flags(),
                project: parent.row.project,
            };
            NewRights::new(&above, &maker, file_kind, new)
        };
        let mut row = NodeRow::new(file_kind, rights.permissions, Timestamp::now());
        row.uid = maker.uid;
        row.gid = rights.gid;
        row.flags = rights.flags.bits();
        row.project = rights.project;
        match kind {
            Kind::Regular => {}
            Kind::Directory => row.parent = self.inode.ino,
            Kind::Symlink(target) => row.target = (*target).into(),
            Kind::Special(_, device) => row.device = *device,
        }
        let mut state = State::new(row);
        state.acl = rights.acl.map(Arc::new);
        state.default_acl = rights.default_acl.map(Arc::new);
        count_xattrs(&mut state);
        if let Some(security) = new.security {
            insert_xattr(&mut state, security.name.as_bytes(), security.value)?;
        }
        Ok(state)
    }

    /// Makes an inode with a name in this directory.
    pub(crate) fn make(
        &self,
        caller: Caller,
        name: Name<'_>,
        kind: &Kind<'_>,
        new: &NewInode<'_>,
    ) -> Result<Arc<Inode>> {
        // Read from the tables, if it must be, before others wait.
        self.core().find(&self.inode, name)?;
        let _names = self.core().names.lock();
        if self.core().find(&self.inode, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        self.check_entries_can_be_added()?;
        let inode = self.core().new_inode(self.new_state(caller, kind, new)?);
        let mut txn = Txn::new(self.core());
        txn.add_new(&inode);
        let row = EntryRow {
            ino: inode.ino,
            kind: inode.kind,
            cookie: txn.new_cookie(&self.inode),
        };
        txn.put_entry(&self.inode, name.as_bytes().into(), Some(row));
        txn.entries_changed(&self.inode, 1, i32::from(inode.is_directory()));
        txn.commit()?;
        Ok(inode)
    }

    /// Makes a file without a name.
    pub(crate) fn make_nameless(
        &self,
        caller: Caller,
        new: &NewInode<'_>,
        linkable: bool,
    ) -> Result<Arc<Inode>> {
        let _names = self.core().names.lock();
        check_directory(&self.inode)?;
        self.check_entries_can_be_added()?;
        let mut state = self.new_state(caller, &Kind::Regular, new)?;
        state.row.links = 0;
        state.row.linkable = linkable;
        let inode = self.core().new_inode(state);
        let mut txn = Txn::new(self.core());
        txn.add_new(&inode);
        if let Err(error) = txn.commit() {
            // There is nothing to be removed.
            inode.state.write().row.links = 1;
            return Err(error);
        }
        Ok(inode)
    }
}
