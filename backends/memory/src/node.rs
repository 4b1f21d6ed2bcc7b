//! A node: an inode as the server sees it.

use std::any::Any;
use std::sync::Arc;

use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT, Acl, InodeFlags, XattrNamespace};
use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, Caller, Created, Directory, Entry, Errno,
    FileCaching, FileKind, FsStatistics, FsXattr, LinkTarget, Lookup, Name, NewDevice, NewInode,
    Node, NodeIdentity, OpenFlags, OpenRequest, Opened, Rename, Result, SetTime, Timestamp, Ttl,
    XattrFlags, XattrName,
};

use crate::FileSystem;
use crate::create::Kind;
use crate::directory::OpenDirectory;
use crate::file::OpenFile;
use crate::inode::{Body, Inode, State, resolve};

#[derive(Clone)]
pub(crate) struct MemoryNode {
    file_system: Arc<FileSystem>,
    inode: Arc<Inode>,
}

impl MemoryNode {
    pub(crate) fn new(file_system: Arc<FileSystem>, inode: Arc<Inode>) -> Self {
        Self { file_system, inode }
    }

    pub(crate) fn file_system(&self) -> &FileSystem {
        &self.file_system
    }

    pub(crate) fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// EXDEV for a node of another file system.
    fn sibling<'a>(&self, node: &'a dyn Node) -> Result<&'a Self, Errno> {
        let any: &dyn Any = node;
        any.downcast_ref::<Self>()
            .filter(|other| Arc::ptr_eq(&self.file_system, &other.file_system))
            .ok_or(Errno::XDEV)
    }

    fn entry(&self, inode: Arc<Inode>) -> Entry {
        Entry {
            attributes: inode.attributes(),
            node: Arc::new(Self::new(self.file_system.clone(), inode)),
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }
    }

    fn open_inode(&self, inode: Arc<Inode>, request: OpenRequest) -> Result<Opened, Errno> {
        let flags = request.flags;
        match inode.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            FileKind::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::BADF),
        }
        if flags.modifies() {
            let mut state = inode.state.write();
            let overwrites =
                !flags.contains(OpenFlags::APPEND) || flags.contains(OpenFlags::TRUNCATE);
            if state.flags.is_immutable() || (state.flags.is_append_only() && overwrites) {
                return Err(Errno::PERM);
            }
            if flags.contains(OpenFlags::TRUNCATE) {
                if request.kill_privileges {
                    state.clear_set_id();
                }
                truncate(&mut state, 0, &inode)?;
            }
        }
        let node = Self::new(self.file_system.clone(), inode);
        let id = self.file_system.next_open_file();
        Ok(Opened {
            file: Arc::new(OpenFile::new(node, id, flags)),
            caching: FileCaching::Policy,
        })
    }

    pub(crate) fn change_attributes(&self, changes: AttributeChanges) -> Result<Attributes> {
        let inode = &self.inode;
        let mut state = inode.state.write();
        check_changes(&state, &changes, inode.kind)?;
        let now = Timestamp::now();
        if let Some(size) = changes.size {
            truncate(&mut state, size, inode)?;
        }
        let new_owner = changes.uid.is_some() || changes.gid.is_some();
        state.uid = changes.uid.unwrap_or(state.uid);
        state.gid = changes.gid.unwrap_or(state.gid);
        // A change of owner takes set-id bits from whoever makes it, as chown(2) of Linux does.
        if !inode.is_directory() && (new_owner || changes.kill_privileges) {
            state.clear_set_id();
            state.drop_capability(&inode.space);
        }
        if let Some(permissions) = changes.permissions {
            state.set_permissions(permissions);
        }
        if let Some(time) = changes.accessed {
            state.accessed = resolve(time, now);
        }
        if let Some(time) = changes.modified {
            state.modified = resolve(time, now);
        }
        if !changes.is_empty() {
            state.changed = now;
        }
        Ok(inode.attributes_of(&state))
    }

    fn read_xattr(&self, name: XattrName<'_>) -> Result<Vec<u8>, Errno> {
        let state = self.inode.state.read();
        let value = match XattrNamespace::of(name, self.inode.kind, Errno::NODATA)? {
            XattrNamespace::Plain => state.xattrs.get(name.as_bytes()).map(<[u8]>::to_vec),
            XattrNamespace::AccessAcl => state.acl.as_ref().map(Acl::encode),
            XattrNamespace::DefaultAcl => state.default_acl.as_ref().map(Acl::encode),
        };
        value.ok_or(Errno::NODATA)
    }

    fn write_xattr(
        &self,
        name: XattrName<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<(), Errno> {
        let inode = &self.inode;
        let mut state = inode.state.write();
        state.flags.check_changeable()?;
        match XattrNamespace::of(name, inode.kind, Errno::PERM)? {
            XattrNamespace::Plain => {
                state
                    .xattrs
                    .set(name.as_bytes(), value, flags, &inode.space)?;
            }
            XattrNamespace::AccessAcl => {
                state.set_access_acl(Acl::decode(value)?, flags, &inode.space)?;
            }
            XattrNamespace::DefaultAcl => {
                let acl = Acl::decode(value)?;
                if acl.is_some() && !inode.is_directory() {
                    return Err(Errno::ACCESS);
                }
                state.set_default_acl(acl, &inode.space)?;
            }
        }
        state.attributes_changed();
        Ok(())
    }

    fn remove_xattr(&self, name: XattrName<'_>) -> Result<(), Errno> {
        let inode = &self.inode;
        let mut state = inode.state.write();
        state.flags.check_changeable()?;
        match XattrNamespace::of(name, inode.kind, Errno::PERM)? {
            XattrNamespace::Plain => {
                if !state.xattrs.remove(name.as_bytes(), &inode.space) {
                    return Err(Errno::NODATA);
                }
            }
            XattrNamespace::AccessAcl => {
                state.set_access_acl(None, XattrFlags::empty(), &inode.space)?;
            }
            XattrNamespace::DefaultAcl => state.set_default_acl(None, &inode.space)?,
        }
        state.attributes_changed();
        Ok(())
    }

    /// ENOTTY for a file that has no inode flags to ask for: its ioctl is not the file system's.
    fn check_has_flags(&self) -> Result<(), Errno> {
        match self.inode.kind {
            FileKind::Regular | FileKind::Directory => Ok(()),
            _ => Err(Errno::NOTTY),
        }
    }

    fn may(&self, caller: Caller, mask: AccessMask) -> Result<(), Errno> {
        let Some(identity) = caller.identity else {
            return Ok(());
        };
        let state = self.inode.state.read();
        if mask.contains(AccessMask::WRITE) && state.flags.is_immutable() {
            return Err(Errno::PERM);
        }
        let permitted = if identity.uid == 0 {
            // The superuser may do all but run what nobody may run.
            !mask.contains(AccessMask::EXECUTE)
                || self.inode.is_directory()
                || state.permissions & 0o111 != 0
        } else {
            state.permits(&identity, mask)
        };
        if permitted {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
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
        state.flags.check_changeable()?;
    }
    if touched && state.flags.is_immutable() {
        return Err(Errno::PERM);
    }
    if changes.permissions.is_some() && kind == FileKind::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    if changes.size.is_some() {
        state.content()?;
    }
    Ok(())
}

/// Sets the size of a regular file. Changes nothing when it fails.
fn truncate(state: &mut State, size: u64, inode: &Inode) -> Result<(), Errno> {
    state.content_mut()?.truncate(size, &inode.space)?;
    state.drop_capability(&inode.space);
    state.content_changed();
    Ok(())
}

impl Node for MemoryNode {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.inode.number,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        self.inode.kind
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.inode.attributes())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        Answer::now(|| self.change_attributes(changes))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        Answer::now(|| {
            Ok(match self.find(name)? {
                Some(inode) => Lookup::Found(self.entry(inode)),
                None => Lookup::Missing { ttl: Ttl::Policy },
            })
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        Answer::now(|| {
            let target = match &self.inode.state.read().body {
                Body::Symlink(target) => target.to_vec(),
                _ => return Err(Errno::INVAL.into()),
            };
            self.inode.touch_access_time();
            Ok(target)
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        Answer::now(|| Ok(self.open_inode(self.inode.clone(), request)?))
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::now(|| {
            self.check_directory()?;
            let directory: Arc<dyn Directory> = Arc::new(OpenDirectory::new(self.clone()));
            Ok(directory)
        })
    }

    fn create<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        Answer::now(|| {
            let open = |inode: Arc<Inode>, flags| {
                // Whether the caller may keep set-id bits of an existing file is not told here.
                let request = OpenRequest {
                    flags,
                    kill_privileges: true,
                };
                let opened = self.open_inode(inode.clone(), request)?;
                Ok(Created {
                    entry: self.entry(inode),
                    opened,
                })
            };
            let exclusive = flags.contains(OpenFlags::EXCLUSIVE);
            let flags = flags.difference(OpenFlags::EXCLUSIVE);
            loop {
                match self.make(caller, name, &Kind::Regular, inode) {
                    // There is nothing in it to be dropped.
                    Ok(inode) => return open(inode, flags.difference(OpenFlags::TRUNCATE)),
                    Err(Errno::EXIST) if !exclusive => {}
                    Err(errno) => return Err(errno.into()),
                }
                // Between the two steps another may have removed the name: then it is made again.
                if let Some(inode) = self.find(name)? {
                    return open(inode, flags);
                }
            }
        })
    }

    fn tmpfile<'a>(
        &'a self,
        caller: Caller,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        Answer::now(|| {
            self.check_directory()?;
            let namespace = self.file_system.namespace.read();
            namespace.entries(self.inode.number)?;
            self.check_entries_can_be_added()?;
            let inode = self.new_inode(caller, &Kind::Regular, inode)?;
            {
                let mut state = inode.state.write();
                state.links = 0;
                state.linkable = !flags.contains(OpenFlags::EXCLUSIVE);
            }
            let request = OpenRequest {
                flags: flags.difference(OpenFlags::EXCLUSIVE),
                kill_privileges: false,
            };
            Ok(Created {
                opened: self.open_inode(inode.clone(), request)?,
                entry: self.entry(inode),
            })
        })
    }

    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        Answer::now(|| {
            let made = self.make(caller, name, &Kind::Directory, inode)?;
            Ok(self.entry(made))
        })
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        Answer::now(|| {
            let kind = match new.kind {
                FileKind::Directory => return Err(Errno::PERM.into()),
                FileKind::Symlink => return Err(Errno::INVAL.into()),
                FileKind::Regular => Kind::Regular,
                special => Kind::Special(special, new.device),
            };
            let made = self.make(caller, name, &kind, new.inode)?;
            Ok(self.entry(made))
        })
    }

    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        Answer::now(|| {
            let made = self.make(caller, name, &Kind::Symlink(target.as_bytes()), inode)?;
            Ok(self.entry(made))
        })
    }

    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        Answer::now(|| {
            let target = self.sibling(target)?;
            self.add_link(&target.inode, name)?;
            Ok(self.entry(target.inode.clone()))
        })
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        Answer::now(|| Ok(self.remove_name(name)?))
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        Answer::now(|| Ok(self.remove_directory(name)?))
    }

    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        Answer::now(|| {
            let new_parent = self.sibling(rename.new_parent)?;
            Ok(self.move_name(
                caller,
                rename.name,
                new_parent,
                rename.new_name,
                rename.flags,
            )?)
        })
    }

    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        Answer::now(|| Ok(self.may(caller, mask)?))
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        Answer::now(|| Ok(self.read_xattr(name)?))
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        let state = self.inode.state.read();
        let acls = [
            state.acl.as_ref().map(|_| ACL_ACCESS),
            state.default_acl.as_ref().map(|_| ACL_DEFAULT),
        ];
        let mut list = Vec::new();
        for name in acls.into_iter().flatten().chain(state.xattrs.names()) {
            list.extend_from_slice(name);
            list.push(0);
        }
        Answer::ok(list)
    }

    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        Answer::now(|| Ok(self.write_xattr(name, value, flags)?))
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        Answer::now(|| Ok(self.remove_xattr(name)?))
    }

    fn getflags(&self) -> Answer<'_, u32> {
        Answer::now(|| {
            self.check_has_flags()?;
            Ok(self.inode.state.read().flags.bits())
        })
    }

    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        Answer::now(|| {
            self.check_has_flags()?;
            let flags = InodeFlags::settable(flags, self.inode.kind)?;
            let mut state = self.inode.state.write();
            state.flags = flags;
            state.attributes_changed();
            Ok(())
        })
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        Answer::now(|| {
            self.check_has_flags()?;
            let state = self.inode.state.read();
            Ok(FsXattr {
                xflags: state.flags.to_xflags(),
                project: state.project,
                ..FsXattr::default()
            })
        })
    }

    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        Answer::now(|| {
            self.check_has_flags()?;
            if value.extent_size != 0 || value.cow_extent_size != 0 {
                return Err(Errno::OPNOTSUPP.into());
            }
            let mut state = self.inode.state.write();
            state.flags = state.flags.with_xflags(value.xflags, self.inode.kind)?;
            state.project = value.project;
            state.attributes_changed();
            Ok(())
        })
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        Answer::ok(self.file_system.space.statistics())
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        Answer::ok(())
    }
}
