//! Whether a caller may use a file.

use std::os::fd::AsFd;

use vfsd_backend::{AccessMask, Attributes, Caller, Errno, FileKind, Identity};

use crate::credentials::asking;
use crate::inode::Inode;

type Result<T> = std::result::Result<T, Errno>;

impl Inode {
    /// Whether `caller` may do what `mask` says, as the host sees it, ACLs included. A caller
    /// without an identity was checked by the guest.
    pub(crate) fn check_access(&self, caller: &Caller, mask: AccessMask) -> Result<()> {
        let Some(identity) = caller.identity else {
            return self.attributes().map(drop);
        };
        let descriptor = self.descriptor()?;
        let file = descriptor.as_fd();
        match asking(identity, || self.share().proc_fd.access(file, mask)) {
            // The daemon may not act as somebody else, or the kernel is older than 5.8.
            Err(Errno::PERM | Errno::NOSYS) => allowed(&self.attributes()?, &identity, mask),
            other => other,
        }
    }
}

/// Whether the permission bits let somebody do what is asked.
fn allowed(file: &Attributes, identity: &Identity, mask: AccessMask) -> Result<()> {
    if identity.uid == 0 {
        // Root executes what somebody may execute, and searches every directory.
        let executable = file.permissions & 0o111 != 0 || file.kind == FileKind::Directory;
        return match mask.contains(AccessMask::EXECUTE) && !executable {
            true => Err(Errno::ACCESS),
            false => Ok(()),
        };
    }
    let in_group = identity.gid == file.gid || identity.supplementary == Some(file.gid);
    let granted = match identity.uid == file.uid {
        true => file.permissions >> 6,
        false if in_group => file.permissions >> 3,
        false => file.permissions,
    };
    match AccessMask::from_bits_truncate(granted).contains(mask) {
        true => Ok(()),
        false => Err(Errno::ACCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_follows_the_first_class_that_the_caller_is_in() {
        let file = |permissions| Attributes {
            inode: 1,
            kind: FileKind::Regular,
            permissions,
            links: 1,
            uid: 10,
            gid: 20,
            device: vfsd_backend::Device::default(),
            size: 0,
            blocks: 0,
            block_size: 4096,
            accessed: vfsd_backend::Timestamp::default(),
            modified: vfsd_backend::Timestamp::default(),
            changed: vfsd_backend::Timestamp::default(),
            born: None,
            mount_root: false,
        };
        let who = |uid, gid, supplementary| Identity {
            uid,
            gid,
            supplementary,
        };
        let (read, write) = (AccessMask::READ, AccessMask::WRITE);
        let rows = [
            (0o077, who(10, 20, None), read, Err(Errno::ACCESS)),
            (0o400, who(10, 99, None), read, Ok(())),
            (0o040, who(11, 20, None), read, Ok(())),
            (0o040, who(11, 99, Some(20)), read, Ok(())),
            (0o707, who(11, 20, None), write, Err(Errno::ACCESS)),
            (0o002, who(11, 99, None), write, Ok(())),
            (0o000, who(0, 0, None), read | write, Ok(())),
            (
                0o666,
                who(0, 0, None),
                AccessMask::EXECUTE,
                Err(Errno::ACCESS),
            ),
        ];
        for (permissions, identity, mask, expected) in rows {
            assert_eq!(
                allowed(&file(permissions), &identity, mask),
                expected,
                "{permissions:o} {identity:?} {mask:?}"
            );
        }
    }
}
