//! What a backend needs that keeps POSIX attributes itself, without a file system below that does
//! it: access control lists, what new inodes inherit, inode flags, names of extended attributes, and
//! tables of advisory locks.

mod acl;
mod inode_flags;
mod locks;
mod mode;
mod new_rights;
mod xattr_names;

pub use acl::{Acl, is_member, mode_permits};
pub use inode_flags::InodeFlags;
pub use locks::{LockBudget, LockTable, OpenFileId};
pub use mode::{GROUP_EXECUTE, SET_GROUP_ID, SET_USER_ID, STICKY, without_set_id};
pub use new_rights::{NewRights, Parent};
pub use xattr_names::{ACL_ACCESS, ACL_DEFAULT, CAPABILITY, XattrNamespace};
