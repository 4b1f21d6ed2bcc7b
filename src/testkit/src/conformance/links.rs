//! Several names of one file.

use vfsd_backend::{Device, Errno, FileKind};

use super::{Row, let_time_pass, refused, rows};
use crate::place::Place;

pub(super) const ROWS: &[Row] = rows! {
    a_second_name_stands_for_the_same_file needs HARD_LINKS,
    the_answer_to_link_counts_the_new_name needs HARD_LINKS,
    what_is_written_under_one_name_is_read_under_the_other needs HARD_LINKS,
    a_removed_name_leaves_the_other needs HARD_LINKS,
    link_onto_an_existing_name_is_refused needs HARD_LINKS,
    link_of_a_directory_is_refused needs HARD_LINKS,
    link_in_a_file_is_refused needs HARD_LINKS,
    link_of_a_file_without_names_is_refused needs HARD_LINKS,
    link_in_a_removed_directory_is_refused needs HARD_LINKS,
    link_of_a_symbolic_link_does_not_follow_it needs HARD_LINKS,
    link_of_a_fifo_works needs HARD_LINKS + SPECIAL_FILES,
    link_moves_the_change_time needs HARD_LINKS,
    names_in_several_directories_are_one_file needs HARD_LINKS,
};

fn a_second_name_stands_for_the_same_file(root: &Place) {
    let file = root.put("one", b"content").unwrap();
    let linked = root.link(&file, "two").unwrap();
    assert_eq!(linked.identity(), file.identity());
    assert_eq!(root.lookup("two").unwrap().identity(), file.identity());
    assert_eq!(file.attributes().unwrap().links, 2);
}

fn the_answer_to_link_counts_the_new_name(root: &Place) {
    let file = root.put("one", b"").unwrap();
    let name = vfsd_backend::Name::new(b"two").unwrap();
    let entry = crate::place::wait(root.0.link(file.0.as_ref(), name)).unwrap();
    assert_eq!(entry.attributes.links, 2);
}

fn what_is_written_under_one_name_is_read_under_the_other(root: &Place) {
    let one = root.put("one", b"before").unwrap();
    root.link(&one, "two").unwrap();
    let two = root.lookup("two").unwrap();
    two.open_both().unwrap().write_all(0, b"after!").unwrap();
    two.chmod(0o600).unwrap();
    assert_eq!(one.content().unwrap(), b"after!");
    assert_eq!(one.attributes().unwrap().permissions, 0o600);
}

fn a_removed_name_leaves_the_other(root: &Place) {
    let file = root.put("one", b"content").unwrap();
    root.link(&file, "two").unwrap();
    root.unlink("one").unwrap();
    assert_eq!(file.attributes().unwrap().links, 1);
    assert_eq!(root.names().unwrap(), ["two"]);
    assert_eq!(root.lookup("two").unwrap().content().unwrap(), b"content");
}

fn link_onto_an_existing_name_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    root.put("other", b"").unwrap();
    root.mkdir("dir").unwrap();
    for name in ["file", "other", "dir"] {
        refused(root.link(&file, name), Errno::EXIST);
    }
    assert_eq!(file.attributes().unwrap().links, 1);
}

fn link_of_a_directory_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    refused(root.link(&dir, "other"), Errno::PERM);
}

fn link_in_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.link(&file, "name"), Errno::NOTDIR);
}

fn link_of_a_file_without_names_is_refused(root: &Place) {
    let (file, _handle) = root.create("file").unwrap();
    root.unlink("file").unwrap();
    refused(root.link(&file, "again"), Errno::NOENT);
    assert!(!root.has("again"));
}

fn link_in_a_removed_directory_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    refused(dir.link(&file, "name"), Errno::NOENT);
    assert_eq!(file.attributes().unwrap().links, 1);
}

fn link_of_a_symbolic_link_does_not_follow_it(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let symlink = root.symlink("symlink", "file").unwrap();
    let linked = root.link(&symlink, "linked").unwrap();
    assert_eq!(linked.readlink().unwrap(), b"file");
    assert_eq!(symlink.attributes().unwrap().links, 2);
    assert_eq!(file.attributes().unwrap().links, 1);
}

fn link_of_a_fifo_works(root: &Place) {
    let fifo = root
        .mknod("fifo", FileKind::Fifo, Device::default())
        .unwrap();
    let linked = root.link(&fifo, "other").unwrap();
    assert_eq!(linked.identity(), fifo.identity());
}

fn link_moves_the_change_time(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let before = file.attributes().unwrap();
    let_time_pass();
    root.link(&file, "other").unwrap();
    let after = file.attributes().unwrap();
    assert!(after.changed > before.changed);
    assert_eq!(after.modified, before.modified);
}

fn names_in_several_directories_are_one_file(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    for index in 0..20 {
        let dir = root.mkdir(&format!("dir{index}")).unwrap();
        dir.link(&file, "file").unwrap();
    }
    assert_eq!(file.attributes().unwrap().links, 21);
    root.unlink("file").unwrap();
    let last = root.lookup("dir19").unwrap().lookup("file").unwrap();
    assert_eq!(last.identity(), file.identity());
}
