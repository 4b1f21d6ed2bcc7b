//! What can be done with a file of the overlay.

use std::any::Any;
use std::sync::Arc;

use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT};
use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, Caller, Capabilities, Created, Device,
    Directory, Entry, Errno, FileKind, FsStatistics, FsXattr, LinkTarget, Locator, Lookup, Name,
    NewDevice, NewInode, Node, NodeIdentity, OpenFlags, OpenRequest, Opened, Rename, Result,
    XattrFlags, XattrName,
};

use crate::directory::OverlayDirectory;
use crate::file::OverlayFile;
use crate::nested::is_for_the_kernel;
use crate::new::{New, What};
use crate::node::OverlayNode;
use crate::rename::Move;
use crate::settled::settled;
use crate::spot::{AtOnce, Spot};

impl OverlayNode {
    /// Opens this regular file; for writing in the upper.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn open_file(self: &Arc<Self>, request: OpenRequest) -> Result<Opened> {
        self.check_content().await?;
        if request.flags.modifies() {
            if self.kind != FileKind::Regular {
                // It is refused, and nothing is copied for it.
                return self.real()?.open(request).await;
            }
            let truncates = request.flags.contains(OpenFlags::TRUNCATE);
            self.copy_up(truncates.then_some(0)).await?;
        }
        let in_upper = self.upper().is_some();
        let opened = self.real()?.open(request).await?;
        Ok(self.opened(opened, request.flags, in_upper))
    }

    fn opened(self: &Arc<Self>, opened: Opened, flags: OpenFlags, in_upper: bool) -> Opened {
        let file = OverlayFile::new(self.clone(), opened.file, flags, in_upper);
        Opened {
            file: Arc::new(file),
            caching: opened.caching,
        }
    }

    async fn change(self: Arc<Self>, changes: AttributeChanges) -> Result<Attributes> {
        if changes.is_empty() {
            return self.attributes().await;
        }
        match (self.kind, changes.size) {
            (FileKind::Directory, Some(_)) => return Err(Errno::ISDIR.into()),
            (FileKind::Regular, _) | (_, None) => {}
            (_, Some(_)) => return Err(Errno::INVAL.into()),
        }
        if changes.size.is_some() {
            self.check_content().await?;
        }
        self.copy_up(changes.size).await?;
        Ok(self.shown(self.real()?.setattr(changes).await?))
    }

    /// EOPNOTSUPP where there are no extended attributes.
    fn check_xattrs(&self) -> Result<()> {
        match self.shared.capabilities.contains(Capabilities::XATTR) {
            true => Ok(()),
            false => Err(vfsd_backend::Error::NotSupported),
        }
    }

    /// Whether attributes may be refused because of the kind of file, which comes before whether they are
    /// there: a symbolic link has no `user.*`.
    fn refuses_by_kind(&self) -> bool {
        !matches!(self.kind, FileKind::Regular | FileKind::Directory)
    }

    async fn set_xattr(
        self: Arc<Self>,
        name: Vec<u8>,
        value: Vec<u8>,
        flags: XattrFlags,
    ) -> Result<()> {
        let stored = self.shared.namespace.stored(&name)?;
        let stored = XattrName::new(&stored)?;
        if !self.refuses_by_kind()
            && self.upper().is_none()
            && flags.intersects(XattrFlags::CREATE | XattrFlags::REPLACE)
        {
            // Refused before the file is copied.
            match self.real()?.getxattr(stored).await {
                Ok(_) if flags.contains(XattrFlags::CREATE) => return Err(Errno::EXIST.into()),
                Err(error) if flags.contains(XattrFlags::REPLACE) => return Err(error),
                _ => {}
            }
        }
        self.copy_up(None).await?;
        self.real()?.setxattr(stored, &value, flags).await
    }

    async fn remove_xattr(self: Arc<Self>, name: Vec<u8>) -> Result<()> {
        let stored = self.shared.namespace.stored(&name)?;
        let stored = XattrName::new(&stored)?;
        // Refused before the file is copied. An ACL can be removed where there is none.
        let is_acl = name == ACL_ACCESS || name == ACL_DEFAULT;
        if !is_acl && !self.refuses_by_kind() && self.upper().is_none() {
            self.real()?.getxattr(stored).await?;
        }
        self.copy_up(None).await?;
        self.real()?.removexattr(stored).await
    }

    fn looked_up(&self, spot: Result<Spot>) -> Result<Lookup> {
        Ok(match spot?.found {
            Some((node, attributes)) => Lookup::Found(node.entry(attributes)),
            None => Lookup::Missing {
                ttl: self.shared.ttl(),
            },
        })
    }

    fn make_new<'a>(&self, name: Name<'a>, new: New) -> Answer<'a, Entry> {
        let name = name.as_bytes().to_vec();
        self.change_with(move |node| async move { node.make(Name::new(&name)?, new).await })
    }

    /// Does work that changes something, to its end.
    fn change_with<T, W, F>(&self, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Self>) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.this() {
            Ok(node) => settled(async move { work(node).await }),
            Err(error) => Answer::error(error),
        }
    }

    /// Calls the file of the layer. A ready answer stays ready.
    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a Arc<dyn Node>) -> Answer<'a, T>,
    ) -> Answer<'a, T> {
        match self.real() {
            Ok(real) => call(real),
            Err(error) => Answer::error(error),
        }
    }

    /// The node behind an argument, which is of the same backend. EXDEV if it is of another overlay.
    fn of(&self, node: &dyn Node) -> Result<Arc<Self>> {
        let node: &dyn Any = node;
        match node.downcast_ref::<Self>() {
            Some(node) if Arc::ptr_eq(&node.shared, &self.shared) => node.this(),
            _ => Err(Errno::XDEV.into()),
        }
    }
}

impl Node for OverlayNode {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.number(),
            generation: self.serial,
        }
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn locator(&self) -> Answer<'_, Locator> {
        Answer::later(self.located())
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.call(|real| real.getattr())
            .map(|attributes| self.shown(attributes))
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        self.change_with(move |node| node.change(changes))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        if let Err(error) = self.check_directory() {
            return Answer::error(error);
        }
        let Ok(names) = self.shared.names.try_read() else {
            return Answer::later(async move {
                let _names = self.shared.names.read().await;
                self.looked_up(self.this()?.spot(name).await)
            });
        };
        match self.spot_at_once(&[], name) {
            AtOnce::Done(spot) => Answer::ready(self.looked_up(spot)),
            AtOnce::Begun(begun) => Answer::later(async move {
                let _names = names;
                self.looked_up(self.this()?.spot_later(&[], name, begun).await)
            }),
        }
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        self.call(|real| real.readlink())
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        if self.is_nested_whiteout() {
            return Answer::error(Errno::BADF);
        }
        if request.flags.modifies() {
            if self.shared.upper.is_none() {
                return Answer::error(Errno::ROFS);
            }
            if self.upper().is_none() {
                return self.change_with(move |node| async move { node.open_file(request).await });
            }
        }
        if self.is_doubtful() {
            return Answer::later(async move { self.this()?.open_file(request).await });
        }
        let in_upper = self.upper().is_some();
        self.call(|real| real.open(request))
            .and_then(move |opened| Ok(self.this()?.opened(opened, request.flags, in_upper)))
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::now(|| {
            self.check_directory()?;
            Ok(Arc::new(OverlayDirectory::new(self.this()?)) as Arc<dyn Directory>)
        })
    }

    fn create<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        let (name, inode) = (name.as_bytes().to_vec(), inode.into());
        self.change_with(move |node| async move {
            let name = Name::new(&name)?;
            node.create_file(name, caller, flags, inode).await
        })
    }

    fn tmpfile<'a>(
        &'a self,
        caller: Caller,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        let inode = inode.into();
        self.change_with(move |node| async move { node.create_unnamed(caller, flags, inode).await })
    }

    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        let new = New {
            caller,
            what: What::Directory,
            inode: inode.into(),
        };
        self.make_new(name, new)
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        let what = match (new.kind, new.device) {
            (FileKind::CharDevice, device) if device == Device::default() => What::Whiteout,
            (kind, device) => What::Special(kind, device),
        };
        let new = New {
            caller,
            what,
            inode: new.inode.into(),
        };
        self.make_new(name, new)
    }

    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        let new = New {
            caller,
            what: What::Symlink(target.as_bytes().to_vec()),
            inode: inode.into(),
        };
        self.make_new(name, new)
    }

    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        let target = match self.of(target) {
            Ok(target) => target,
            Err(error) => return Answer::error(error),
        };
        let name = name.as_bytes().to_vec();
        self.change_with(
            move |node| async move { node.make_link(&target, Name::new(&name)?).await },
        )
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let name = name.as_bytes().to_vec();
        self.change_with(move |node| async move { node.remove(Name::new(&name)?, false).await })
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let name = name.as_bytes().to_vec();
        self.change_with(move |node| async move { node.remove(Name::new(&name)?, true).await })
    }

    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        let to = match self.of(rename.new_parent) {
            Ok(to) => to,
            Err(error) => return Answer::error(error),
        };
        let name = rename.name.as_bytes().to_vec();
        let new_name = rename.new_name.as_bytes().to_vec();
        let flags = rename.flags;
        self.change_with(move |from| async move {
            let name = Name::new(&name)?;
            let new_name = Name::new(&new_name)?;
            let (from, to) = (&from, &to);
            let rename = Move {
                caller,
                from,
                name,
                to,
                new_name,
                flags,
            };
            rename.make().await
        })
    }

    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        if mask.contains(AccessMask::WRITE) && self.shared.upper.is_none() {
            return Answer::error(Errno::ROFS);
        }
        self.call(|real| real.access(caller, mask))
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        if let Err(error) = self.check_xattrs() {
            return Answer::error(error);
        }
        let stored = match self.shared.namespace.stored(name.as_bytes()) {
            Ok(stored) => stored,
            Err(error) => return Answer::error(error),
        };
        if stored.len() == name.as_bytes().len() {
            return self.call(|real| real.getxattr(name));
        }
        if self.is_nested_whiteout() && is_for_the_kernel(self.shared.namespace, name.as_bytes()) {
            return Answer::error(Errno::NODATA);
        }
        let stored = stored.into_owned();
        Answer::later(async move { self.real()?.getxattr(XattrName::new(&stored)?).await })
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        if let Err(error) = self.check_xattrs() {
            return Answer::error(error);
        }
        let namespace = self.shared.namespace;
        let is_device = self.is_nested_whiteout();
        self.call(|real| real.listxattr()).map(move |stored| {
            namespace.shown_list(&stored, |name| {
                !(is_device && is_for_the_kernel(namespace, name))
            })
        })
    }

    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        if let Err(error) = self.check_xattrs() {
            return Answer::error(error);
        }
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.change_with(move |node| node.set_xattr(name, value, flags))
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        if let Err(error) = self.check_xattrs() {
            return Answer::error(error);
        }
        let name = name.as_bytes().to_vec();
        self.change_with(move |node| node.remove_xattr(name))
    }

    fn getflags(&self) -> Answer<'_, u32> {
        self.call(|real| real.getflags())
    }

    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        self.change_with(move |node| async move {
            node.copy_up(None).await?;
            node.real()?.setflags(flags).await
        })
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        self.call(|real| real.getfsxattr())
    }

    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        self.change_with(move |node| async move {
            node.copy_up(None).await?;
            node.real()?.setfsxattr(value).await
        })
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        match &self.shared.upper {
            Some(upper) => upper.root.statfs(),
            None => self.call(|real| real.statfs()),
        }
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        match &self.shared.upper {
            Some(upper) => upper.root.syncfs(),
            None => Answer::ok(()),
        }
    }
}
