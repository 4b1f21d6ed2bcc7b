//! A node: an inode as the server sees it.

use std::any::Any;
use std::sync::Arc;

use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT, InodeFlags};
use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, Caller, Created, Directory, Entry, Errno,
    FileCaching, FileKind, FsStatistics, FsXattr, LinkTarget, Locator, Lookup, Name, NewDevice,
    NewInode, Node, NodeIdentity, OpenFlags, OpenRequest, Opened, Rename, Result, Ttl, XattrFlags,
    XattrName,
};

use crate::core::Core;
use crate::create::Kind;
use crate::directory::OpenDirectory;
use crate::file::OpenFile;
use crate::inode::Inode;
use crate::txn::Txn;
use crate::volume::Engine;

#[derive(Clone)]
pub(crate) struct VolumeNode {
    // Dropped before the engine, whose threads take what is left of it.
    pub(crate) inode: Arc<Inode>,
    pub(crate) engine: Arc<Engine>,
}

impl VolumeNode {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.inode.core
    }

    pub(crate) fn node(&self, inode: Arc<Inode>) -> Self {
        Self {
            inode,
            engine: self.engine.clone(),
        }
    }

    /// EXDEV for a node of another file system.
    fn sibling<'a>(&self, node: &'a dyn Node) -> Result<&'a Self, Errno> {
        let any: &dyn Any = node;
        any.downcast_ref::<Self>()
            .filter(|other| Arc::ptr_eq(self.core(), other.core()))
            .ok_or(Errno::XDEV)
    }

    pub(crate) fn entry(&self, inode: Arc<Inode>) -> Entry {
        Entry {
            attributes: inode.attributes(),
            node: Arc::new(self.node(inode)),
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }
    }

    /// The answer to a lookup, if all of it is in memory.
    fn lookup_in_memory(&self, name: Name<'_>) -> Option<Result<Lookup>> {
        Some(match self.core().find_in_memory(&self.inode, name)? {
            Ok(None) => Ok(Lookup::Missing { ttl: Ttl::Policy }),
            Ok(Some(row)) => {
                let inode = self.core().inode_in_memory(row.ino)?;
                Ok(Lookup::Found(self.entry(inode)))
            }
            Err(error) => Err(error),
        })
    }

    /// The inode that a name stands for.
    pub(crate) fn find(&self, name: Name<'_>) -> Result<Option<Arc<Inode>>> {
        loop {
            let Some(row) = self.core().find(&self.inode, name)? else {
                return Ok(None);
            };
            match self.core().inode(row.ino) {
                // Removed, and gone, between the two steps: look again. Unless it is still named.
                Err(error) if error.is(Errno::NOENT) => {
                    if self.core().find(&self.inode, name)? == Some(row) {
                        let broken = format!("entry {name} has no inode {}", row.ino);
                        return Err(std::io::Error::other(broken).into());
                    }
                }
                inode => return inode.map(Some),
            }
        }
    }

    fn open_inode(&self, inode: Arc<Inode>, request: OpenRequest) -> Result<Opened> {
        let flags = request.flags;
        match inode.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR.into()),
            FileKind::Symlink => return Err(Errno::LOOP.into()),
            _ => return Err(Errno::BADF.into()),
        }
        let node = self.node(inode);
        if flags.modifies() {
            let truncates = flags.contains(OpenFlags::TRUNCATE);
            let overwrites = !flags.contains(OpenFlags::APPEND) || truncates;
            let inode_flags = node.inode.state.read().flags();
            if inode_flags.is_immutable() || (inode_flags.is_append_only() && overwrites) {
                return Err(Errno::PERM.into());
            }
            if truncates {
                node.truncate_at_open(request.kill_privileges)?;
            }
        }
        // Here, so that reads find it open and need not wait.
        let opened = OpenFile::new(node, flags);
        drop(opened.inode().shared(false)?);
        Ok(Opened {
            file: Arc::new(opened),
            caching: FileCaching::Policy,
        })
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
        if mask.contains(AccessMask::WRITE) && state.flags().is_immutable() {
            return Err(Errno::PERM);
        }
        let permitted = if identity.uid == 0 {
            // The superuser may do all but run what nobody may run.
            !mask.contains(AccessMask::EXECUTE)
                || self.inode.is_directory()
                || state.row.permissions & 0o111 != 0
        } else {
            state.permits(&identity, mask)
        };
        if permitted {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    fn change_flags(
        &self,
        change: impl FnOnce(InodeFlags) -> Result<InodeFlags, Errno>,
        project: Option<u32>,
    ) -> Result<()> {
        self.check_has_flags()?;
        let mut txn = Txn::new(self.core());
        let state = txn.state(&self.inode);
        state.row.flags = change(state.flags())?.bits();
        state.row.project = project.unwrap_or(state.row.project);
        state.attributes_changed();
        txn.commit()
    }
}

impl Node for VolumeNode {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.inode.ino,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        self.inode.kind
    }

    fn locator(&self) -> Answer<'_, Locator> {
        Answer::ok(Locator::of_inode(self.inode.ino))
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.inode.attributes())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        Answer::brief(move || self.change_attributes(changes))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        if let Some(known) = self.lookup_in_memory(name) {
            return Answer::ready(known);
        }
        Answer::brief(move || {
            Ok(match self.find(name)? {
                Some(inode) => Lookup::Found(self.entry(inode)),
                None => Lookup::Missing { ttl: Ttl::Policy },
            })
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        Answer::now(|| {
            if self.inode.kind != FileKind::Symlink {
                return Err(Errno::INVAL.into());
            }
            let target = self.inode.state.read().row.target.to_vec();
            self.inode.touch_access_time();
            Ok(target)
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        Answer::brief(move || self.open_inode(self.inode.clone(), request))
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::now(|| {
            if !self.inode.is_directory() {
                return Err(Errno::NOTDIR.into());
            }
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
        Answer::brief(move || {
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
                match self.make(caller, name, &Kind::Regular, &inode) {
                    // There is nothing in it to be dropped.
                    Ok(inode) => return open(inode, flags.difference(OpenFlags::TRUNCATE)),
                    Err(error) if error.is(Errno::EXIST) && !exclusive => {}
                    Err(error) => return Err(error),
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
        Answer::brief(move || {
            let linkable = !flags.contains(OpenFlags::EXCLUSIVE);
            let inode = self.make_nameless(caller, &inode, linkable)?;
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
        Answer::brief(move || {
            let made = self.make(caller, name, &Kind::Directory, &inode)?;
            Ok(self.entry(made))
        })
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        Answer::brief(move || {
            let kind = match new.kind {
                FileKind::Directory => return Err(Errno::PERM.into()),
                FileKind::Symlink => return Err(Errno::INVAL.into()),
                FileKind::Regular => Kind::Regular,
                special => Kind::Special(special, new.device),
            };
            let made = self.make(caller, name, &kind, &new.inode)?;
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
        Answer::brief(move || {
            let made = self.make(caller, name, &Kind::Symlink(target.as_bytes()), &inode)?;
            Ok(self.entry(made))
        })
    }

    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        Answer::brief(move || {
            let target = self.sibling(target)?;
            self.add_link(&target.inode, name)?;
            Ok(self.entry(target.inode.clone()))
        })
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        Answer::brief(move || self.remove_name(name))
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        Answer::brief(move || self.remove_directory(name))
    }

    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        Answer::brief(move || {
            let new_parent = self.sibling(rename.new_parent)?;
            self.move_name(
                caller,
                rename.name,
                new_parent,
                rename.new_name,
                rename.flags,
            )
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
        let plain = state.xattrs.keys().map(AsRef::as_ref);
        for name in acls.into_iter().flatten().chain(plain) {
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
        Answer::brief(move || self.write_xattr(name, value, flags))
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        Answer::brief(move || self.erase_xattr(name))
    }

    fn getflags(&self) -> Answer<'_, u32> {
        Answer::now(|| {
            self.check_has_flags()?;
            Ok(self.inode.state.read().flags().bits())
        })
    }

    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        Answer::brief(move || {
            self.change_flags(|_| InodeFlags::settable(flags, self.inode.kind), None)
        })
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        Answer::now(|| {
            self.check_has_flags()?;
            let state = self.inode.state.read();
            Ok(FsXattr {
                xflags: state.flags().to_xflags(),
                project: state.row.project,
                ..FsXattr::default()
            })
        })
    }

    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        Answer::brief(move || {
            self.check_has_flags()?;
            if value.extent_size != 0 || value.cow_extent_size != 0 {
                return Err(Errno::OPNOTSUPP.into());
            }
            let kind = self.inode.kind;
            self.change_flags(
                |flags| flags.with_xflags(value.xflags, kind),
                Some(value.project),
            )
        })
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        Answer::brief(|| self.core().statistics())
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        self.core().all_synced()
    }
}
