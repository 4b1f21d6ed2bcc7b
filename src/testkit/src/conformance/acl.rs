//! POSIX access control lists.

use vfsd_backend::{AccessMask, Device, Errno, FileKind, NewInode, OpenFlags, XattrFlags};

use super::{Row, refused, rows};
use crate::place::{Place, caller, superuser, with_permissions};

pub(super) const ROWS: &[Row] = rows! {
    a_list_that_was_set_is_read needs ACL,
    a_new_file_has_no_list needs ACL,
    a_list_that_names_someone_sets_the_permissions needs ACL,
    a_list_that_names_nobody_only_sets_the_permissions needs ACL,
    chmod_changes_the_mask_of_the_list needs ACL,
    chmod_changes_the_group_of_a_list_without_mask needs ACL,
    removal_of_the_list_leaves_the_permissions needs ACL,
    removal_of_a_missing_list_succeeds needs ACL,
    an_empty_list_removes needs ACL,
    lists_are_among_the_listed_attributes needs ACL,
    lists_that_are_not_valid_are_refused needs ACL,
    a_default_list_of_a_file_is_refused needs ACL,
    a_list_of_a_symbolic_link_is_refused needs ACL,
    a_default_list_leaves_the_directory_itself needs ACL,
    a_new_file_gets_the_default_list_of_its_directory needs ACL,
    a_new_directory_hands_the_default_list_on needs ACL,
    a_default_list_stands_in_for_the_umask needs ACL,
    a_default_list_and_the_asked_permissions_restrict_each_other needs ACL,
    a_default_list_that_names_nobody_becomes_permissions needs ACL,
    a_new_fifo_gets_the_default_list needs ACL + SPECIAL_FILES,
    a_new_symbolic_link_gets_no_list needs ACL,
    the_setgid_bit_survives_a_list_of_the_privileged needs ACL,
    the_setgid_bit_goes_when_asked needs ACL,
    setting_a_list_moves_the_change_time needs ACL,
    access_follows_the_list needs ACL + PRIVILEGED,
};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

/// The value of an ACL attribute (linux/posix_acl_xattr.h): tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Grants user 1000 `named`, everyone in the group `group`, bounded by `mask`.
fn naming(named: u16, group: u16, mask: u16) -> Vec<u8> {
    acl(&[
        (OWNER, 7, NO_ID),
        (USER, named, 1000),
        (GROUP, group, NO_ID),
        (MASK, mask, NO_ID),
        (OTHER, 1, NO_ID),
    ])
}

fn plain(owner: u16, group: u16, other: u16) -> Vec<u8> {
    acl(&[
        (OWNER, owner, NO_ID),
        (GROUP, group, NO_ID),
        (OTHER, other, NO_ID),
    ])
}

fn permissions(place: &Place) -> u32 {
    place.attributes().unwrap().permissions
}

fn create(dir: &Place, name: &str, permissions: u32, umask: u32) -> Place {
    let inode = NewInode {
        umask,
        ..with_permissions(permissions)
    };
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    dir.create_as(superuser(), name, flags, inode).unwrap().0
}

fn a_list_that_was_set_is_read(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let value = naming(6, 5, 7);
    file.setxattr(ACCESS, &value).unwrap();
    assert_eq!(file.getxattr(ACCESS).unwrap(), value);
}

fn a_new_file_has_no_list(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.getxattr(ACCESS), Errno::NODATA);
    let dir = root.mkdir("dir").unwrap();
    refused(dir.getxattr(DEFAULT), Errno::NODATA);
}

fn a_list_that_names_someone_sets_the_permissions(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr(ACCESS, &naming(6, 5, 4)).unwrap();
    assert_eq!(permissions(&file), 0o741);
}

fn a_list_that_names_nobody_only_sets_the_permissions(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr(ACCESS, &plain(6, 5, 4)).unwrap();
    assert_eq!(permissions(&file), 0o654);
    refused(file.getxattr(ACCESS), Errno::NODATA);
}

fn chmod_changes_the_mask_of_the_list(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr(ACCESS, &naming(6, 5, 7)).unwrap();
    file.chmod(0o620).unwrap();
    let expected = acl(&[
        (OWNER, 6, NO_ID),
        (USER, 6, 1000),
        (GROUP, 5, NO_ID),
        (MASK, 2, NO_ID),
        (OTHER, 0, NO_ID),
    ]);
    assert_eq!(file.getxattr(ACCESS).unwrap(), expected);
    assert_eq!(permissions(&file), 0o620);
}

fn chmod_changes_the_group_of_a_list_without_mask(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr(ACCESS, &plain(7, 7, 7)).unwrap();
    file.chmod(0o640).unwrap();
    assert_eq!(permissions(&file), 0o640);
    refused(file.getxattr(ACCESS), Errno::NODATA);
}

fn removal_of_the_list_leaves_the_permissions(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr(ACCESS, &naming(6, 5, 4)).unwrap();
    file.removexattr(ACCESS).unwrap();
    refused(file.getxattr(ACCESS), Errno::NODATA);
    assert_eq!(permissions(&file), 0o741);
}

fn removal_of_a_missing_list_succeeds(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.removexattr(ACCESS).unwrap();
    let dir = root.mkdir("dir").unwrap();
    dir.removexattr(DEFAULT).unwrap();
}

fn an_empty_list_removes(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(7, 5, 5)).unwrap();
    dir.setxattr(DEFAULT, &acl(&[])).unwrap();
    refused(dir.getxattr(DEFAULT), Errno::NODATA);
}

fn lists_are_among_the_listed_attributes(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(ACCESS, &naming(6, 5, 7)).unwrap();
    dir.setxattr(DEFAULT, &naming(6, 5, 7)).unwrap();
    assert_eq!(dir.xattrs("system.").unwrap().len(), 2);
}

fn lists_that_are_not_valid_are_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let unmasked = acl(&[
        (OWNER, 7, NO_ID),
        (USER, 7, 1000),
        (GROUP, 5, NO_ID),
        (OTHER, 1, NO_ID),
    ]);
    let without_other = acl(&[(OWNER, 7, NO_ID), (GROUP, 5, NO_ID)]);
    let out_of_order = acl(&[(GROUP, 5, NO_ID), (OWNER, 7, NO_ID), (OTHER, 5, NO_ID)]);
    let unknown_tag = acl(&[(OWNER, 7, NO_ID), (GROUP, 5, NO_ID), (0x40, 5, NO_ID)]);
    let wide = plain(8, 5, 5);
    let cut = naming(6, 5, 7)[..20].to_vec();
    for bad in [
        unmasked,
        without_other,
        out_of_order,
        unknown_tag,
        wide,
        cut,
    ] {
        refused(file.setxattr(ACCESS, &bad), Errno::INVAL);
    }
    refused(file.getxattr(ACCESS), Errno::NODATA);
    assert_eq!(permissions(&file), 0o644);
}

fn a_default_list_of_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.setxattr(DEFAULT, &naming(6, 5, 7)), Errno::ACCESS);
}

fn a_list_of_a_symbolic_link_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let link = root.symlink("link", "file").unwrap();
    refused(link.setxattr(ACCESS, &plain(7, 7, 7)), Errno::OPNOTSUPP);
    let file = root.lookup("file").unwrap();
    assert_eq!(permissions(&file), 0o644);
}

fn a_default_list_leaves_the_directory_itself(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(7, 0, 7)).unwrap();
    assert_eq!(permissions(&dir), 0o755);
    refused(dir.getxattr(ACCESS), Errno::NODATA);
}

fn a_new_file_gets_the_default_list_of_its_directory(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(6, 5, 7)).unwrap();
    let file = create(&dir, "file", 0o777, 0);
    assert_eq!(file.getxattr(ACCESS).unwrap(), naming(6, 5, 7));
    assert_eq!(permissions(&file), 0o771);
    refused(file.getxattr(DEFAULT), Errno::NODATA);
}

fn a_new_directory_hands_the_default_list_on(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(6, 5, 7)).unwrap();
    let sub = dir
        .mkdir_as(superuser(), "sub", with_permissions(0o777))
        .unwrap();
    assert_eq!(sub.getxattr(DEFAULT).unwrap(), naming(6, 5, 7));
    assert_eq!(sub.getxattr(ACCESS).unwrap(), naming(6, 5, 7));
    let file = create(&sub, "file", 0o777, 0);
    assert_eq!(file.getxattr(ACCESS).unwrap(), naming(6, 5, 7));
}

fn a_default_list_stands_in_for_the_umask(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &plain(7, 7, 5)).unwrap();
    let file = create(&dir, "file", 0o666, 0o077);
    assert_eq!(permissions(&file), 0o664);
}

fn a_default_list_and_the_asked_permissions_restrict_each_other(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(7, 7, 6)).unwrap();
    let file = create(&dir, "file", 0o640, 0);
    let expected = acl(&[
        (OWNER, 6, NO_ID),
        (USER, 7, 1000),
        (GROUP, 7, NO_ID),
        (MASK, 4, NO_ID),
        (OTHER, 0, NO_ID),
    ]);
    assert_eq!(file.getxattr(ACCESS).unwrap(), expected);
    assert_eq!(permissions(&file), 0o640);
}

fn a_default_list_that_names_nobody_becomes_permissions(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &plain(7, 5, 1)).unwrap();
    let file = create(&dir, "file", 0o666, 0);
    assert_eq!(permissions(&file), 0o640);
    refused(file.getxattr(ACCESS), Errno::NODATA);
}

fn a_new_fifo_gets_the_default_list(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(6, 5, 7)).unwrap();
    let fifo = dir
        .mknod("fifo", FileKind::Fifo, Device::default())
        .unwrap();
    let expected = acl(&[
        (OWNER, 6, NO_ID),
        (USER, 6, 1000),
        (GROUP, 5, NO_ID),
        (MASK, 4, NO_ID),
        (OTHER, 0, NO_ID),
    ]);
    assert_eq!(fifo.getxattr(ACCESS).unwrap(), expected);
}

fn a_new_symbolic_link_gets_no_list(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr(DEFAULT, &naming(6, 5, 7)).unwrap();
    let link = dir.symlink("link", "target").unwrap();
    assert_eq!(permissions(&link), 0o777);
    assert!(link.getxattr(ACCESS).is_err());
}

fn the_setgid_bit_survives_a_list_of_the_privileged(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.chmod(0o2755).unwrap();
    file.setxattr(ACCESS, &naming(6, 5, 5)).unwrap();
    assert_eq!(permissions(&file), 0o2751);
}

fn the_setgid_bit_goes_when_asked(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.chmod(0o2755).unwrap();
    file.setxattr_with(ACCESS, &naming(6, 5, 5), XattrFlags::KILL_SGID)
        .unwrap();
    assert_eq!(permissions(&file), 0o751);
}

fn setting_a_list_moves_the_change_time(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let before = file.attributes().unwrap().changed;
    super::let_time_pass();
    file.setxattr(ACCESS, &naming(6, 5, 5)).unwrap();
    assert!(file.attributes().unwrap().changed > before);
}

fn access_follows_the_list(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let value = acl(&[
        (OWNER, 6, NO_ID),
        (USER, 4, 1000),
        (GROUP, 0, NO_ID),
        (NAMED_GROUP, 6, 2000),
        (MASK, 6, NO_ID),
        (OTHER, 0, NO_ID),
    ]);
    file.setxattr(ACCESS, &value).unwrap();
    let asked = |uid, gid, mask| match file.access(caller(uid, gid), mask) {
        Ok(()) => true,
        Err(Errno::ACCESS) => false,
        Err(other) => panic!("{other}"),
    };
    assert!(asked(1000, 9, AccessMask::READ));
    assert!(!asked(1000, 9, AccessMask::WRITE));
    assert!(asked(9, 2000, AccessMask::READ | AccessMask::WRITE));
    assert!(!asked(9, 9, AccessMask::READ));
    assert!(asked(0, 0, AccessMask::READ | AccessMask::WRITE));
    assert!(!asked(0, 0, AccessMask::EXECUTE));
}
