//! What INIT agreed holds on every export: what a backend leaves to others is done here.
//!
//! An agreement is for the whole session, and comes about when one of its backends does what is
//! agreed. The guest then no longer does it on the exports of the others either.

use vfsd_backend::{
    AttributeChanges, Attributes, Capabilities, Errno, Error, FileKind, NewInode, XattrName,
};
use vfsd_fuse::wire::NodeId;

use super::{Call, Outcome};
use crate::nodes::NodeRecord;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// What makes a program more powerful than who runs it.
const CAPABILITY: &[u8] = b"security.capability";

impl<'a> Call<'a> {
    /// Whether a node's export leaves a duty to the server.
    pub(super) fn must(&self, duty: Capabilities, node: &NodeRecord) -> bool {
        self.exports.leaves(node.export, duty)
    }

    /// `DONT_MASK`: a new inode with the umask applied, which without ACLs is as simple as that.
    pub(super) fn masked<'i>(&self, parent: &NodeRecord, inode: NewInode<'i>) -> NewInode<'i> {
        match self.must(Capabilities::POSIX_ACL, parent) {
            true => NewInode {
                permissions: inode.permissions & !inode.umask,
                umask: 0,
                ..inode
            },
            false => inode,
        }
    }

    /// `ATOMIC_O_TRUNC`: truncates a file that was just opened for it.
    pub(super) async fn truncate_opened(
        &self,
        node: &NodeRecord,
        kill_privileges: bool,
    ) -> Outcome<'a, ()> {
        let changes = AttributeChanges {
            size: Some(0),
            kill_privileges,
            ..AttributeChanges::default()
        };
        node.node.setattr(changes).await.map(drop)
    }

    /// `HANDLE_KILLPRIV_V2`: comes before a change of a file's content by who may not keep what gives
    /// privileges.
    pub(super) async fn content_changes(&self, node: NodeId) -> Outcome<'a, ()> {
        // In most sessions this is all.
        if !self.exports.are_uneven(Capabilities::KILL_PRIVILEGES) {
            return Ok(());
        }
        Box::pin(async move {
            let node = self.epoch.nodes.get(node)?;
            if self.must(Capabilities::KILL_PRIVILEGES, &node) {
                self.kill_privileges(&node).await?;
            }
            Ok(())
        })
        .await
    }

    /// Takes from a file what gives privileges. Answers the attributes, if they are others now.
    pub(super) async fn kill_privileges(
        &self,
        node: &NodeRecord,
    ) -> Outcome<'a, Option<Attributes>> {
        if node.node.kind() != FileKind::Regular {
            return Ok(None);
        }
        let name = XattrName::new(CAPABILITY)?;
        match node.node.removexattr(name).await {
            Err(error) if !is_none(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let permissions = node.node.getattr().await?.permissions;
        let mut kept = permissions & !SET_UID;
        // Without it the bit stands for something else.
        if permissions & GROUP_EXECUTES != 0 {
            kept &= !SET_GID;
        }
        if kept == permissions {
            return Ok(None);
        }
        let changes = AttributeChanges {
            permissions: Some(kept),
            ..AttributeChanges::default()
        };
        node.node.setattr(changes).await.map(Some)
    }
}

/// Whether there was no attribute to remove.
fn is_none(error: &Error) -> bool {
    matches!(error, Error::NotSupported)
        || error.is(Errno::NODATA)
        || error.is(Errno::OPNOTSUPP)
        || error.is(Errno::NOSYS)
}
