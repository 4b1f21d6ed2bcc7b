//! Extended attributes.

use vfsd_backend::{Errno, XattrFlags, XattrName};
use vfsd_fuse::wire::{GetxattrIn, GetxattrOut, SETXATTR_ACL_KILL_SGID};
use vfsd_fuse::{InitFlags, SetxattrArgument, XATTR_SIZE_MAX};

use super::{Call, Outcome};
use crate::responder::Reply;

/// Where Linux keeps POSIX ACLs.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

impl<'a> Call<'a> {
    pub(super) async fn setxattr(&self, arg: SetxattrArgument<'_>) -> Outcome<'a> {
        let node = self.node()?;
        self.check_acl(arg.name)?;
        let mut flags = match XattrFlags::from_bits(arg.flags) {
            Some(flags) if !flags.contains(XattrFlags::KILL_SGID) => flags,
            _ => return Err(Errno::INVAL.into()),
        };
        if flags.contains(XattrFlags::CREATE | XattrFlags::REPLACE) {
            return Err(Errno::INVAL.into());
        }
        if arg.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0 {
            flags |= XattrFlags::KILL_SGID;
        }
        node.node.setxattr(arg.name, arg.value, flags).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn getxattr(
        &self,
        arg: GetxattrIn,
        name: XattrName<'_>,
        room: usize,
    ) -> Outcome<'a> {
        let node = self.node()?;
        self.check_acl(name)?;
        let value = self.interruptible(node.node.getxattr(name)).await?;
        sized(arg.size, room, value)
    }

    pub(super) async fn listxattr(&self, arg: GetxattrIn, room: usize) -> Outcome<'a> {
        let node = self.node()?;
        let mut names = self.interruptible(node.node.listxattr()).await?;
        if !self.epoch.agreed(InitFlags::POSIX_ACL) {
            names = names
                .split_inclusive(|byte| *byte == 0)
                .filter(|name| !name.starts_with(ACL_PREFIX))
                .flatten()
                .copied()
                .collect();
        }
        sized(arg.size, room, names)
    }

    pub(super) async fn removexattr(&self, name: XattrName<'_>) -> Outcome<'a> {
        let node = self.node()?;
        self.check_acl(name)?;
        node.node.removexattr(name).await?;
        Ok(Reply::empty())
    }

    /// A guest that does not know of the ACLs would get permissions wrong.
    fn check_acl(&self, name: XattrName<'_>) -> Result<(), Errno> {
        if name.as_bytes().starts_with(ACL_PREFIX) && !self.epoch.agreed(InitFlags::POSIX_ACL) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    }
}

/// The value, or how long it is if that is what was asked.
fn sized(asked: u32, room: usize, value: Vec<u8>) -> Outcome<'static> {
    if value.len() > XATTR_SIZE_MAX {
        return Err(Errno::TOOBIG.into());
    }
    if asked == 0 {
        let size = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
        return Ok(Reply::structure(&GetxattrOut { size, padding: 0 }));
    }
    let room = room.min(usize::try_from(asked).unwrap_or(usize::MAX));
    if value.len() > room {
        Err(Errno::RANGE.into())
    } else {
        Ok(Reply::bytes(value))
    }
}
