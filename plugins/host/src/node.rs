//! A file of a plugin.

use std::any::Any;
use std::sync::Arc;

use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, Caller, Capabilities, Created, Directory,
    Entry, Errno, Error, FileCaching, FileKind, FsStatistics, FsXattr, LinkTarget, Lookup, Name,
    NewDevice, NewInode, Node, NodeIdentity, OpenFlags, OpenRequest, Opened, Rename, RenameFlags,
    Result, Ttl, XattrFlags, XattrName,
};
use vfsd_fuse::wire::{
    AccessIn, EntryOut, FsXattrArgument, GetxattrIn, IoctlIn, IoctlOut, LinkIn, NodeId, Rename2In,
    RenameIn, SETXATTR_ACL_KILL_SGID, SetxattrCompatIn, SetxattrIn, StatfsOut, fopen,
};
use vfsd_fuse::{InitFlags, Opcode, XATTR_SIZE_MAX};
use zerocopy::{FromZeros, IntoBytes};

use crate::attributes::{ask_attributes, set_attributes};
use crate::creation::{self, New};
use crate::directory::PluginDirectory;
use crate::file::PluginFile;
use crate::handle::{Handle, open};
use crate::link::Link;
use crate::receive::release;
use crate::records::{Record, adopt, look_up, name_moved, name_removed};
use crate::reply::{self, Found, Named, structure};
use crate::request::{Expected, Request, Undo};

/// The ioctls of linux/fs.h that concern inode flags.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

#[derive(Debug)]
pub(crate) struct PluginNode(pub(crate) Arc<Record>);

impl PluginNode {
    /// The entry for a file that a plugin has told of.
    pub(crate) fn entry(record: Arc<Record>, found: &Found) -> Entry {
        Entry {
            node: Arc::new(Self(record)),
            attributes: found.attributes,
            entry_ttl: found.entry_ttl,
            attribute_ttl: found.attribute_ttl,
        }
    }

    /// The connection, and the plugin's number of the file.
    pub(crate) async fn at(&self) -> Result<(Arc<Link>, NodeId)> {
        let link = self.0.shared.link()?;
        let number = self.0.bind(&link).await?;
        Ok((link, number))
    }

    /// Another node of the same plugin.
    fn other(node: &dyn Node) -> Result<&Arc<Record>> {
        let node: &dyn Any = node;
        let node = node.downcast_ref::<Self>();
        node.map(|node| &node.0).ok_or(Errno::XDEV.into())
    }

    /// An ioctl on the file, which is opened for it.
    async fn ioctl(&self, command: u32, input: &[u8], output: usize) -> Result<Vec<u8>> {
        let (link, node) = self.at().await?;
        let directory = self.0.kind == FileKind::Directory;
        let (open, _) = open(&link, node, directory, OpenFlags::READ, false).await?;
        let size = |length: usize| u32::try_from(length).unwrap_or(0);
        let arg = IoctlIn {
            fh: open.handle,
            cmd: command,
            in_size: size(input.len()),
            out_size: size(output),
            ..IoctlIn::new_zeroed()
        };
        let length = output.saturating_add(size_of::<IoctlOut>());
        let request = Request::new(Opcode::Ioctl, node)
            .arg(&arg)
            .bytes(input)
            .expects(Expected::Exactly(length));
        let answer = link.ask(request).await;
        link.tell(release(node, directory, open.handle));
        let body = answer?;
        let (_, output) = link.checked(structure::<IoctlOut>(&body))?;
        Ok(output.to_vec())
    }

    fn has_xattrs(link: &Link) -> Result<()> {
        // A plugin without them need not know the opcodes.
        match link.agreed.capabilities.contains(Capabilities::XATTR) {
            true => Ok(()),
            false => Err(Error::NotSupported),
        }
    }
}

/// What a guest may keep of an open file's content.
pub(crate) fn caching(open_flags: u32) -> FileCaching {
    if open_flags & fopen::DIRECT_IO != 0 {
        FileCaching::Direct
    } else if open_flags & fopen::KEEP_CACHE != 0 {
        FileCaching::Keep
    } else {
        FileCaching::Policy
    }
}

impl Node for PluginNode {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.0.id,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        self.0.kind
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            ask_attributes(&self.0, &link, node, None).await
        })
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            set_attributes(&self.0, &link, node, None, &changes).await
        })
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        if self.0.kind != FileKind::Directory {
            return Answer::error(Errno::NOTDIR);
        }
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let missing = |ttl| {
                name_removed(&self.0, name);
                Ok(Lookup::Missing { ttl })
            };
            match look_up(&link, node, name).await {
                Ok(Named::Found(found)) => {
                    let record = link.checked(adopt(&self.0, Some(name), &link, &found))?;
                    Ok(Lookup::Found(Self::entry(record, &found)))
                }
                Ok(Named::Missing(ttl)) => missing(ttl),
                Err(error) if error.is(Errno::NOENT) => {
                    missing(Ttl::For(std::time::Duration::ZERO))
                }
                Err(error) => Err(error),
            }
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let request =
                Request::new(Opcode::Readlink, node).expects(Expected::AtMost(LinkTarget::MAX));
            let body = link.ask(request).await?;
            link.checked(reply::target(body))
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let OpenRequest {
                flags,
                kill_privileges,
            } = request;
            let (open, open_flags) = open(&link, node, false, flags, kill_privileges).await?;
            let handle = Handle::new(Arc::clone(&self.0), false, flags, open);
            Ok(Opened {
                file: Arc::new(PluginFile(handle)),
                caching: caching(open_flags),
            })
        })
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let flags = OpenFlags::READ;
            let (open, _) = open(&link, node, true, flags, false).await?;
            let handle = Handle::new(Arc::clone(&self.0), true, flags, open);
            let directory: Arc<dyn Directory> = Arc::new(PluginDirectory(handle));
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
        Answer::later(creation::create(self, caller, Some(name), flags, inode))
    }

    fn tmpfile<'a>(
        &'a self,
        caller: Caller,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        Answer::later(creation::create(self, caller, None, flags, inode))
    }

    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        Answer::later(creation::make(self, caller, name, New::Directory(inode)))
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        Answer::later(creation::make(self, caller, name, New::Device(new)))
    }

    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        Answer::later(creation::make(
            self,
            caller,
            name,
            New::Symlink(target, inode),
        ))
    }

    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        Answer::later(async move {
            let target = Self::other(target)?;
            let (link, node) = self.at().await?;
            let oldnodeid = target.bind(&link).await?;
            let request = Request::new(Opcode::Link, node)
                .arg(&LinkIn { oldnodeid })
                .name(name)
                .fixed::<EntryOut>()
                .undo(Undo::Entry);
            let body = link.ask(request).await?;
            let found = creation::made(&body, target.kind);
            let found = link.checked(found)?;
            let record = link.checked(adopt(&self.0, Some(name), &link, &found))?;
            Ok(Self::entry(record, &found))
        })
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            link.ask(Request::new(Opcode::Unlink, node).name(name))
                .await?;
            name_removed(&self.0, name);
            Ok(())
        })
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            link.ask(Request::new(Opcode::Rmdir, node).name(name))
                .await?;
            name_removed(&self.0, name);
            Ok(())
        })
    }

    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        Answer::later(async move {
            let Rename {
                name,
                new_parent,
                new_name,
                flags,
            } = rename;
            let new_parent = Self::other(new_parent)?;
            let (link, node) = self.at().await?;
            let newdir = new_parent.bind(&link).await?;
            let request = match flags.is_empty() {
                true => Request::new(Opcode::Rename, node).arg(&RenameIn { newdir }),
                false => Request::new(Opcode::Rename2, node).arg(&Rename2In {
                    newdir,
                    flags: flags.bits(),
                    padding: 0,
                }),
            };
            // Who leaves a whiteout makes a file.
            let request = match flags.contains(RenameFlags::WHITEOUT) {
                true => request.by(caller),
                false => request.from(caller),
            };
            let request = request.name(name).name(new_name);
            link.ask(request).await?;
            let exchange = flags.contains(RenameFlags::EXCHANGE);
            name_moved((&self.0, name), (new_parent, new_name), exchange);
            Ok(())
        })
    }

    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let arg = AccessIn {
                mask: mask.bits(),
                padding: 0,
            };
            let request = Request::new(Opcode::Access, node).from(caller).arg(&arg);
            link.ask(request).await.map(drop)
        })
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            Self::has_xattrs(&link)?;
            let request = Request::new(Opcode::Getxattr, node)
                .arg(&whole_xattr())
                .xattr(name)
                .expects(Expected::AtMost(XATTR_SIZE_MAX));
            link.ask(request).await
        })
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            Self::has_xattrs(&link)?;
            let request = Request::new(Opcode::Listxattr, node)
                .arg(&whole_xattr())
                .expects(Expected::AtMost(XATTR_SIZE_MAX));
            let body = link.ask(request).await?;
            link.checked(reply::xattr_names(body))
        })
    }

    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            Self::has_xattrs(&link)?;
            let size = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
            let kill = flags.contains(XattrFlags::KILL_SGID);
            let flags = flags.difference(XattrFlags::KILL_SGID).bits();
            let request = Request::new(Opcode::Setxattr, node);
            let request = match link.agreed.flags.contains(InitFlags::SETXATTR_EXT) {
                true => request.arg(&SetxattrIn {
                    size,
                    flags,
                    setxattr_flags: if kill { SETXATTR_ACL_KILL_SGID } else { 0 },
                    padding: 0,
                }),
                false => request.arg(&SetxattrCompatIn { size, flags }),
            };
            link.ask(request.xattr(name).bytes(value)).await.map(drop)
        })
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            Self::has_xattrs(&link)?;
            let request = Request::new(Opcode::Removexattr, node).xattr(name);
            link.ask(request).await.map(drop)
        })
    }

    fn getflags(&self) -> Answer<'_, u32> {
        Answer::later(async move {
            let bytes = self.ioctl(FS_IOC_GETFLAGS, &[], 8).await?;
            let flags = bytes.first_chunk().copied();
            Ok(u32::from_ne_bytes(flags.ok_or(Errno::IO)?))
        })
    }

    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        Answer::later(async move {
            self.ioctl(FS_IOC_SETFLAGS, u64::from(flags).as_bytes(), 0)
                .await
                .map(drop)
        })
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        Answer::later(async move {
            let bytes = self
                .ioctl(FS_IOC_FSGETXATTR, &[], size_of::<FsXattrArgument>())
                .await?;
            let link = self.0.shared.link()?;
            let (found, _) = link.checked(structure::<FsXattrArgument>(&bytes))?;
            Ok(FsXattr {
                xflags: found.xflags,
                extent_size: found.extsize,
                extents: found.nextents,
                project: found.projid,
                cow_extent_size: found.cowextsize,
            })
        })
    }

    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        Answer::later(async move {
            let argument = FsXattrArgument {
                xflags: value.xflags,
                extsize: value.extent_size,
                nextents: value.extents,
                projid: value.project,
                cowextsize: value.cow_extent_size,
                pad: [0; 8],
            };
            self.ioctl(FS_IOC_FSSETXATTR, argument.as_bytes(), 0)
                .await
                .map(drop)
        })
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let request = Request::new(Opcode::Statfs, node).fixed::<StatfsOut>();
            let body = link.ask(request).await?;
            link.checked(reply::statfs(&body))
        })
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        Answer::later(async move {
            let (link, node) = self.at().await?;
            let request = Request::new(Opcode::Syncfs, node).arg(&0_u64);
            link.ask(request).await.map(drop)
        })
    }
}

/// Asks for a value, or a list, however long it is.
fn whole_xattr() -> GetxattrIn {
    GetxattrIn {
        size: u32::try_from(XATTR_SIZE_MAX).unwrap_or(u32::MAX),
        padding: 0,
    }
}
