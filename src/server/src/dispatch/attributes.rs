//! What is known of a file besides its content.

use std::sync::Arc;

use vfsd_backend::{
    AccessMask, AttributeChanges, Attributes, Capabilities, Errno, Error, File, SetTime, Timestamp,
    Ttl,
};
use vfsd_fuse::wire::{
    AccessIn, AttrOut, GETATTR_FH, GetattrIn, HandleId, SetattrIn, StatfsOut, StatxIn, StatxOut,
    fattr,
};

use super::{Call, Outcome};
use crate::nodes::NodeRecord;
use crate::responder::Reply;

impl<'a> Call<'a> {
    pub(super) async fn getattr(&self, arg: GetattrIn) -> Outcome<'a> {
        let has_handle = arg.getattr_flags & GETATTR_FH != 0;
        let handle = self.opened_handle(has_handle, arg.fh);
        let node = self.node()?;
        let attributes = self.attributes(&node, handle).await?;
        let ttl = self.attribute_ttl(self.export(&node), Ttl::Policy, &attributes);
        Ok(Reply::structure(&AttrOut::new(&attributes, ttl)))
    }

    pub(super) async fn statx(&self, arg: StatxIn) -> Outcome<'a> {
        let has_handle = arg.getattr_flags & GETATTR_FH != 0;
        let handle = self.opened_handle(has_handle, arg.fh);
        let node = self.node()?;
        let attributes = self.attributes(&node, handle).await?;
        let ttl = self.attribute_ttl(self.export(&node), Ttl::Policy, &attributes);
        Ok(Reply::structure(&StatxOut::new(&attributes, ttl)))
    }

    /// The handle that a request names, if it stands for a file that was opened.
    fn opened_handle(&self, named: bool, handle: HandleId) -> Option<HandleId> {
        (named && !self.is_implied(handle)).then_some(handle)
    }

    /// The attributes, from the open file if there is one: it may have lost its name.
    async fn attributes(
        &self,
        node: &NodeRecord,
        handle: Option<HandleId>,
    ) -> Outcome<'a, Attributes> {
        let from_file = match handle {
            Some(handle) => {
                let file = self.file(handle)?;
                supported(self.interruptible(file.getattr()).await)?
            }
            None => None,
        };
        let attributes = match from_file {
            Some(attributes) => attributes,
            None => self.interruptible(node.node.getattr()).await?,
        };
        Ok(self.shown(&attributes))
    }

    pub(super) async fn setattr(&self, arg: SetattrIn) -> Outcome<'a> {
        let node = self.node()?;
        let changes = self.changes(&arg)?;
        let by_handle = arg.valid & fattr::FH != 0 && !self.is_implied(arg.fh);
        let file: Option<Arc<dyn File>> = if by_handle {
            Some(self.file(arg.fh)?)
        } else {
            None
        };
        let changed = match file {
            // Nothing to change is no reason to touch the file.
            _ if changes.is_empty() => None,
            Some(file) => supported(file.setattr(changes).await)?,
            None => None,
        };
        let attributes = match changed {
            Some(attributes) => attributes,
            None if changes.is_empty() => node.node.getattr().await?,
            None => node.node.setattr(changes).await?,
        };
        let loses = changes.kill_privileges || changes.uid.is_some() || changes.gid.is_some();
        let attributes = if loses
            && self.kills_privileges()
            && self.must(Capabilities::KILL_PRIVILEGES, &node)
        {
            let killed = Box::pin(self.kill_privileges(&node)).await?;
            killed.unwrap_or(attributes)
        } else {
            attributes
        };
        let ttl = self.attribute_ttl(self.export(&node), Ttl::Policy, &attributes);
        Ok(Reply::structure(&AttrOut::new(
            &self.shown(&attributes),
            ttl,
        )))
    }

    /// The changes that a SETATTR asks for. A new ctime is the storage's own affair.
    fn changes(&self, arg: &SetattrIn) -> Result<AttributeChanges, Errno> {
        if arg.valid & !fattr::ALL != 0 {
            return Err(Errno::INVAL);
        }
        let has = |bit: u32| arg.valid & bit != 0;
        let time = |set: u32, now: u32, seconds: u64, nanoseconds: u32| match (has(set), has(now)) {
            (_, true) => Ok(Some(SetTime::Now)),
            (true, false) => Timestamp::new(seconds.cast_signed(), nanoseconds)
                .map(|time| Some(SetTime::At(time))),
            (false, false) => Ok(None),
        };
        time(fattr::CTIME, 0, arg.ctime, arg.ctimensec)?;
        let options = self.options;
        let size = has(fattr::SIZE).then_some(arg.size);
        if size.is_some_and(|size| i64::try_from(size).is_err()) {
            return Err(Errno::FBIG);
        }
        Ok(AttributeChanges {
            permissions: has(fattr::MODE).then_some(arg.mode & 0o7777),
            uid: has(fattr::UID)
                .then(|| options.uid_map.to_host(arg.uid))
                .transpose()?,
            gid: has(fattr::GID)
                .then(|| options.gid_map.to_host(arg.gid))
                .transpose()?,
            size,
            accessed: time(fattr::ATIME, fattr::ATIME_NOW, arg.atime, arg.atimensec)?,
            modified: time(fattr::MTIME, fattr::MTIME_NOW, arg.mtime, arg.mtimensec)?,
            kill_privileges: has(fattr::KILL_SUIDGID) && self.kills_privileges(),
        })
    }

    pub(super) async fn readlink(&self, room: usize) -> Outcome<'a> {
        let node = self.node()?;
        let target = self.interruptible(node.node.readlink()).await?;
        if target.is_empty() || target.len() > room {
            return Err(Errno::IO.into());
        }
        Ok(Reply::bytes(target))
    }

    pub(super) async fn access(&self, arg: AccessIn) -> Outcome<'a> {
        let node = self.node()?;
        let mask = AccessMask::from_bits(arg.mask).ok_or(Errno::INVAL)?;
        if mask.contains(AccessMask::WRITE) && self.export(&node).readonly {
            return Err(Errno::ROFS.into());
        }
        self.interruptible(node.node.access(self.caller(), mask))
            .await?;
        Ok(Reply::empty())
    }

    pub(super) async fn statfs(&self) -> Outcome<'a> {
        let node = self.node()?;
        let statistics = self.interruptible(node.node.statfs()).await?;
        Ok(Reply::structure(&StatfsOut::from(&statistics)))
    }

    pub(super) async fn syncfs(&self) -> Outcome<'a> {
        let node = self.node()?;
        self.interruptible_sync(node.node.syncfs()).await?;
        Ok(Reply::empty())
    }
}

/// `None` where a file leaves an operation to its node.
fn supported<T>(result: Result<T, Error>) -> Outcome<'static, Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotSupported) => Ok(None),
        Err(error) => Err(error),
    }
}
