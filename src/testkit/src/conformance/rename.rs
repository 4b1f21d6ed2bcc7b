//! renameat2(2).

use vfsd_backend::{AttributeChanges, Device, Errno, FileKind, RenameFlags, SetTime, Timestamp};

use super::{Row, let_time_pass, refused, rows};
use crate::place::Place;

pub(super) const ROWS: &[Row] = rows! {
    rename_moves_a_file,
    rename_moves_a_file_to_another_directory,
    rename_moves_a_directory_with_what_is_in_it,
    rename_keeps_what_a_symbolic_link_is,
    rename_of_a_missing_name_is_refused,
    rename_replaces_a_file,
    a_replaced_file_lives_on_while_it_is_open,
    rename_replaces_an_empty_directory,
    rename_onto_a_directory_with_entries_is_refused,
    rename_of_a_file_onto_a_directory_is_refused,
    rename_of_a_directory_onto_a_file_is_refused,
    rename_of_a_directory_into_itself_is_refused,
    rename_of_a_directory_deep_into_itself_is_refused,
    rename_onto_an_own_ancestor_is_refused,
    rename_onto_the_same_name_does_nothing,
    rename_onto_another_name_of_the_same_file_does_nothing needs HARD_LINKS,
    rename_into_a_removed_directory_is_refused,
    rename_into_a_file_is_refused,
    rename_of_an_open_file_keeps_it_open,
    a_moved_directory_knows_its_new_parent,
    link_counts_follow_a_moved_directory needs DIRECTORY_LINKS,
    link_counts_follow_a_replaced_directory needs DIRECTORY_LINKS,
    rename_moves_the_times_of_both_directories,
    rename_moves_the_change_time_of_the_file,
    noreplace_moves_to_a_free_name,
    noreplace_onto_an_existing_name_is_refused,
    exchange_swaps_two_files needs EXCHANGE,
    exchange_swaps_a_file_and_a_directory needs EXCHANGE,
    exchange_with_a_missing_name_is_refused needs EXCHANGE,
    exchange_of_a_directory_with_its_own_child_is_refused needs EXCHANGE,
    link_counts_follow_an_exchange_between_directories needs EXCHANGE + DIRECTORY_LINKS,
    exchange_of_directories_with_entries_works needs EXCHANGE,
    a_whiteout_is_left_at_the_old_name needs WHITEOUT,
    a_whiteout_can_be_left_and_a_file_replaced needs WHITEOUT,
    a_whiteout_can_be_moved_and_removed needs WHITEOUT,
};

fn rename_moves_a_file(root: &Place) {
    let file = root.put("old", b"content").unwrap();
    root.rename("old", root, "new").unwrap();
    assert_eq!(root.names().unwrap(), ["new"]);
    let found = root.lookup("new").unwrap();
    assert_eq!(found.identity(), file.identity());
    assert_eq!(found.content().unwrap(), b"content");
}

fn rename_moves_a_file_to_another_directory(root: &Place) {
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    let file = one.put("file", b"content").unwrap();
    one.rename("file", &two, "other").unwrap();
    assert_eq!(one.names().unwrap(), [""; 0]);
    assert_eq!(two.lookup("other").unwrap().identity(), file.identity());
}

fn rename_moves_a_directory_with_what_is_in_it(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"content").unwrap();
    let other = root.mkdir("other").unwrap();
    root.rename("dir", &other, "moved").unwrap();
    let moved = other.lookup("moved").unwrap();
    assert_eq!(moved.identity(), dir.identity());
    let file = moved.lookup("file").unwrap();
    assert_eq!(file.content().unwrap(), b"content");
    assert!(!root.has("dir"));
}

fn rename_keeps_what_a_symbolic_link_is(root: &Place) {
    root.put("file", b"").unwrap();
    root.symlink("link", "file").unwrap();
    root.rename("link", root, "moved").unwrap();
    assert_eq!(root.lookup("moved").unwrap().readlink().unwrap(), b"file");
    assert!(root.has("file"));
}

fn rename_of_a_missing_name_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    refused(root.rename("missing", root, "new"), Errno::NOENT);
    refused(root.rename("missing", root, "file"), Errno::NOENT);
    assert!(root.has("file"));
}

fn rename_replaces_a_file(root: &Place) {
    let old = root.put("old", b"old").unwrap();
    let replaced = root.put("new", b"replaced").unwrap();
    root.rename("old", root, "new").unwrap();
    assert_eq!(root.names().unwrap(), ["new"]);
    assert_eq!(root.lookup("new").unwrap().identity(), old.identity());
    assert_ne!(old.identity(), replaced.identity());
}

fn a_replaced_file_lives_on_while_it_is_open(root: &Place) {
    root.put("old", b"old").unwrap();
    let (replaced, handle) = root.create("new").unwrap();
    handle.write_all(0, b"replaced").unwrap();
    root.rename("old", root, "new").unwrap();
    assert_eq!(handle.content().unwrap(), b"replaced");
    assert_eq!(replaced.attributes().unwrap().links, 0);
}

fn rename_replaces_an_empty_directory(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"").unwrap();
    root.mkdir("empty").unwrap();
    root.rename("dir", root, "empty").unwrap();
    assert_eq!(root.names().unwrap(), ["empty"]);
    assert!(root.lookup("empty").unwrap().has("file"));
}

fn rename_onto_a_directory_with_entries_is_refused(root: &Place) {
    root.mkdir("dir").unwrap();
    let full = root.mkdir("full").unwrap();
    full.put("file", b"").unwrap();
    refused(root.rename("dir", root, "full"), Errno::NOTEMPTY);
    assert_eq!(root.names().unwrap(), ["dir", "full"]);
}

fn rename_of_a_file_onto_a_directory_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    root.mkdir("dir").unwrap();
    refused(root.rename("file", root, "dir"), Errno::ISDIR);
}

fn rename_of_a_directory_onto_a_file_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    root.mkdir("dir").unwrap();
    refused(root.rename("dir", root, "file"), Errno::NOTDIR);
}

fn rename_of_a_directory_into_itself_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    refused(root.rename("dir", &dir, "sub"), Errno::INVAL);
    assert!(root.has("dir"));
}

fn rename_of_a_directory_deep_into_itself_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let deep = dir.mkdir("a").unwrap().mkdir("b").unwrap();
    refused(root.rename("dir", &deep, "c"), Errno::INVAL);
}

fn rename_onto_an_own_ancestor_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let sub = dir.mkdir("sub").unwrap();
    sub.mkdir("deep").unwrap();
    refused(sub.rename("deep", root, "dir"), Errno::NOTEMPTY);
    sub.put("file", b"").unwrap();
    refused(sub.rename("file", root, "dir"), Errno::NOTEMPTY);
}

fn rename_onto_the_same_name_does_nothing(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    root.rename("file", root, "file").unwrap();
    assert_eq!(file.attributes().unwrap().links, 1);
    root.mkdir("dir").unwrap();
    root.rename("dir", root, "dir").unwrap();
    assert_eq!(root.names().unwrap(), ["dir", "file"]);
}

fn rename_onto_another_name_of_the_same_file_does_nothing(root: &Place) {
    let file = root.put("one", b"").unwrap();
    root.link(&file, "two").unwrap();
    root.rename("one", root, "two").unwrap();
    assert_eq!(root.names().unwrap(), ["one", "two"]);
    assert_eq!(file.attributes().unwrap().links, 2);
}

fn rename_into_a_removed_directory_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    refused(root.rename("file", &dir, "file"), Errno::NOENT);
    assert!(root.has("file"));
}

fn rename_into_a_file_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let other = root.put("other", b"").unwrap();
    refused(root.rename("file", &other, "name"), Errno::NOTDIR);
    refused(other.rename("name", root, "new"), Errno::NOTDIR);
}

fn rename_of_an_open_file_keeps_it_open(root: &Place) {
    let (_, handle) = root.create("old").unwrap();
    root.rename("old", root, "new").unwrap();
    handle.write_all(0, b"written later").unwrap();
    let file = root.lookup("new").unwrap();
    assert_eq!(file.content().unwrap(), b"written later");
}

fn a_moved_directory_knows_its_new_parent(root: &Place) {
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    let dir = one.mkdir("dir").unwrap();
    one.rename("dir", &two, "dir").unwrap();
    let listed = dir.list().unwrap();
    let parent = listed.iter().find(|entry| entry.name == b"..").unwrap();
    assert_eq!(parent.inode, two.attributes().unwrap().inode);
}

fn link_counts_follow_a_moved_directory(root: &Place) {
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    let dir = one.mkdir("dir").unwrap();
    one.rename("dir", &two, "dir").unwrap();
    assert_eq!(one.attributes().unwrap().links, 2);
    assert_eq!(two.attributes().unwrap().links, 3);
    assert_eq!(dir.attributes().unwrap().links, 2);
}

fn link_counts_follow_a_replaced_directory(root: &Place) {
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    one.mkdir("dir").unwrap();
    let replaced = two.mkdir("dir").unwrap();
    one.rename("dir", &two, "dir").unwrap();
    assert_eq!(one.attributes().unwrap().links, 2);
    assert_eq!(two.attributes().unwrap().links, 3);
    assert_eq!(replaced.attributes().unwrap().links, 0);
    refused(replaced.mkdir("sub"), Errno::NOENT);
}

fn rename_moves_the_times_of_both_directories(root: &Place) {
    let long_ago = Timestamp::new(1000, 0).unwrap();
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    let file = one.put("file", b"").unwrap();
    let modified = file.attributes().unwrap().modified;
    for dir in [&one, &two] {
        dir.set(AttributeChanges {
            modified: Some(SetTime::At(long_ago)),
            ..AttributeChanges::default()
        })
        .unwrap();
    }
    one.rename("file", &two, "file").unwrap();
    assert!(one.attributes().unwrap().modified > long_ago);
    assert!(two.attributes().unwrap().modified > long_ago);
    assert_eq!(file.attributes().unwrap().modified, modified);
}

fn rename_moves_the_change_time_of_the_file(root: &Place) {
    let file = root.put("old", b"").unwrap();
    let before = file.attributes().unwrap().changed;
    let_time_pass();
    root.rename("old", root, "new").unwrap();
    assert!(file.attributes().unwrap().changed > before);
}

fn noreplace_moves_to_a_free_name(root: &Place) {
    root.put("old", b"content").unwrap();
    root.rename_with("old", root, "new", RenameFlags::NOREPLACE)
        .unwrap();
    assert_eq!(root.names().unwrap(), ["new"]);
}

fn noreplace_onto_an_existing_name_is_refused(root: &Place) {
    root.put("old", b"old").unwrap();
    root.put("new", b"new").unwrap();
    root.mkdir("dir").unwrap();
    for name in ["old", "new", "dir"] {
        let moved = root.rename_with("old", root, name, RenameFlags::NOREPLACE);
        refused(moved, Errno::EXIST);
    }
    assert_eq!(root.lookup("new").unwrap().content().unwrap(), b"new");
}

fn exchange_swaps_two_files(root: &Place) {
    let one = root.put("one", b"1").unwrap();
    let two = root.put("two", b"2").unwrap();
    root.rename_with("one", root, "two", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(root.lookup("one").unwrap().identity(), two.identity());
    assert_eq!(root.lookup("two").unwrap().identity(), one.identity());
}

fn exchange_swaps_a_file_and_a_directory(root: &Place) {
    let other = root.mkdir("other").unwrap();
    let file = root.put("name", b"1").unwrap();
    let dir = other.mkdir("name").unwrap();
    dir.put("inside", b"").unwrap();
    root.rename_with("name", &other, "name", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(root.lookup("name").unwrap().identity(), dir.identity());
    assert_eq!(other.lookup("name").unwrap().identity(), file.identity());
    let listed = dir.list().unwrap();
    let parent = listed.iter().find(|entry| entry.name == b"..").unwrap();
    assert_eq!(parent.inode, root.attributes().unwrap().inode);
}

fn exchange_with_a_missing_name_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let flags = RenameFlags::EXCHANGE;
    refused(
        root.rename_with("file", root, "missing", flags),
        Errno::NOENT,
    );
    refused(
        root.rename_with("missing", root, "file", flags),
        Errno::NOENT,
    );
}

fn exchange_of_a_directory_with_its_own_child_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.mkdir("sub").unwrap();
    let flags = RenameFlags::EXCHANGE;
    refused(root.rename_with("dir", &dir, "sub", flags), Errno::INVAL);
    refused(dir.rename_with("sub", root, "dir", flags), Errno::INVAL);
}

fn link_counts_follow_an_exchange_between_directories(root: &Place) {
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    one.mkdir("name").unwrap();
    two.put("name", b"").unwrap();
    one.rename_with("name", &two, "name", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(one.attributes().unwrap().links, 2);
    assert_eq!(two.attributes().unwrap().links, 3);
}

fn exchange_of_directories_with_entries_works(root: &Place) {
    root.mkdir("one").unwrap().put("a", b"").unwrap();
    root.mkdir("two").unwrap().put("b", b"").unwrap();
    root.rename_with("one", root, "two", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(root.lookup("one").unwrap().names().unwrap(), ["b"]);
    assert_eq!(root.lookup("two").unwrap().names().unwrap(), ["a"]);
}

fn assert_is_whiteout(root: &Place, name: &str) {
    let attributes = root.lookup(name).unwrap().attributes().unwrap();
    assert_eq!(attributes.kind, FileKind::CharDevice);
    assert_eq!(attributes.device, Device::default());
}

fn a_whiteout_is_left_at_the_old_name(root: &Place) {
    root.put("old", b"content").unwrap();
    root.rename_with("old", root, "new", RenameFlags::WHITEOUT)
        .unwrap();
    assert_is_whiteout(root, "old");
    assert_eq!(root.lookup("new").unwrap().content().unwrap(), b"content");
}

fn a_whiteout_can_be_left_and_a_file_replaced(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    root.put("old", b"moved").unwrap();
    dir.put("new", b"replaced").unwrap();
    root.rename_with("old", &dir, "new", RenameFlags::WHITEOUT)
        .unwrap();
    assert_is_whiteout(root, "old");
    assert_eq!(dir.lookup("new").unwrap().content().unwrap(), b"moved");
}

fn a_whiteout_can_be_moved_and_removed(root: &Place) {
    root.put("old", b"").unwrap();
    root.rename_with("old", root, "new", RenameFlags::WHITEOUT)
        .unwrap();
    root.rename("old", root, "elsewhere").unwrap();
    assert_is_whiteout(root, "elsewhere");
    root.unlink("elsewhere").unwrap();
    assert_eq!(root.names().unwrap(), ["new"]);
}
