//! Names that are looked up, removed, moved and linked.

use vfsd_backend::{Errno, FileKind, Lookup, Name, Rename, RenameFlags};
use vfsd_fuse::wire::{EntryOut, NodeId};

use super::{Call, Outcome};
use crate::nodes::NodeRecord;
use crate::responder::Reply;

impl<'a> Call<'a> {
    pub(super) async fn lookup(&self, name: Name<'_>) -> Outcome<'a> {
        let parent = self.node()?;
        match self.interruptible(parent.node.lookup(name)).await? {
            Lookup::Found(entry) => {
                let (grant, out) = self.grant_entry(&parent, Some(name), &entry)?;
                Ok(Reply::structure(&out).granting(grant))
            }
            Lookup::Missing { ttl } => {
                let ttl = super::resolved(
                    self.export(&parent).ttl(ttl),
                    self.options.cache.negative_ttl,
                );
                if ttl.is_zero() {
                    return Err(Errno::NOENT.into());
                }
                // Node id 0: the guest keeps in mind that the name does not exist.
                Ok(Reply::structure(&EntryOut::negative(ttl)))
            }
        }
    }

    pub(super) async fn unlink(&self, name: Name<'_>) -> Outcome<'a> {
        self.directory_node()?.node.unlink(name).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn rmdir(&self, name: Name<'_>) -> Outcome<'a> {
        self.directory_node()?.node.rmdir(name).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn rename(
        &self,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: u32,
    ) -> Outcome<'a> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if exchange && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL.into());
        }
        let parent = self.directory_node()?;
        let new_parent = self.other_node(&parent, new_parent)?;
        if new_parent.node.kind() != FileKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let caller = if flags.contains(RenameFlags::WHITEOUT) {
            self.creator(None)?
        } else {
            self.caller()
        };
        let rename = Rename {
            name,
            new_parent: new_parent.node.as_ref(),
            new_name,
            flags,
        };
        parent.node.rename(caller, rename).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn link(&self, target: NodeId, name: Name<'_>) -> Outcome<'a> {
        let parent = self.directory_node()?;
        let target = self.other_node(&parent, target)?;
        if target.node.kind() == FileKind::Directory {
            return Err(Errno::PERM.into());
        }
        let entry = parent.node.link(target.node.as_ref(), name).await?;
        let (grant, out) = self.grant_entry(&parent, None, &entry)?;
        Ok(Reply::structure(&out).granting(grant))
    }

    /// The node of a request that only a directory can serve.
    pub(super) fn directory_node(&self) -> Result<std::sync::Arc<NodeRecord>, Errno> {
        let node = self.node()?;
        if node.node.kind() == FileKind::Directory {
            Ok(node)
        } else {
            Err(Errno::NOTDIR)
        }
    }
}
