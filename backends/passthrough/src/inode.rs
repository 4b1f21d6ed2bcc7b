//! A file of the share that the guest knows.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vfsd_backend::{Attributes, Entry, Errno, FileKind, Name, Node, NodeIdentity, Ttl, Wait};

use crate::budget::Permit;
use crate::descriptor_slot::InUse;
use crate::inode_handle::InodeHandle;
use crate::mounts::Mount;
use crate::options::FileHandles;
use crate::reopen::ListedName;
use crate::share::Share;
use crate::stat::Stat;

/// A file of the share. There is one for each inode that is in use, and there may be millions: what only
/// few of them need is kept elsewhere.
#[derive(Debug)]
pub(crate) struct Inode {
    mount: Arc<Mount>,
    number: u64,
    generation: u64,
    inode_handle: InodeHandle,
    /// Nodes that lead through a name of this directory, because they were listed and never opened.
    listed: AtomicU32,
    kind: FileKind,
    /// Its file system or mount is another than its parent directory's, and that is announced.
    mount_root: bool,
    /// There is, or was, a table of its locks.
    pub(crate) has_locks: AtomicBool,
}

/// In the number that is shown for the root of a mount, with what tells mounts apart. Its own is often
/// that of the directory above as well (2 on ext4, 1 on tmpfs), and who looks at both before the guest has
/// mounted anything there takes them for one directory, and for a loop.
const OF_A_MOUNT: u64 = 1 << 63;

impl Inode {
    /// The node at the top. Its descriptor is kept always.
    pub(crate) fn root(share: &Arc<Share>, fd: OwnedFd) -> Result<Arc<Self>, Errno> {
        let stat = Stat::of(fd.as_fd())?;
        let mount = share.mounts.get(share, stat.mount_key, fd.as_fd());
        if share.options.file_handles == FileHandles::Never {
            mount.refuse_handles();
        } else {
            let found = mount.handles(&share.proc_fd, stat.attributes.kind, fd.as_fd());
            if share.options.file_handles == FileHandles::Mandatory {
                found?;
            }
        }
        mount.is_of_the_share(&share.proc_fd, fd.as_fd());
        let inode_handle = InodeHandle::open(fd, share.permit()?);
        let node = Self::new(mount, &stat, inode_handle, false, stat.generation());
        Ok(node.enter(None))
    }

    fn new(
        mount: Arc<Mount>,
        stat: &Stat,
        inode_handle: InodeHandle,
        mount_root: bool,
        generation: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            mount,
            number: stat.attributes.inode,
            generation,
            inode_handle,
            listed: AtomicU32::new(0),
            kind: stat.attributes.kind,
            mount_root,
            has_locks: AtomicBool::new(false),
        })
    }

    /// Makes the node the one that is found by its number, in the place of `stale`. If another is
    /// found there, that one is answered.
    fn enter(self: Arc<Self>, stale: Option<&Arc<Self>>) -> Arc<Self> {
        let mount = self.mount.clone();
        mount.inodes.insert(self.number, self, stale)
    }

    pub(crate) fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: self.mount.key(),
            inode: self.number,
            generation: self.generation,
        }
    }

    /// Whether `stat` is of a file with this node's identity.
    pub(crate) fn is(&self, stat: &Stat) -> bool {
        stat.mount_key == self.mount.key()
            && stat.attributes.inode == self.number
            && stat.generation() == self.generation
            && stat.attributes.kind == self.kind
    }

    pub(crate) fn kind(&self) -> FileKind {
        self.kind
    }

    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.mount.share
    }

    pub(crate) fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// Whether the file system keeps what it says of this node in its memory, and needs nobody else for it.
    pub(crate) fn answers_at_once(&self) -> bool {
        self.is_opened() && !self.mount.asks_others()
    }

    /// Whether the inode's descriptor is open.
    pub(crate) fn is_opened(&self) -> bool {
        self.inode_handle.is_open()
    }

    pub(crate) fn inode_handle(&self) -> &InodeHandle {
        &self.inode_handle
    }

    /// The descriptor of a directory. ENOTDIR of anything else.
    pub(crate) fn directory(&self) -> Result<InUse<'_>, Errno> {
        if self.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        self.descriptor()
    }

    /// The node itself, to be handed out or kept. `None` for one whose number was given to another
    /// file.
    pub(crate) fn this(&self) -> Option<Arc<Self>> {
        self.mount
            .inodes
            .get(self.number)
            .filter(|own| std::ptr::eq(Arc::as_ptr(own), self))
    }

    pub(crate) fn count_listed(&self) {
        self.listed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn uncount_listed(&self) {
        self.listed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there are nodes that lead through a name of this directory.
    pub(crate) fn leads_to_nodes(&self) -> bool {
        self.listed.load(Ordering::Relaxed) > 0
    }

    /// Attributes as the guest is to see them.
    pub(crate) fn shown(&self, stat: &Stat) -> Attributes {
        let mut shown = stat.attributes;
        if self.mount_root {
            shown.mount_root = self.share().options.announce_submounts;
            shown.inode = self.mount.key() | OF_A_MOUNT;
        }
        shown
    }

    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        // A node that was listed only is not opened just for this.
        if !self.is_opened()
            && let Some(stat) = self.stat_by_listed_name()?
        {
            return Ok(self.shown(&stat));
        }
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

    /// The live node with the mount key and number of `stat`.
    fn alive(&self, stat: &Stat) -> Option<Arc<Self>> {
        let number = stat.attributes.inode;
        if stat.mount_key == self.mount.key() {
            return self.mount.inodes.get(number);
        }
        let mount = self.share().mounts.find(stat.mount_key)?;
        mount.inodes.get(number)
    }

    /// The live node that `stat`, taken of a name in this directory, surely means.
    pub(crate) fn known(&self, name: Name<'_>, stat: &Stat) -> Option<Arc<Self>> {
        self.alive(stat).filter(|node| node.is_at(self, name, stat))
    }

    /// The node of a name that was found in a listing of this directory, which `directory` is open
    /// for. A file that the guest did not know is not opened: many are listed of which few are used.
    pub(crate) fn listed(
        self: &Arc<Self>,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<Entry, Errno> {
        let stat = Stat::at(directory, name)?;
        let alive = self.alive(&stat);
        let doubtful = match &alive {
            Some(node) if node.is_at(self, name, &stat) => return Ok(node.clone().entry(&stat)),
            // What cannot be told apart by its identity is by its descriptor.
            Some(node) => node.is(&stat) || node.inode_handle.is_open(),
            None => false,
        };
        if doubtful || stat.mount_key != self.mount.key() {
            let fd = self.open_path(directory, name, Wait::Allowed)?;
            let (node, stat) = self.child(fd, None)?;
            return Ok(node.entry(&stat));
        }
        let inode_handle = InodeHandle::listed(ListedName::new(self.clone(), name));
        let node = Self::new(
            self.mount.clone(),
            &stat,
            inode_handle,
            false,
            stat.generation(),
        );
        Ok(node.enter(alive.as_ref()).entry(&stat))
    }

    /// The node of an `O_PATH` descriptor that was just opened in this directory. `reserved` is for
    /// what was made just now, so that it is not there in vain when there are no descriptors left.
    pub(crate) fn child(
        &self,
        fd: OwnedFd,
        reserved: Option<Permit<'_>>,
    ) -> Result<(Arc<Self>, Stat), Errno> {
        let stat = Stat::of(fd.as_fd())?;
        let mut generation = stat.generation();
        let alive = self.alive(&stat);
        if let Some(node) = &alive {
            // Two open descriptors with one number are one file.
            if node.inode_handle.is_open() {
                return Ok((node.clone(), stat));
            }
            if node.is_same_as(fd.as_fd(), &stat) {
                let permit = reserved.map_or_else(|| self.share().permit(), Ok)?;
                node.adopt(fd, permit);
                return Ok((node.clone(), stat));
            }
            // The number was given to a new file while the guest still knows the old one.
            if node.generation == generation {
                generation = generation.wrapping_add(1);
            }
        }
        let mount = self.mount_of(&stat, fd.as_fd())?;
        let mount_root =
            stat.attributes.kind == FileKind::Directory && stat.mount_key != self.mount.key();
        let permit = reserved.map_or_else(|| self.share().permit(), Ok)?;
        let inode_handle = InodeHandle::open(fd, permit);
        let node =
            Self::new(mount, &stat, inode_handle, mount_root, generation).enter(alive.as_ref());
        self.share().descriptors.insert(&node);
        Ok((node, stat))
    }

    fn mount_of(&self, stat: &Stat, file: BorrowedFd<'_>) -> Result<Arc<Mount>, Errno> {
        if stat.mount_key == self.mount.key() {
            return Ok(self.mount.clone());
        }
        let share = self.share();
        let mount = share.mounts.get(share, stat.mount_key, file);
        match share.options.file_handles {
            FileHandles::Never => mount.refuse_handles(),
            FileHandles::Prefer => {}
            FileHandles::Mandatory => {
                mount
                    .handles(&share.proc_fd, stat.attributes.kind, file)
                    .map_err(|errno| match errno {
                        Errno::AGAIN => Errno::OPNOTSUPP,
                        other => other,
                    })?;
            }
        }
        Ok(mount)
    }

    /// The live node without a descriptor that a name of this directory leads to, which is about to
    /// be removed or replaced: the guest may still use the node, and it could not be found again.
    pub(crate) fn loose_node(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Option<Arc<Self>> {
        if self.share().descriptors.given_up() == 0 && !self.leads_to_nodes() {
            return None;
        }
        let stat = Stat::at(directory, name).ok()?;
        self.alive(&stat)
            .filter(|node| !node.inode_handle.is_open())
    }

    /// The same for a name that is about to be given to another file, but not taken from its own:
    /// a node with a handle is found all the same.
    pub(crate) fn listed_node(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Option<Arc<Self>> {
        if !self.leads_to_nodes() {
            return None;
        }
        self.loose_node(directory, name)
    }

    /// The node behind an argument, which is of the same backend. EXDEV if it is of another share.
    pub(crate) fn of<'a>(&self, node: &'a dyn Node) -> Result<&'a Self, Errno> {
        let node: &dyn Any = node;
        node.downcast_ref::<Self>()
            .filter(|node| Arc::ptr_eq(node.share(), self.share()))
            .ok_or(Errno::XDEV)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.mount.inodes.remove(self.number, self);
        self.share().descriptors.remove(self);
        self.share().locks.remove(self);
        self.inode_handle.close(&self.mount.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        assert!(size_of::<Inode>() <= 72, "{}", size_of::<Inode>());
    }
}
