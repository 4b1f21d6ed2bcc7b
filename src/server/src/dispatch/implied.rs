//! Files and directories that a guest uses without having opened them.
//!
//! Where a tree is one guest's own, OPEN and OPENDIR are answered with ENOSYS: Linux then sends
//! neither any more, nor RELEASE and RELEASEDIR, and names handle 0 in all other requests
//! (`fuse_file_open` of fs/fuse/file.c). CREATE is answered so as well: a guest makes the file with MKNOD then,
//! for which it has nothing to release; and FLUSH, which has nothing to say.
//!
//! The guest's kernel decides who may open what, as it does for an OPEN; what an OPEN would be refused for
//! besides is refused to each request.

use std::sync::Arc;

use vfsd_backend::{Directory, Errno, Error, File, FileKind, OpenFlags, OpenRequest};
use vfsd_fuse::wire::{HandleId, NodeId};
use vfsd_fuse::{InitFlags, Opcode};

use super::{Call, Outcome};
use crate::implied::ImpliedFile;
use crate::nodes::NodeRecord;

/// What a file is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
}

impl<'a> Call<'a> {
    /// Whether the request is one that the guest is told not to make.
    pub(super) fn is_needless(&self) -> bool {
        match self.opcode {
            Opcode::Open | Opcode::Create | Opcode::Flush => {
                self.epoch.agreed(InitFlags::NO_OPEN_SUPPORT)
            }
            Opcode::Opendir => self.epoch.agreed(InitFlags::NO_OPENDIR_SUPPORT),
            _ => false,
        }
    }

    /// Whether a handle stands for a file that the guest need not open.
    pub(super) fn is_implied(&self, handle: HandleId) -> bool {
        handle == HandleId::NONE && self.epoch.agreed(InitFlags::NO_OPEN_SUPPORT)
    }

    /// The same for a directory.
    pub(super) fn is_implied_directory(&self, handle: HandleId) -> bool {
        handle == HandleId::NONE && self.epoch.agreed(InitFlags::NO_OPENDIR_SUPPORT)
    }

    /// The open file of the request's node, opened here if the guest opens nothing.
    pub(super) async fn file_for(
        &self,
        handle: HandleId,
        need: Need,
    ) -> Outcome<'a, Arc<dyn File>> {
        self.file_of(self.header.node, handle, need).await
    }

    /// The open file of a node.
    pub(super) async fn file_of(
        &self,
        node: NodeId,
        handle: HandleId,
        need: Need,
    ) -> Outcome<'a, Arc<dyn File>> {
        if !self.is_implied(handle) {
            return Ok(self.epoch.handles.file(node, handle)?);
        }
        match self.epoch.implied.files.get(node) {
            Some(known) if known.writable || need == Need::Read => Ok(known.file),
            // Seldom, and large.
            _ => Box::pin(self.open_implied(self.epoch.nodes.get(node)?, need)).await,
        }
    }

    async fn open_implied(&self, node: Arc<NodeRecord>, need: Need) -> Outcome<'a, Arc<dyn File>> {
        check_openable(node.node.kind())?;
        let writable = need == Need::Write;
        if writable && self.export(&node).readonly {
            return Err(Errno::ROFS.into());
        }
        let mut flags = OpenFlags::READ;
        flags.set(OpenFlags::WRITE, writable);
        let request = OpenRequest {
            flags,
            kill_privileges: false,
        };
        let opened = match self.interruptible(node.node.open(request)).await {
            Err(error) if error.is(Errno::NFILE) || error.is(Errno::MFILE) => {
                // What is kept open is kept for speed alone.
                for idle in self.epoch.implied.files.clear() {
                    close(idle).await;
                }
                node.node.open(request).await?
            }
            opened => opened?,
        };
        let file = opened.file;
        self.keep_open(&node, Arc::clone(&file), writable).await;
        Ok(file)
    }

    /// Keeps a file open for the requests to come.
    pub(super) async fn keep_open(&self, node: &NodeRecord, file: Arc<dyn File>, writable: bool) {
        let files = &self.epoch.implied.files;
        let gone = files.put(node.id, ImpliedFile { file, writable }, |other| {
            other.writable || !writable
        });
        if let Some(gone) = gone {
            close(gone).await;
        }
        // The node may have been forgotten meanwhile.
        if self.epoch.nodes.get(node.id).is_err() {
            self.close_implied(node.id).await;
        }
    }

    /// The guest forgets a node. What is open of it is closed when the guest no longer knows it.
    pub(super) async fn forget(&self, node: NodeId, count: u64) {
        if self.epoch.nodes.forget(node, count) {
            self.close_implied(node).await;
        }
    }

    async fn close_implied(&self, node: NodeId) {
        drop(self.epoch.implied.listings.remove(node));
        self.close_implied_file(node).await;
    }

    /// What opening the node's file is refused for has changed: the next request opens it anew.
    pub(super) async fn close_implied_file(&self, node: NodeId) {
        if let Some(gone) = self.epoch.implied.files.remove(node) {
            close(gone).await;
        }
    }

    /// A file to append to, for an inode that can be written to in no other way (chattr(1), `a`).
    pub(super) async fn file_to_append(&self) -> Outcome<'a, Arc<dyn File>> {
        let request = OpenRequest {
            flags: OpenFlags::WRITE | OpenFlags::APPEND,
            kill_privileges: false,
        };
        Ok(self.node()?.node.open(request).await?.file)
    }

    /// The open directory of the request's node, for a listing from `cookie` on.
    pub(super) async fn listing(
        &self,
        handle: HandleId,
        cookie: u64,
    ) -> Outcome<'a, Arc<dyn Directory>> {
        if !self.is_implied_directory(handle) {
            return Ok(self.epoch.handles.directory(self.header.node, handle)?);
        }
        let listings = &self.epoch.implied.listings;
        if cookie != 0
            && let Some(known) = listings.get(self.header.node)
        {
            return Ok(known);
        }
        let node = self.directory_node()?;
        let directory = self.interruptible(node.node.opendir()).await?;
        drop(listings.put(node.id, Arc::clone(&directory), |_| false));
        if self.epoch.nodes.get(node.id).is_err() {
            drop(listings.remove(node.id));
        }
        Ok(directory)
    }

    /// A listing has come to its end: what it kept in memory is not needed any more.
    pub(super) fn listing_ended(&self, handle: HandleId) {
        if self.is_implied_directory(handle) {
            drop(self.epoch.implied.listings.remove(self.header.node));
        }
    }
}

/// Closes a file that no handle stood for, unless a request uses it still: then that one does.
async fn close(gone: ImpliedFile) {
    let ImpliedFile { file, .. } = gone;
    if Arc::strong_count(&file) == 1
        && let Err(error) = file.release().await
        && !matches!(error, Error::NotSupported)
    {
        tracing::debug!(%error, "a file was not closed well");
    }
}

/// # Errors
/// What opening anything but a regular file is refused with.
pub(super) fn check_openable(kind: FileKind) -> Result<(), Errno> {
    match kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(Errno::ISDIR),
        FileKind::Symlink => Err(Errno::LOOP),
        // The guest's own kernel opens these; nothing on the host does.
        FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
            Err(Errno::BADF)
        }
    }
}
