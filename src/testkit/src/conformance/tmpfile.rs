//! Files that begin without a name.

use vfsd_backend::{Errno, OpenFlags};

use super::{Row, refused, rows};
use crate::place::Place;

pub(super) const ROWS: &[Row] = rows! {
    a_file_without_a_name_is_not_listed needs TMPFILE,
    a_file_without_a_name_can_be_written needs TMPFILE,
    a_file_without_a_name_can_be_given_one needs TMPFILE + HARD_LINKS,
    an_exclusive_file_never_gets_a_name needs TMPFILE + HARD_LINKS,
    a_file_that_was_named_and_lost_its_name_gets_none_again needs TMPFILE + HARD_LINKS,
    a_file_without_a_name_in_a_file_is_refused needs TMPFILE,
    a_file_without_a_name_in_a_removed_directory_is_refused needs TMPFILE,
    a_file_without_a_name_leaves_the_directory_removable needs TMPFILE,
};

fn a_file_without_a_name_is_not_listed(root: &Place) {
    let (file, _handle) = root.tmpfile(OpenFlags::empty()).unwrap();
    assert_eq!(root.names().unwrap(), [""; 0]);
    assert_eq!(file.attributes().unwrap().links, 0);
}

fn a_file_without_a_name_can_be_written(root: &Place) {
    let (file, handle) = root.tmpfile(OpenFlags::empty()).unwrap();
    handle.write_all(0, b"content").unwrap();
    assert_eq!(handle.content().unwrap(), b"content");
    assert_eq!(file.attributes().unwrap().size, 7);
}

fn a_file_without_a_name_can_be_given_one(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let (file, handle) = root.tmpfile(OpenFlags::empty()).unwrap();
    handle.write_all(0, b"content").unwrap();
    let linked = dir.link(&file, "name").unwrap();
    assert_eq!(linked.identity(), file.identity());
    assert_eq!(file.attributes().unwrap().links, 1);
    let found = dir.lookup("name").unwrap();
    assert_eq!(found.content().unwrap(), b"content");
}

fn an_exclusive_file_never_gets_a_name(root: &Place) {
    let (file, _handle) = root.tmpfile(OpenFlags::EXCLUSIVE).unwrap();
    refused(root.link(&file, "name"), Errno::NOENT);
    assert!(!root.has("name"));
}

fn a_file_that_was_named_and_lost_its_name_gets_none_again(root: &Place) {
    let (file, _handle) = root.tmpfile(OpenFlags::empty()).unwrap();
    root.link(&file, "name").unwrap();
    root.unlink("name").unwrap();
    refused(root.link(&file, "again"), Errno::NOENT);
}

fn a_file_without_a_name_in_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.tmpfile(OpenFlags::empty()), Errno::NOTDIR);
}

fn a_file_without_a_name_in_a_removed_directory_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    // ext4 refuses any new inode in a removed directory with EPERM; with names the kernel is first.
    let errno = dir.tmpfile(OpenFlags::empty()).map(drop).unwrap_err();
    assert!(matches!(errno, Errno::NOENT | Errno::PERM), "{errno}");
}

fn a_file_without_a_name_leaves_the_directory_removable(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let (_, handle) = dir.tmpfile(OpenFlags::empty()).unwrap();
    root.rmdir("dir").unwrap();
    handle.write_all(0, b"still here").unwrap();
    assert_eq!(handle.content().unwrap(), b"still here");
}
