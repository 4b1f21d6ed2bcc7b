//! Names and what they stand for.

use vfsd_backend::{Errno, FileKind, Lookup, Name};

use super::{Row, refused, rows};
use crate::place::{Place, superuser, wait, with_permissions};

pub(super) const ROWS: &[Row] = rows! {
    a_name_that_does_not_exist_is_missing,
    lookup_in_a_file_is_refused,
    lookup_in_a_symbolic_link_is_refused,
    lookup_finds_the_same_file_each_time,
    lookup_tells_the_attributes_of_the_file needs BIRTH_TIME_IN_ENTRIES,
    different_files_have_different_identities,
    names_that_differ_in_case_are_different,
    the_longest_name_works,
    names_may_have_any_bytes,
    a_name_in_one_directory_is_not_in_another,
    lookup_in_a_removed_directory_finds_nothing,
    a_name_is_found_after_its_file_was_replaced_by_another_type,
    the_root_is_a_directory,
    file_systems_tell_their_figures,
    syncfs_of_the_file_system_succeeds,
};

fn a_name_that_does_not_exist_is_missing(root: &Place) {
    refused(root.lookup("missing"), Errno::NOENT);
}

fn lookup_in_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.lookup("name"), Errno::NOTDIR);
}

fn lookup_in_a_symbolic_link_is_refused(root: &Place) {
    root.mkdir("dir").unwrap();
    let link = root.symlink("link", "dir").unwrap();
    refused(link.lookup("name"), Errno::NOTDIR);
}

fn lookup_finds_the_same_file_each_time(root: &Place) {
    let file = root.put("file", b"").unwrap();
    assert_eq!(root.lookup("file").unwrap().identity(), file.identity());
    assert_eq!(root.lookup("file").unwrap().identity(), file.identity());
}

fn lookup_tells_the_attributes_of_the_file(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let Lookup::Found(entry) = wait(root.0.lookup(Name::new(b"file").unwrap())).unwrap() else {
        panic!("the name is missing");
    };
    assert_eq!(entry.attributes, file.attributes().unwrap());
    assert_eq!(entry.attributes.size, 7);
    assert_eq!(entry.node.kind(), FileKind::Regular);
}

fn different_files_have_different_identities(root: &Place) {
    let one = root.put("one", b"").unwrap();
    let two = root.put("two", b"").unwrap();
    assert_ne!(one.identity(), two.identity());
    assert_ne!(one.identity(), root.identity());
}

fn names_that_differ_in_case_are_different(root: &Place) {
    root.put("name", b"small").unwrap();
    root.put("NAME", b"large").unwrap();
    assert_eq!(root.lookup("name").unwrap().content().unwrap(), b"small");
    assert_eq!(root.lookup("NAME").unwrap().content().unwrap(), b"large");
}

fn the_longest_name_works(root: &Place) {
    let name = "n".repeat(Name::MAX);
    root.put(&name, b"x").unwrap();
    assert_eq!(root.names().unwrap(), [name.as_str()]);
    root.unlink(&name).unwrap();
    assert!(!root.has(&name));
}

fn names_may_have_any_bytes(root: &Place) {
    let names: [&[u8]; 5] = [b"\xff\xfe", b" ", b"a\nb", b"-rf", b"..."];
    for bytes in names {
        let name = Name::new(bytes).unwrap();
        drop(wait(root.0.mkdir(superuser(), name, with_permissions(0o755))).unwrap());
        assert!(matches!(wait(root.0.lookup(name)), Ok(Lookup::Found(_))));
    }
    let listed = root.list().unwrap();
    for name in names {
        assert_eq!(listed.iter().filter(|entry| entry.name == name).count(), 1);
    }
}

fn a_name_in_one_directory_is_not_in_another(root: &Place) {
    let one = root.mkdir("one").unwrap();
    let two = root.mkdir("two").unwrap();
    one.put("file", b"").unwrap();
    assert!(!two.has("file"));
    assert!(!root.has("file"));
}

fn lookup_in_a_removed_directory_finds_nothing(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    refused(dir.lookup("name"), Errno::NOENT);
}

fn a_name_is_found_after_its_file_was_replaced_by_another_type(root: &Place) {
    let file = root.put("name", b"").unwrap();
    root.unlink("name").unwrap();
    root.mkdir("name").unwrap();
    let found = root.lookup("name").unwrap();
    assert_eq!(found.0.kind(), FileKind::Directory);
    assert_ne!(found.identity(), file.identity());
}

fn the_root_is_a_directory(root: &Place) {
    assert_eq!(root.0.kind(), FileKind::Directory);
    let attributes = root.attributes().unwrap();
    assert_eq!(attributes.kind, FileKind::Directory);
    assert_eq!(attributes.permissions, 0o755);
    assert_eq!(root.names().unwrap(), [""; 0]);
}

fn file_systems_tell_their_figures(root: &Place) {
    let figures = wait(root.0.statfs()).unwrap();
    assert!(figures.block_size > 0 && figures.fragment_size > 0);
    assert!(figures.blocks_free <= figures.blocks);
    assert!(figures.blocks_available <= figures.blocks_free);
    assert!(figures.files_free <= figures.files);
    assert_eq!(figures.name_max, 255);
}

fn syncfs_of_the_file_system_succeeds(root: &Place) {
    root.put("file", b"x").unwrap();
    wait(root.0.syncfs()).unwrap();
}
