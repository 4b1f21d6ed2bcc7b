//! Bits of `st_mode` beside the permissions.

/// A program runs as its owner.
pub const SET_USER_ID: u32 = 0o4000;
/// A program runs with its group; new entries of a directory get its group.
pub const SET_GROUP_ID: u32 = 0o2000;
/// Entries of a directory are removed by their owners only.
pub const STICKY: u32 = 0o1000;
/// The group may execute.
pub const GROUP_EXECUTE: u32 = 0o010;

/// Takes away what gives a program more rights than its caller has: set-user-id, and set-group-id
/// where the group may execute. This is for writes, truncations and changes of owner; fallocate takes both.
pub fn without_set_id(permissions: u32) -> u32 {
    let permissions = permissions & !SET_USER_ID;
    if permissions & GROUP_EXECUTE == 0 {
        permissions
    } else {
        permissions & !SET_GROUP_ID
    }
}
