//! What a new inode gets from its directory, its maker and what was asked for.

use super::acl::{Acl, is_member};
use super::inode_flags::InodeFlags;
use super::mode::{GROUP_EXECUTE, SET_GROUP_ID, STICKY};
use crate::{FileKind, Identity, NewInode};

/// What counts of the directory that a new inode belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// Permission, set-id and sticky bits.
    pub permissions: u32,
    /// Group.
    pub gid: u32,
    /// ACL for new entries.
    pub default_acl: Option<&'a Acl>,
    /// Inode flags.
    pub flags: InodeFlags,
    /// Project.
    pub project: u32,
}

/// Group, permissions, ACLs and inode flags of a new inode.
#[derive(Debug, Clone)]
pub struct NewRights {
    /// Group: that of a set-group-id directory, otherwise the maker's.
    pub gid: u32,
    /// Permission, set-id and sticky bits.
    pub permissions: u32,
    /// Access ACL, where it says more than the permission bits.
    pub acl: Option<Acl>,
    /// ACL for entries of a new directory.
    pub default_acl: Option<Acl>,
    /// Inode flags.
    pub flags: InodeFlags,
    /// Project.
    pub project: u32,
}

impl NewRights {
    /// What the kernel does in `vfs_prepare_mode` and `posix_acl_create`.
    pub fn new(parent: &Parent<'_>, maker: &Identity, kind: FileKind, new: &NewInode<'_>) -> Self {
        let setgid = parent.permissions & SET_GROUP_ID != 0;
        let inherits_project = parent.flags.contains(InodeFlags::PROJINHERIT);
        let rights = Self {
            gid: if setgid { parent.gid } else { maker.gid },
            permissions: asked_permissions(parent, maker, kind, new.permissions),
            acl: None,
            default_acl: None,
            flags: parent.flags.inherited(kind),
            project: if inherits_project { parent.project } else { 0 },
        };
        match parent.default_acl {
            _ if kind == FileKind::Symlink => rights,
            None => Self {
                permissions: rights.permissions & !(new.umask & 0o777),
                ..rights
            },
            Some(default) => {
                let mut acl = default.clone();
                let permissions = acl.restrict(rights.permissions);
                let hands_on = kind == FileKind::Directory;
                Self {
                    permissions,
                    acl: Some(acl).filter(|acl| !acl.is_minimal()),
                    default_acl: hands_on.then(|| default.clone()),
                    ..rights
                }
            }
        }
    }
}

/// The permissions before umask and ACL.
fn asked_permissions(parent: &Parent<'_>, maker: &Identity, kind: FileKind, asked: u32) -> u32 {
    let setgid = parent.permissions & SET_GROUP_ID != 0;
    match kind {
        FileKind::Symlink => return 0o777,
        // mkdir(2) takes no set-id bits; that of the parent's group is inherited.
        FileKind::Directory if setgid => return asked & (0o777 | STICKY) | SET_GROUP_ID,
        FileKind::Directory => return asked & (0o777 | STICKY),
        _ => {}
    }
    let permissions = asked & 0o7777;
    let group_program = SET_GROUP_ID | GROUP_EXECUTE;
    let runs_as_group = setgid && permissions & group_program == group_program;
    if runs_as_group && maker.uid != 0 && !is_member(maker, parent.gid) {
        // Else anyone could make programs that run with the group of the directory.
        return permissions & !SET_GROUP_ID;
    }
    permissions
}
