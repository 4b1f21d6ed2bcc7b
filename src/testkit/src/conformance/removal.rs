//! Names that go, and files that live on without one.

use vfsd_backend::{AttributeChanges, Errno, SetTime, Timestamp};

use super::{Row, refused, rows};
use crate::place::{Place, read_some};

pub(super) const ROWS: &[Row] = rows! {
    unlink_takes_the_name_away,
    unlink_of_a_missing_name_is_refused,
    unlink_of_a_directory_is_refused,
    unlink_in_a_file_is_refused,
    unlink_of_a_symbolic_link_leaves_its_target,
    rmdir_takes_an_empty_directory_away,
    rmdir_of_a_missing_name_is_refused,
    rmdir_of_a_file_is_refused,
    rmdir_of_a_symbolic_link_to_a_directory_is_refused,
    rmdir_of_a_directory_with_entries_is_refused,
    rmdir_succeeds_once_the_entries_are_gone,
    rmdir_lowers_the_link_count_of_the_parent needs DIRECTORY_LINKS,
    an_open_file_lives_on_without_a_name,
    a_file_without_a_name_has_no_links,
    a_file_without_a_name_can_be_truncated_and_changed,
    a_file_without_a_name_can_be_opened_by_who_knows_it,
    a_file_without_a_name_is_there_while_nobody_has_it_open needs REOPEN,
    a_file_is_opened_whatever_its_mode needs REOPEN,
    a_new_file_with_an_old_name_is_another_file,
    a_removed_directory_has_no_links,
    a_removed_directory_lists_nothing,
    removal_moves_the_times_of_the_directory,
    unlink_moves_the_change_time_of_a_file_that_keeps_a_name needs HARD_LINKS,
};

fn a_file_without_a_name_is_there_while_nobody_has_it_open(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    root.unlink("file").unwrap();
    for letter in [b"C", b"D"] {
        let open = file.open_both().unwrap();
        assert_eq!(open.read(1, 100).unwrap(), b"ontent");
        open.write_all(0, letter).unwrap();
        drop(open);
        assert_eq!(file.attributes().unwrap().size, 7);
        assert_eq!(file.content().unwrap(), [letter, &b"ontent"[..]].concat());
    }
}

fn a_file_is_opened_whatever_its_mode(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    file.chmod(0).unwrap();
    let open = file.open_both().unwrap();
    open.write_all(0, b"C").unwrap();
    assert_eq!(open.content().unwrap(), b"Content");
}

fn unlink_takes_the_name_away(root: &Place) {
    root.put("file", b"").unwrap();
    root.unlink("file").unwrap();
    refused(root.lookup("file"), Errno::NOENT);
    assert_eq!(root.names().unwrap(), [""; 0]);
}

fn unlink_of_a_missing_name_is_refused(root: &Place) {
    refused(root.unlink("missing"), Errno::NOENT);
}

fn unlink_of_a_directory_is_refused(root: &Place) {
    root.mkdir("dir").unwrap();
    refused(root.unlink("dir"), Errno::ISDIR);
    assert!(root.has("dir"));
}

fn unlink_in_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.unlink("name"), Errno::NOTDIR);
    refused(file.rmdir("name"), Errno::NOTDIR);
}

fn unlink_of_a_symbolic_link_leaves_its_target(root: &Place) {
    root.put("file", b"content").unwrap();
    root.symlink("link", "file").unwrap();
    root.unlink("link").unwrap();
    assert_eq!(root.names().unwrap(), ["file"]);
}

fn rmdir_takes_an_empty_directory_away(root: &Place) {
    root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    refused(root.lookup("dir"), Errno::NOENT);
}

fn rmdir_of_a_missing_name_is_refused(root: &Place) {
    refused(root.rmdir("missing"), Errno::NOENT);
}

fn rmdir_of_a_file_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    refused(root.rmdir("file"), Errno::NOTDIR);
    assert!(root.has("file"));
}

fn rmdir_of_a_symbolic_link_to_a_directory_is_refused(root: &Place) {
    root.mkdir("dir").unwrap();
    root.symlink("link", "dir").unwrap();
    refused(root.rmdir("link"), Errno::NOTDIR);
}

fn rmdir_of_a_directory_with_entries_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"").unwrap();
    refused(root.rmdir("dir"), Errno::NOTEMPTY);
    let other = root.mkdir("other").unwrap();
    other.mkdir("sub").unwrap();
    refused(root.rmdir("other"), Errno::NOTEMPTY);
}

fn rmdir_succeeds_once_the_entries_are_gone(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"").unwrap();
    refused(root.rmdir("dir"), Errno::NOTEMPTY);
    dir.unlink("file").unwrap();
    root.rmdir("dir").unwrap();
}

fn rmdir_lowers_the_link_count_of_the_parent(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.mkdir("sub").unwrap();
    dir.rmdir("sub").unwrap();
    assert_eq!(dir.attributes().unwrap().links, 2);
}

fn an_open_file_lives_on_without_a_name(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.write_all(0, b"before").unwrap();
    root.unlink("file").unwrap();
    assert_eq!(handle.content().unwrap(), b"before");
    handle.write_all(6, b" and after").unwrap();
    assert_eq!(handle.content().unwrap(), b"before and after");
}

fn a_file_without_a_name_has_no_links(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"abc").unwrap();
    root.unlink("file").unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!((attributes.links, attributes.size), (0, 3));
}

fn a_file_without_a_name_can_be_truncated_and_changed(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"content").unwrap();
    root.unlink("file").unwrap();
    file.truncate(3).unwrap();
    file.chmod(0o600).unwrap();
    assert_eq!(handle.content().unwrap(), b"con");
    assert_eq!(file.attributes().unwrap().permissions, 0o600);
}

fn a_file_without_a_name_can_be_opened_by_who_knows_it(root: &Place) {
    let (file, _handle) = root.create("file").unwrap();
    root.unlink("file").unwrap();
    let second = file.open_both().unwrap();
    second.write_all(0, b"still here").unwrap();
    assert_eq!(file.content().unwrap(), b"still here");
}

fn a_new_file_with_an_old_name_is_another_file(root: &Place) {
    let (old, handle) = root.create("file").unwrap();
    handle.write_all(0, b"old").unwrap();
    root.unlink("file").unwrap();
    let new = root.put("file", b"new").unwrap();
    assert_ne!(new.identity(), old.identity());
    assert_eq!(handle.content().unwrap(), b"old");
    assert_eq!(old.content().unwrap(), b"old");
    assert_eq!(root.lookup("file").unwrap().identity(), new.identity());
}

fn a_removed_directory_has_no_links(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    assert_eq!(dir.attributes().unwrap().links, 0);
}

fn a_removed_directory_lists_nothing(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let open = dir.opendir().unwrap();
    root.rmdir("dir").unwrap();
    match read_some(open.as_ref(), 0, 10) {
        Ok(entries) => assert_eq!(entries, []),
        Err(errno) => assert_eq!(errno, Errno::NOENT),
    }
}

fn removal_moves_the_times_of_the_directory(root: &Place) {
    let long_ago = Timestamp::new(1000, 0).unwrap();
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"").unwrap();
    dir.mkdir("sub").unwrap();
    for name in ["file", "sub"] {
        dir.set(AttributeChanges {
            modified: Some(SetTime::At(long_ago)),
            ..AttributeChanges::default()
        })
        .unwrap();
        match name {
            "file" => dir.unlink(name),
            _ => dir.rmdir(name),
        }
        .unwrap();
        assert!(dir.attributes().unwrap().modified > long_ago, "{name}");
    }
}

fn unlink_moves_the_change_time_of_a_file_that_keeps_a_name(root: &Place) {
    let file = root.put("one", b"").unwrap();
    root.link(&file, "two").unwrap();
    let before = file.attributes().unwrap().changed;
    super::let_time_pass();
    root.unlink("one").unwrap();
    assert!(file.attributes().unwrap().changed > before);
}
