//! A file of the share that the guest knows.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use vfsd_backend::{Attributes, Entry, Errno, FileKind, Name, Node, NodeIdentity, Ttl};

use crate::anchor::Anchor;
use crate::budget::{Descriptor, Permit};
use crate::inode_table::InodeKey;
use crate::locks::LockTable;
use crate::mounts::Mount;
use crate::options::FileHandles;
use crate::share::Share;
use crate::stat::Stat;

/// A file of the share. There is one for each inode that is in use.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) share: Arc<Share>,
    me: Weak<Inode>,
    identity: NodeIdentity,
    kind: FileKind,
    /// Its file system or mount is another than its parent directory's, and that is announced.
    mount_root: bool,
    anchor: Arc<Anchor>,
    locks: OnceLock<Arc<LockTable>>,
}

impl Inode {
    /// The node at the top. Its descriptor is kept always.
    pub(crate) fn root(share: Arc<Share>, fd: OwnedFd) -> Result<Arc<Self>, Errno> {
        let stat = Stat::of(fd.as_fd())?;
        let descriptor = share.permit()?.hold(fd);
        let mount = share.mounts.get(stat.place);
        if share.options.file_handles == FileHandles::Never {
            mount.refuse_handles();
        } else {
            let found = mount.handles(&share.proc_fd, stat.attributes.kind, descriptor.as_fd());
            if share.options.file_handles == FileHandles::Mandatory {
                found?;
            }
        }
        let node = Self::new(
            share.clone(),
            &stat,
            descriptor,
            mount,
            false,
            stat.generation(),
        );
        let key = node.key();
        Ok(share.inodes.insert(key, node, None))
    }

    fn new(
        share: Arc<Share>,
        stat: &Stat,
        descriptor: Descriptor,
        mount: Arc<Mount>,
        mount_root: bool,
        generation: u64,
    ) -> Arc<Self> {
        let kind = stat.attributes.kind;
        Arc::new_cyclic(|me| Self {
            share,
            me: me.clone(),
            identity: NodeIdentity {
                device: stat.place,
                inode: stat.attributes.inode,
                generation,
            },
            kind,
            mount_root,
            anchor: Anchor::new(descriptor, kind, mount),
            locks: OnceLock::new(),
        })
    }

    pub(crate) fn identity(&self) -> NodeIdentity {
        self.identity
    }

    pub(crate) fn kind(&self) -> FileKind {
        self.kind
    }

    pub(crate) fn mount(&self) -> &Arc<Mount> {
        self.anchor.mount()
    }

    fn key(&self) -> InodeKey {
        InodeKey {
            place: self.identity.device,
            inode: self.identity.inode,
        }
    }

    /// The inode's `O_PATH` descriptor.
    pub(crate) fn descriptor(&self) -> Result<Arc<Descriptor>, Errno> {
        self.anchor.descriptor(&self.share)
    }

    /// The descriptor of a directory. ENOTDIR of anything else.
    pub(crate) fn directory(&self) -> Result<Arc<Descriptor>, Errno> {
        if self.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        self.descriptor()
    }

    /// The node itself, to be handed out. It is alive while it is borrowed.
    pub(crate) fn share_self(&self) -> Result<Arc<Self>, Errno> {
        self.me.upgrade().ok_or(Errno::STALE)
    }

    pub(crate) fn locks(&self) -> &Arc<LockTable> {
        self.locks.get_or_init(Arc::default)
    }

    /// Attributes as the guest is to see them.
    pub(crate) fn shown(&self, stat: &Stat) -> Attributes {
        Attributes {
            mount_root: self.mount_root,
            ..stat.attributes
        }
    }

    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        let descriptor = self.descriptor()?;
        Ok(self.shown(&Stat::of(descriptor.as_fd())?))
    }

    /// The answer to a request that found or made this node.
    pub(crate) fn entry(self: Arc<Self>, stat: &Stat) -> Entry {
        Entry {
            attributes: self.shown(stat),
            node: self,
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }
    }

    /// The live node that `stat`, taken by name, surely means. Surely: because its descriptor is
    /// open, its number cannot have been given to another file, and it is as old as that file.
    pub(crate) fn known(&self, stat: &Stat) -> Option<Arc<Self>> {
        let node = self.share.inodes.get(InodeKey {
            place: stat.place,
            inode: stat.attributes.inode,
        })?;
        let same = node.kind == stat.attributes.kind
            && node.identity.generation == stat.generation()
            && node.anchor.is_open();
        same.then_some(node)
    }

    /// The node of an `O_PATH` descriptor that was just opened in this directory. `reserved` is for
    /// what was made just now, so that it is not there in vain when there are no descriptors left.
    pub(crate) fn child(
        &self,
        fd: OwnedFd,
        reserved: Option<Permit>,
    ) -> Result<(Arc<Self>, Stat), Errno> {
        let stat = Stat::of(fd.as_fd())?;
        let key = InodeKey {
            place: stat.place,
            inode: stat.attributes.inode,
        };
        let mut generation = stat.generation();
        let alive = self.share.inodes.get(key);
        if let Some(node) = &alive {
            // Two open descriptors with one number are one file.
            if node.anchor.is_open() {
                return Ok((node.clone(), stat));
            }
            if node.anchor.is_same_as(fd.as_fd()) {
                let permit = reserved.map_or_else(|| self.share.permit(), Ok)?;
                node.anchor.adopt(&self.share, permit.hold(fd));
                return Ok((node.clone(), stat));
            }
            // The number was given to a new file while the guest still knows the old one.
            if node.identity.generation == generation {
                generation = generation.wrapping_add(1);
            }
        }
        let mount = self.mount_of(&stat, fd.as_fd())?;
        let mount_root = self.share.options.announce_submounts
            && stat.attributes.kind == FileKind::Directory
            && stat.place != self.identity.device;
        let permit = reserved.map_or_else(|| self.share.permit(), Ok)?;
        let descriptor = permit.hold(fd);
        let node = Self::new(
            self.share.clone(),
            &stat,
            descriptor,
            mount,
            mount_root,
            generation,
        );
        let node = self.share.inodes.insert(key, node, alive.as_ref());
        self.share.anchors.insert(&self.share, &node.anchor);
        Ok((node, stat))
    }

    fn mount_of(&self, stat: &Stat, file: BorrowedFd<'_>) -> Result<Arc<Mount>, Errno> {
        if stat.place == self.mount().place() {
            return Ok(self.mount().clone());
        }
        let mount = self.share.mounts.get(stat.place);
        match self.share.options.file_handles {
            FileHandles::Never => mount.refuse_handles(),
            FileHandles::Prefer => {}
            FileHandles::Mandatory => {
                mount
                    .handles(&self.share.proc_fd, stat.attributes.kind, file)
                    .map_err(|errno| match errno {
                        Errno::AGAIN => Errno::OPNOTSUPP,
                        other => other,
                    })?;
            }
        }
        Ok(mount)
    }

    /// The live node that has lost its descriptor and that a name, which is about to be removed or
    /// replaced, leads to.
    pub(crate) fn loose_node(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Option<Arc<Self>> {
        if self.share.anchors.is_complete() {
            return None;
        }
        let stat = Stat::at(directory, name).ok()?;
        self.share.inodes.get(InodeKey {
            place: stat.place,
            inode: stat.attributes.inode,
        })
    }

    /// Runs `work`, which may take the inode's last name, with its descriptor open: without it an
    /// inode that has no name left could not be found again, although the guest may still use it.
    pub(crate) fn pinned<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.anchor.pin(&self.share);
        work()
    }

    /// The node behind an argument, which is of the same backend. EXDEV if it is of another share.
    pub(crate) fn of<'a>(&self, node: &'a dyn Node) -> Result<&'a Self, Errno> {
        let node: &dyn Any = node;
        node.downcast_ref::<Self>()
            .filter(|node| Arc::ptr_eq(&node.share, &self.share))
            .ok_or(Errno::XDEV)
    }
}

#[cfg(test)]
impl Inode {
    pub(crate) fn anchor_is_open(&self) -> bool {
        self.anchor.is_open()
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.share.inodes.remove(self.key(), &self.me);
        self.share.anchors.remove(&self.anchor);
    }
}
