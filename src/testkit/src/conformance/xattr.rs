//! Extended attributes.

use vfsd_backend::{Device, Errno, FileKind, OpenFlags, XattrFlags};

use super::{Row, let_time_pass, refused, rows};
use crate::place::Place;

pub(super) const ROWS: &[Row] = rows! {
    a_value_that_was_set_is_read needs XATTR,
    a_value_is_replaced needs XATTR,
    an_empty_value_is_kept needs XATTR,
    a_value_may_have_any_bytes needs XATTR,
    the_longest_name_of_an_attribute_works needs XATTR,
    a_missing_attribute_is_told needs XATTR,
    all_attributes_are_listed needs XATTR,
    a_new_file_has_no_user_attributes needs XATTR,
    a_removed_attribute_is_gone needs XATTR,
    removal_of_a_missing_attribute_is_refused needs XATTR,
    create_of_an_existing_attribute_is_refused needs XATTR,
    create_of_a_missing_attribute_sets_it needs XATTR,
    replace_of_a_missing_attribute_is_refused needs XATTR,
    replace_of_an_existing_attribute_sets_it needs XATTR,
    directories_have_attributes needs XATTR,
    files_do_not_share_attributes needs XATTR,
    names_of_one_file_share_attributes needs XATTR + HARD_LINKS,
    attributes_survive_a_rename needs XATTR,
    attributes_of_a_file_without_a_name_can_be_used needs XATTR,
    user_attributes_of_a_symbolic_link_are_refused needs XATTR,
    user_attributes_of_a_fifo_are_refused needs XATTR + SPECIAL_FILES,
    trusted_attributes_of_a_symbolic_link_are_kept needs XATTR + PRIVILEGED,
    trusted_and_security_attributes_are_kept needs XATTR + PRIVILEGED,
    an_unknown_namespace_is_refused needs XATTR,
    a_namespace_without_a_name_is_refused needs XATTR,
    setting_an_attribute_moves_only_the_change_time needs XATTR,
    an_attribute_too_large_is_refused_and_changes_nothing needs XATTR + EXT4_LIMITS,
    many_attributes_are_kept needs XATTR,
};

fn a_value_that_was_set_is_read(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.name", b"value").unwrap();
    assert_eq!(file.getxattr("user.name").unwrap(), b"value");
}

fn a_value_is_replaced(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.name", b"a longer value").unwrap();
    file.setxattr("user.name", b"short").unwrap();
    assert_eq!(file.getxattr("user.name").unwrap(), b"short");
    assert_eq!(file.xattrs("user.").unwrap().len(), 1);
}

fn an_empty_value_is_kept(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.name", b"").unwrap();
    assert_eq!(file.getxattr("user.name").unwrap(), b"");
    assert_eq!(file.xattrs("user.").unwrap().len(), 1);
}

fn a_value_may_have_any_bytes(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let value: Vec<u8> = (0..=255).collect();
    file.setxattr("user.name", &value).unwrap();
    assert_eq!(file.getxattr("user.name").unwrap(), value);
}

fn the_longest_name_of_an_attribute_works(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let name = format!("user.{}", "n".repeat(250));
    file.setxattr(&name, b"value").unwrap();
    assert_eq!(file.getxattr(&name).unwrap(), b"value");
    assert!(file.xattr_names().unwrap().contains(&name));
}

fn a_missing_attribute_is_told(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.getxattr("user.missing"), Errno::NODATA);
}

fn all_attributes_are_listed(root: &Place) {
    let file = root.put("file", b"").unwrap();
    for name in ["user.one", "user.two", "user.three"] {
        file.setxattr(name, b"x").unwrap();
    }
    let names: Vec<String> = file.xattrs("user.").unwrap().into_keys().collect();
    assert_eq!(names, ["user.one", "user.three", "user.two"]);
}

fn a_new_file_has_no_user_attributes(root: &Place) {
    let file = root.put("file", b"").unwrap();
    assert!(file.xattrs("user.").unwrap().is_empty());
}

fn a_removed_attribute_is_gone(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.one", b"1").unwrap();
    file.setxattr("user.two", b"2").unwrap();
    file.removexattr("user.one").unwrap();
    refused(file.getxattr("user.one"), Errno::NODATA);
    assert_eq!(file.getxattr("user.two").unwrap(), b"2");
}

fn removal_of_a_missing_attribute_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.removexattr("user.missing"), Errno::NODATA);
}

fn create_of_an_existing_attribute_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.name", b"old").unwrap();
    let created = file.setxattr_with("user.name", b"new", XattrFlags::CREATE);
    refused(created, Errno::EXIST);
    assert_eq!(file.getxattr("user.name").unwrap(), b"old");
}

fn create_of_a_missing_attribute_sets_it(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr_with("user.name", b"new", XattrFlags::CREATE)
        .unwrap();
    assert_eq!(file.getxattr("user.name").unwrap(), b"new");
}

fn replace_of_a_missing_attribute_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let replaced = file.setxattr_with("user.name", b"new", XattrFlags::REPLACE);
    refused(replaced, Errno::NODATA);
    refused(file.getxattr("user.name"), Errno::NODATA);
}

fn replace_of_an_existing_attribute_sets_it(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.name", b"old").unwrap();
    file.setxattr_with("user.name", b"new", XattrFlags::REPLACE)
        .unwrap();
    assert_eq!(file.getxattr("user.name").unwrap(), b"new");
}

fn directories_have_attributes(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.setxattr("user.name", b"value").unwrap();
    assert_eq!(dir.getxattr("user.name").unwrap(), b"value");
    dir.removexattr("user.name").unwrap();
    refused(dir.getxattr("user.name"), Errno::NODATA);
}

fn files_do_not_share_attributes(root: &Place) {
    let one = root.put("one", b"").unwrap();
    let two = root.put("two", b"").unwrap();
    one.setxattr("user.name", b"1").unwrap();
    refused(two.getxattr("user.name"), Errno::NODATA);
}

fn names_of_one_file_share_attributes(root: &Place) {
    let one = root.put("one", b"").unwrap();
    root.link(&one, "two").unwrap();
    one.setxattr("user.name", b"1").unwrap();
    let two = root.lookup("two").unwrap();
    assert_eq!(two.getxattr("user.name").unwrap(), b"1");
}

fn attributes_survive_a_rename(root: &Place) {
    let file = root.put("old", b"").unwrap();
    file.setxattr("user.name", b"value").unwrap();
    root.rename("old", root, "new").unwrap();
    let found = root.lookup("new").unwrap();
    assert_eq!(found.getxattr("user.name").unwrap(), b"value");
}

fn attributes_of_a_file_without_a_name_can_be_used(root: &Place) {
    let (file, _handle) = root.create("file").unwrap();
    file.setxattr("user.before", b"1").unwrap();
    root.unlink("file").unwrap();
    file.setxattr("user.after", b"2").unwrap();
    assert_eq!(file.getxattr("user.before").unwrap(), b"1");
    assert_eq!(file.getxattr("user.after").unwrap(), b"2");
    file.removexattr("user.before").unwrap();
}

fn user_attributes_of_a_symbolic_link_are_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let link = root.symlink("link", "file").unwrap();
    refused(link.setxattr("user.name", b"value"), Errno::PERM);
    refused(file.getxattr("user.name"), Errno::NODATA);
}

fn user_attributes_of_a_fifo_are_refused(root: &Place) {
    let fifo = root
        .mknod("fifo", FileKind::Fifo, Device::default())
        .unwrap();
    refused(fifo.setxattr("user.name", b"value"), Errno::PERM);
    refused(fifo.getxattr("user.name"), Errno::NODATA);
}

fn trusted_attributes_of_a_symbolic_link_are_kept(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let link = root.symlink("link", "file").unwrap();
    link.setxattr("trusted.name", b"value").unwrap();
    assert_eq!(link.getxattr("trusted.name").unwrap(), b"value");
    refused(file.getxattr("trusted.name"), Errno::NODATA);
    link.removexattr("trusted.name").unwrap();
}

fn trusted_and_security_attributes_are_kept(root: &Place) {
    let file = root.put("file", b"").unwrap();
    for name in ["trusted.overlay.opaque", "security.vfsd_test"] {
        file.setxattr(name, b"y").unwrap();
        assert_eq!(file.getxattr(name).unwrap(), b"y");
        assert!(
            file.xattr_names()
                .unwrap()
                .iter()
                .any(|known| known == name)
        );
    }
}

fn an_unknown_namespace_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    for name in ["unknown.name", "name", "system.unknown"] {
        refused(file.setxattr(name, b"value"), Errno::OPNOTSUPP);
        refused(file.getxattr(name), Errno::OPNOTSUPP);
    }
}

fn a_namespace_without_a_name_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.setxattr("user.", b"value"), Errno::INVAL);
}

fn setting_an_attribute_moves_only_the_change_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let before = file.attributes().unwrap();
    let_time_pass();
    file.setxattr("user.name", b"value").unwrap();
    let after = file.attributes().unwrap();
    assert!(after.changed > before.changed);
    assert_eq!(after.modified, before.modified);
    let_time_pass();
    file.removexattr("user.name").unwrap();
    assert!(file.attributes().unwrap().changed > after.changed);
}

fn an_attribute_too_large_is_refused_and_changes_nothing(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.setxattr("user.kept", b"value").unwrap();
    let large = vec![1; 64 * 1024];
    refused(file.setxattr("user.large", &large), Errno::NOSPC);
    assert_eq!(file.getxattr("user.kept").unwrap(), b"value");
    let handle = file.open(OpenFlags::WRITE).unwrap();
    handle.write_all(0, b"the file can still be used").unwrap();
}

fn many_attributes_are_kept(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let names: Vec<String> = (0..40)
        .map(|index| format!("user.name{index:02}"))
        .collect();
    for name in &names {
        file.setxattr(name, name.as_bytes()).unwrap();
    }
    for name in &names {
        assert_eq!(file.getxattr(name).unwrap(), name.as_bytes());
    }
    let listed: Vec<String> = file.xattrs("user.").unwrap().into_keys().collect();
    assert_eq!(listed, names);
    file.removexattr("user.name20").unwrap();
    assert_eq!(file.xattrs("user.").unwrap().len(), 39);
}
