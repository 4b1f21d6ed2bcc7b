//! New inodes, some of them opened at once.

use std::sync::Arc;

use vfsd_backend::{
    Created, Device, Entry, Errno, FileKind, LinkTarget, Name, NewDevice, NewInode, OpenFlags,
};
use vfsd_fuse::wire::{CreateIn, HandleId, MkdirIn, MknodIn};
use vfsd_fuse::{Extensions, InitFlags};

use super::files::{open_flags, open_out};
use super::{Call, Outcome};
use crate::handles::Open;
use crate::nodes::NodeRecord;
use crate::responder::Reply;

/// Permission, set-id and sticky bits.
const PERMISSIONS: u32 = 0o7777;

const READ_WRITE: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

impl<'a> Call<'a> {
    pub(super) async fn mkdir(
        &self,
        arg: MkdirIn,
        name: Name<'_>,
        extensions: Extensions<'_>,
    ) -> Outcome<'a> {
        let parent = self.directory_node()?;
        let caller = self.creator(extensions.supplementary_group)?;
        let inode = self.new_inode(&parent, arg.mode, arg.umask, extensions);
        let entry = parent.node.mkdir(caller, name, inode).await?;
        self.made(&parent, &entry, FileKind::Directory)
    }

    pub(super) async fn mknod(
        &self,
        arg: MknodIn,
        name: Name<'_>,
        extensions: Extensions<'_>,
    ) -> Outcome<'a> {
        let parent = self.directory_node()?;
        let caller = self.creator(extensions.supplementary_group)?;
        let kind = if arg.mode & !PERMISSIONS == 0 {
            FileKind::Regular
        } else {
            FileKind::from_mode(arg.mode).ok_or(Errno::INVAL)?
        };
        let device = match kind {
            FileKind::Directory | FileKind::Symlink => return Err(Errno::INVAL.into()),
            FileKind::CharDevice | FileKind::BlockDevice => arg.device(),
            FileKind::Regular | FileKind::Fifo | FileKind::Socket => Device::default(),
        };
        let inode = self.new_inode(&parent, arg.mode, arg.umask, extensions);
        let entry = parent
            .node
            .mknod(
                caller,
                name,
                NewDevice {
                    kind,
                    device,
                    inode,
                },
            )
            .await?;
        self.made(&parent, &entry, kind)
    }

    pub(super) async fn symlink(
        &self,
        name: Name<'_>,
        target: LinkTarget<'_>,
        extensions: Extensions<'_>,
    ) -> Outcome<'a> {
        let parent = self.directory_node()?;
        let caller = self.creator(extensions.supplementary_group)?;
        let inode = self.new_inode(&parent, 0o777, 0, extensions);
        let entry = parent.node.symlink(caller, name, target, inode).await?;
        self.made(&parent, &entry, FileKind::Symlink)
    }

    pub(super) async fn create(
        &self,
        arg: CreateIn,
        name: Name<'_>,
        extensions: Extensions<'_>,
    ) -> Outcome<'a> {
        let parent = self.directory_node()?;
        let caller = self.creator(extensions.supplementary_group)?;
        let inode = self.new_inode(&parent, arg.mode, arg.umask, extensions);
        let flags = open_flags(arg.flags)?;
        let made = parent
            .node
            .create(caller, name, flags | OpenFlags::EXCLUSIVE, inode)
            .await;
        match made {
            // The guest's kernel has taken the name for free, and does not ask whether the caller
            // may open what has it now. Told so, it looks the name up and opens it as any other.
            Err(error) if error.is(Errno::EXIST) && !flags.contains(OpenFlags::EXCLUSIVE) => {
                Err(Errno::STALE.into())
            }
            made => self.opened(&parent, &made?),
        }
    }

    pub(super) async fn tmpfile(&self, arg: CreateIn, extensions: Extensions<'_>) -> Outcome<'a> {
        let parent = self.directory_node()?;
        let caller = self.creator(extensions.supplementary_group)?;
        let flags = open_flags(arg.flags)?;
        if !flags.contains(OpenFlags::WRITE) {
            return Err(Errno::INVAL.into());
        }
        let inode = self.new_inode(&parent, arg.mode, arg.umask, extensions);
        if !self.is_implied(HandleId::NONE) {
            let created = parent.node.tmpfile(caller, flags, inode).await?;
            return self.opened(&parent, &created);
        }
        // What is opened for all requests to come is opened for reading, too.
        let created = parent
            .node
            .tmpfile(caller, (flags & OpenFlags::EXCLUSIVE) | READ_WRITE, inode)
            .await?;
        self.implied(&parent, created).await
    }

    /// Without `DONT_MASK` the guest has applied the umask, though it sends it all the same.
    fn new_inode<'i>(
        &self,
        parent: &NodeRecord,
        mode: u32,
        umask: u32,
        extensions: Extensions<'i>,
    ) -> NewInode<'i> {
        let umask = if self.epoch.agreed(InitFlags::DONT_MASK) {
            umask & 0o777
        } else {
            0
        };
        let inode = NewInode {
            permissions: mode & PERMISSIONS,
            umask,
            security: extensions.security,
        };
        self.masked(parent, inode)
    }

    /// The reply for a new inode. The guest takes one of another type than asked for a broken
    /// file system, and never forgets it.
    fn made(&self, parent: &NodeRecord, entry: &Entry, kind: FileKind) -> Outcome<'a> {
        if entry.attributes.kind != kind {
            return Err(Errno::IO.into());
        }
        let (grant, out) = self.grant_entry(parent, None, entry)?;
        Ok(Reply::structure(&out).granting(grant))
    }

    /// The reply for a new file whose handle is 0, for a guest that opens nothing.
    async fn implied(&self, parent: &NodeRecord, created: Created) -> Outcome<'a> {
        if created.entry.attributes.kind != FileKind::Regular {
            return Err(Errno::IO.into());
        }
        let (grant, entry) = self.grant_entry(parent, None, &created.entry)?;
        let node = Arc::clone(grant.record());
        let open_flags = self.opened_flags(&node, created.opened.caching);
        self.keep_open(&node, created.opened.file, true).await;
        let out = open_out(HandleId::NONE, open_flags);
        Ok(Reply::two(&entry, &out).granting(grant))
    }

    fn opened(&self, parent: &NodeRecord, created: &Created) -> Outcome<'a> {
        if created.entry.attributes.kind != FileKind::Regular {
            return Err(Errno::IO.into());
        }
        let (grant, entry) = self.grant_entry(parent, None, &created.entry)?;
        let node = Arc::clone(grant.record());
        let open_flags = self.opened_flags(&node, created.opened.caching);
        let open = Open::File(Arc::clone(&created.opened.file));
        let handle = self.epoch.handles.grant(node, open)?;
        let out = open_out(handle.id(), open_flags);
        Ok(Reply::two(&entry, &out).granting(grant).opening(handle))
    }
}
