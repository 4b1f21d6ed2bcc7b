//! One dispatch for all requests: from a decoded operation to a backend's method and its reply.
//!
//! What the backend may rely on is made sure of here: the node is known, the handle is the node's,
//! the export may be changed, ids are the host's, ranges do not overflow.

mod attributes;
mod creation;
mod directories;
mod duties;
mod files;
mod implied;
mod ioctl;
mod locks;
mod names;
mod xattrs;

use std::sync::Arc;
use std::time::Duration;

use vfsd_backend::{
    Answer, Attributes, Caller, Capabilities, Entry, Errno, Error, FileKind, Identity, Name, Ttl,
    one_line,
};
use vfsd_fuse::wire::{EntryOut, INVALID_ID, NodeId};
use vfsd_fuse::{Effect, InitFlags, Opcode, Operation, ReplyKind, RequestHeader};

use crate::epoch::Epoch;
use crate::errno::errno_for;
use crate::exchange::Exchange;
use crate::export::{Export, ExportId};
use crate::exports::Exports;
use crate::nodes::{Grant, NodeRecord};
use crate::options::{CacheMode, SessionOptions};
use crate::responder::{Reply, Responder};
use crate::waits::Interruptible;

/// Until the end of time, as far as a guest is concerned: a year.
const FOREVER: Duration = Duration::from_secs(31_536_000);

/// One request on its way to a backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) exports: &'a Exports,
    pub(crate) options: &'a SessionOptions,
    pub(crate) epoch: &'a Arc<Epoch>,
    pub(crate) header: RequestHeader,
    pub(crate) opcode: Opcode,
}

/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

type Outcome<'a, T = Reply<'a>> = Result<T, Error>;

impl<'a> Call<'a> {
    /// The reply, or the errno for the guest. What a storage failed at is logged.
    pub(crate) fn or_errno<T>(&self, outcome: Outcome<'a, T>) -> Result<T, Errno> {
        outcome.map_err(|error| {
            if let Error::Storage(source) = &error {
                self.report(source.as_ref());
            }
            errno_for(self.opcode, &error)
        })
    }

    fn is_about_xattrs(&self) -> bool {
        matches!(
            self.opcode,
            Opcode::Getxattr | Opcode::Setxattr | Opcode::Listxattr | Opcode::Removexattr
        )
    }

    /// Whether any export has what the request is about, there is a caller where one has to be, and
    /// the export may be changed, if that is what the request does. To be asked before
    /// [`Call::dispatch`].
    pub(crate) fn admit(&self, operation: &Operation<'_>) -> Result<(), Errno> {
        if self.is_needless() {
            return Err(Errno::NOSYS);
        }
        if self.is_about_xattrs() && !self.exports.capabilities().contains(Capabilities::XATTR) {
            // Linux remembers that, and no longer asks for `security.capability` before each write.
            return Err(Errno::NOSYS);
        }
        // Without idmapped mounts the kernel tells every caller (fs/fuse/dev.c).
        let idmap = self.epoch.layout.flags.contains(InitFlags::ALLOW_IDMAP);
        if !idmap && !self.has_caller() && self.opcode.reply() != ReplyKind::Nothing {
            return Err(Errno::INVAL);
        }
        if self.opcode.effect() != Effect::Changes || self.exports.all_writable() {
            return Ok(());
        }
        // What has no node of its own to change, or a bad one, is answered by its handler.
        match self.node() {
            Ok(node) if self.export(&node).readonly => {
                tracing::trace!("refused {operation:?} on a read-only export");
                Err(Errno::ROFS)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Does what is asked and gives the reply.
    ///
    /// The place of a request is as large as the largest of these, and is moved there as a whole.
    /// Those that would make it much larger are allocated for themselves.
    pub(crate) async fn dispatch<E: Exchange>(
        &self,
        operation: Operation<'_>,
        responder: &mut Responder<E>,
    ) -> Outcome<'a> {
        use Operation as Op;
        match operation {
            Op::Lookup { name } => self.lookup(name).await,
            Op::Forget { arg } => {
                self.forget(self.header.node, arg.nlookup).await;
                Ok(Reply::empty())
            }
            Op::BatchForget { list } => {
                for (node, count) in list.iter() {
                    self.forget(node, count).await;
                }
                Ok(Reply::empty())
            }
            Op::Getattr { arg } => self.getattr(arg).await,
            Op::Statx { arg } => self.statx(arg).await,
            Op::Setattr { arg } => Box::pin(self.setattr(arg)).await,
            Op::Readlink {} => self.readlink(responder.room()).await,
            Op::Access { arg } => self.access(arg).await,
            Op::Statfs {} => self.statfs().await,
            Op::Syncfs {} => self.syncfs().await,
            Op::Symlink {
                name,
                target,
                extensions,
            } => self.symlink(name, target, extensions).await,
            Op::Mknod {
                arg,
                name,
                extensions,
            } => self.mknod(arg, name, extensions).await,
            Op::Mkdir {
                arg,
                name,
                extensions,
            } => self.mkdir(arg, name, extensions).await,
            Op::Create {
                arg,
                name,
                extensions,
            } => self.create(arg, name, extensions).await,
            Op::Tmpfile {
                arg, extensions, ..
            } => self.tmpfile(arg, extensions).await,
            Op::Unlink { name } => self.unlink(name).await,
            Op::Rmdir { name } => self.rmdir(name).await,
            Op::Rename {
                arg,
                name,
                new_name,
            } => self.rename(name, arg.newdir, new_name, 0).await,
            Op::Rename2 {
                arg,
                name,
                new_name,
            } => self.rename(name, arg.newdir, new_name, arg.flags).await,
            Op::Link { arg, name } => self.link(arg.oldnodeid, name).await,
            Op::Open { arg } => self.open(arg).await,
            Op::Read { arg } => self.read(arg, responder).await,
            Op::Write { arg } => self.write(arg, responder).await,
            Op::Flush { arg } => self.flush(arg).await,
            Op::Release { arg } => self.release(arg).await,
            Op::Fsync { arg } => self.fsync(arg).await,
            Op::Fallocate { arg } => self.fallocate(arg).await,
            Op::Lseek { arg } => self.lseek(arg).await,
            Op::CopyFileRange { arg } | Op::CopyFileRange64 { arg } => {
                self.copy_file_range(arg).await
            }
            Op::Opendir { .. } => self.opendir().await,
            Op::Readdir { arg } => self.readdir(arg, responder.room()).await,
            Op::Readdirplus { arg } => Box::pin(self.readdirplus(arg, responder.room())).await,
            Op::Releasedir { arg } => self.releasedir(arg),
            Op::Fsyncdir { arg } => self.fsyncdir(arg).await,
            Op::Setxattr { arg } => self.setxattr(arg).await,
            Op::Getxattr { arg, name } => self.getxattr(arg, name, responder.room()).await,
            Op::Listxattr { arg } => self.listxattr(arg, responder.room()).await,
            Op::Removexattr { name } => self.removexattr(name).await,
            Op::Getlk { arg } => self.getlk(arg).await,
            Op::Setlk { arg } => self.setlk(arg, false).await,
            Op::Setlkw { arg } => self.setlk(arg, true).await,
            Op::Ioctl { arg } => self.ioctl(arg, responder.room()).await,
            // Answered by the session, before there is a call.
            Op::Init { .. } | Op::Destroy {} | Op::Interrupt { .. } => Err(Errno::IO.into()),
            Op::Unsupported(_) => Err(Error::NotSupported),
        }
    }

    /// An answer that changes nothing: whoever waits for it need not wait for a storage that is out of reach.
    fn interruptible<'s, 't, T>(&'s self, answer: Answer<'t, T>) -> Interruptible<'s, 't, T> {
        let waits = &self.epoch.waits;
        waits.interruptible(self.header.unique, answer)
    }

    /// An answer that makes durable what was changed: the storage goes on with that when nobody waits any more.
    fn interruptible_sync<'s, 't>(&'s self, answer: Answer<'t, ()>) -> Interruptible<'s, 't, ()> {
        let waits = &self.epoch.waits;
        waits.interruptible_sync(self.header.unique, answer)
    }

    /// The node that the request is about.
    fn node(&self) -> Result<Arc<NodeRecord>, Errno> {
        self.epoch.nodes.get(self.header.node)
    }

    /// The export that a node belongs to.
    fn export(&self, node: &NodeRecord) -> &'a Export {
        self.exports.get(node.export)
    }

    /// Another node of the request, which must be of the same export as the first.
    fn other_node(&self, first: &NodeRecord, id: NodeId) -> Result<Arc<NodeRecord>, Errno> {
        let other = self.epoch.nodes.get(id)?;
        if other.export == first.export {
            Ok(other)
        } else {
            Err(Errno::XDEV)
        }
    }

    /// Who asks, for a request that makes nothing. It may have no identity, or one that
    /// has no counterpart on the host; then nothing is done in its name.
    fn caller(&self) -> Caller {
        let identity = self
            .has_caller()
            .then(|| self.identity(None).ok())
            .flatten();
        Caller {
            identity,
            pid: self.header.pid,
        }
    }

    fn has_caller(&self) -> bool {
        self.header.uid != INVALID_ID && self.header.gid != INVALID_ID
    }

    /// Who asks, for a request that makes an inode.
    ///
    /// # Errors
    /// EINVAL where there is no identity, EPERM for one that is forbidden.
    fn creator(&self, supplementary: Option<u32>) -> Result<Caller, Errno> {
        Ok(Caller {
            identity: Some(self.identity(supplementary)?),
            pid: self.header.pid,
        })
    }

    fn identity(&self, supplementary: Option<u32>) -> Result<Identity, Errno> {
        let options = self.options;
        Ok(Identity {
            uid: options.uid_map.to_host(self.header.uid)?,
            gid: options.gid_map.to_host(self.header.gid)?,
            supplementary: supplementary
                .map(|gid| options.gid_map.to_host(gid))
                .transpose()?,
        })
    }

    /// Attributes as the guest sees them.
    fn shown(&self, attributes: &Attributes) -> Attributes {
        let options = self.options;
        Attributes {
            uid: options.uid_map.to_guest(attributes.uid),
            gid: options.gid_map.to_guest(attributes.gid),
            ..*attributes
        }
    }

    fn entry_ttl(&self, ttl: Ttl) -> Duration {
        resolved(ttl, self.options.cache.entry_ttl)
    }

    /// How long the guest may believe attributes. Where set-id bits are cleared here, it would go on
    /// believing in those that a write of another user has cleared, and run the program with them.
    fn attribute_ttl(&self, export: &Export, given: Ttl, attributes: &Attributes) -> Duration {
        let set_id = attributes.kind == FileKind::Regular && attributes.permissions & SET_ID != 0;
        match set_id && self.kills_privileges() && !export.readonly {
            true => Duration::ZERO,
            false => resolved(export.ttl(given), self.options.cache.attribute_ttl),
        }
    }

    /// Makes the guest know the file of an entry.
    fn grant_entry(
        &self,
        parent: &NodeRecord,
        name: Option<Name<'_>>,
        entry: &Entry,
    ) -> Result<(Grant<'a>, EntryOut), Errno> {
        let export = match name {
            Some(name) => self.exports.below(parent.export, name),
            None => parent.export,
        };
        let grant = self.epoch.nodes.grant(export, Arc::clone(&entry.node))?;
        let (shown_in, known_as) = (self.exports.get(parent.export), self.exports.get(export));
        let out = EntryOut::new(
            grant.id(),
            // Numbers of nodes are not used twice, so one generation is enough.
            0,
            &self.shown(&entry.attributes),
            self.entry_ttl(shown_in.ttl(entry.entry_ttl)),
            self.attribute_ttl(known_as, entry.attribute_ttl, &entry.attributes),
        );
        Ok((grant, out))
    }

    fn cache_mode(&self) -> CacheMode {
        self.options.cache.mode
    }

    /// Logs a failure of the storage.
    fn report(&self, source: &(dyn std::error::Error + Send + Sync + 'static)) {
        let export = self.node().map_or_else(
            |_| self.exports.get(ExportId::default()),
            |node| self.export(&node),
        );
        let Some(suppressed) = export.failures.admit() else {
            return;
        };
        let reason = one_line(source);
        tracing::error!(
            export = export.name,
            opcode = self.opcode.name(),
            suppressed,
            "the storage failed: {reason}"
        );
    }
}

fn resolved(ttl: Ttl, policy: Duration) -> Duration {
    match ttl {
        Ttl::Policy => policy,
        Ttl::For(duration) => duration.min(FOREVER),
        Ttl::Forever => FOREVER,
    }
}

/// The end of a range, which must be representable for the file system.
fn range_end(offset: u64, length: u64) -> Option<u64> {
    offset
        .checked_add(length)
        .filter(|end| i64::try_from(*end).is_ok())
}
