//! How new inodes come to be: whose they are, and what they inherit from their directory.

use std::sync::Arc;

use vfsd_backend::posix::{Acl, NewRights, Parent};
use vfsd_backend::{Caller, Device, Errno, FileKind, Identity, Name, NewInode, XattrFlags};

use crate::content::Content;
use crate::inode::{Beginning, Body, Inode};
use crate::node::MemoryNode;

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

    fn device(&self) -> Device {
        match self {
            Self::Special(FileKind::CharDevice | FileKind::BlockDevice, device) => *device,
            _ => Device::default(),
        }
    }

    fn body(&self) -> Body {
        match self {
            Self::Regular => Body::Regular(Content::default()),
            Self::Directory => Body::Directory { entry_bytes: 0 },
            Self::Symlink(target) => Body::Symlink((*target).into()),
            Self::Special(..) => Body::Special,
        }
    }
}

impl MemoryNode {
    /// Makes an inode that belongs into this directory, without a name yet.
    pub(crate) fn new_inode(
        &self,
        caller: Caller,
        kind: &Kind<'_>,
        new: NewInode<'_>,
    ) -> Result<Arc<Inode>, Errno> {
        let file_system = self.file_system();
        let identity = caller.identity.unwrap_or(Identity {
            uid: file_system.uid,
            gid: file_system.gid,
            supplementary: None,
        });
        let file_kind = kind.file_kind();
        let begin;
        let rights;
        {
            let parent = self.inode().state.read();
            let above = Parent {
                permissions: parent.permissions,
                gid: parent.gid,
                default_acl: parent.default_acl.as_ref(),
                flags: parent.flags,
                project: parent.project,
            };
            rights = NewRights::new(&above, &identity, file_kind, &new);
            begin = Beginning {
                number: file_system.next_inode_number(),
                kind: file_kind,
                device: kind.device(),
                permissions: rights.permissions,
                uid: identity.uid,
                gid: rights.gid,
                links: match kind {
                    Kind::Directory => 2,
                    _ => 1,
                },
                flags: rights.flags,
                project: rights.project,
                body: kind.body(),
            };
        }
        let mut inode = Inode::new(begin, &file_system.space)?;
        let space = inode.space.clone();
        let state = inode.state.get_mut();
        space.charge(
            [&rights.acl, &rights.default_acl]
                .into_iter()
                .flatten()
                .map(Acl::encoded_bytes)
                .fold(0, u64::saturating_add),
        )?;
        state.acl = rights.acl;
        state.default_acl = rights.default_acl;
        if let Some(security) = new.security {
            let name = security.name.as_bytes();
            state
                .xattrs
                .set(name, security.value, XattrFlags::empty(), &space)?;
        }
        Ok(Arc::new(inode))
    }

    /// Makes an inode with a name in this directory.
    pub(crate) fn make(
        &self,
        caller: Caller,
        name: Name<'_>,
        kind: &Kind<'_>,
        new: NewInode<'_>,
    ) -> Result<Arc<Inode>, Errno> {
        self.check_directory()?;
        let mut namespace = self.file_system().namespace.write();
        let number = self.inode().number;
        if namespace.entries(number)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        self.check_entries_can_be_added()?;
        let inode = self.new_inode(caller, kind, new)?;
        let entries = namespace.entries_mut(number)?;
        entries.put(name, inode.clone(), &self.file_system().space)?;
        let bytes = entries.bytes();
        if inode.is_directory() {
            namespace.add(inode.number, number);
        }
        self.inode()
            .entries_changed(bytes, i32::from(inode.is_directory()));
        Ok(inode)
    }
}
