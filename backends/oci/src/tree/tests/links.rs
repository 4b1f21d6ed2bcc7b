//! Hard links, and what replaces what.

use super::*;

#[test]
fn names_of_one_file_share_its_content_and_attributes() {
    let mut other = hard_link("b", "./a");
    other.permissions = 0o777;
    let tree = merge(&[&[file("a"), other]]).unwrap();
    assert_eq!(listing(&tree), ["a 0:0 x2", "b 0:0 x2"]);
    assert_eq!(at(&tree, "a"), at(&tree, "b"));
    assert_eq!(
        tree.attributes(at(&tree, "b")).permissions,
        0o640,
        "the file's own"
    );
}

#[test]
fn a_hard_link_may_lead_to_a_lower_layer() {
    merges_to(
        &[
            &[dir("d"), file("d/a")],
            &[hard_link("b", "d/a"), symlink("l", "d")],
            &[hard_link("c", "/l/a"), file("d/.wh.a")],
        ],
        &["b 0:1 x2", "c 0:1 x2", "d/", "l -> d"],
    );
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_another_name_of_the_link() {
    let tree = merge(&[&[symlink("a", "nowhere"), hard_link("b", "a")]]).unwrap();
    assert_eq!(listing(&tree), ["a -> nowhere", "b -> nowhere"]);
    assert_eq!(tree.attributes(at(&tree, "b")).links, 2);
}

#[test]
fn a_hard_link_to_nothing_or_to_a_directory_is_an_error_that_names_it() {
    is_refused(
        &[&[file("a"), hard_link("b", "d/missing")]],
        "layer 0, entry 1 (\"b\"): a hard link to \"d/missing\", which is not there",
    );
    is_refused(
        &[&[dir("d"), hard_link("b", "d")]],
        "layer 0, entry 1 (\"b\"): a hard link to \"d\", which is a directory",
    );
    is_refused(
        &[&[hard_link("b", "../..")]],
        "layer 0, entry 0 (\"b\"): a hard link to \"../..\", which is a directory",
    );
}

#[test]
fn a_hard_link_outside_leads_inside() {
    merges_to(
        &[&[file("etc/passwd"), hard_link("b", "../../../etc/passwd")]],
        &["b 0:0 x2", "etc/", "etc/passwd 0:0 x2"],
    );
}

#[test]
fn a_hard_link_that_is_there_already_changes_nothing() {
    merges_to(
        &[
            &[file("a"), hard_link("b", "a")],
            &[hard_link("b", "a"), hard_link("a", "a")],
        ],
        &["a 0:0 x2", "b 0:0 x2"],
    );
}

#[test]
fn a_file_written_again_is_another_file_than_its_old_names() {
    merges_to(
        &[&[file("a"), hard_link("b", "a")], &[file("a")]],
        &["a 1:0", "b 0:0"],
    );
}

#[test]
fn a_hard_link_takes_the_place_of_a_file() {
    merges_to(
        &[&[file("a"), file("b")], &[hard_link("b", "a")]],
        &["a 0:0 x2", "b 0:0 x2"],
    );
}

#[test]
fn the_last_of_two_entries_with_one_path_wins() {
    merges_to(&[&[file("a"), symlink("a", "x"), file("./a")]], &["a 0:2"]);
}

#[test]
fn a_directory_and_a_file_replace_each_other_with_all_below() {
    let directory = [dir("a"), file("a/b"), dir("a/c"), file("a/c/d")];
    merges_to(&[&directory, &[file("a")]], &["a 1:0"]);
    merges_to(&[&directory, &[symlink("a", "x")]], &["a -> x"]);
    merges_to(
        &[&[file("a")], &directory],
        &["a/", "a/b 1:1", "a/c/", "a/c/d 1:3"],
    );
    merges_to(
        &[&[symlink("a", "x"), dir("x")], &[dir("a")]],
        &["a/", "x/"],
    );
}

#[test]
fn a_directory_over_a_directory_keeps_the_children_and_takes_the_attributes() {
    let mut lower = dir("d");
    lower.xattrs = vec![(b"user.old".to_vec(), b"1".to_vec())];
    let mut upper = dir("d/");
    upper.permissions = 0o1777;
    upper.uid = 50;
    upper.xattrs = vec![(b"user.new".to_vec(), b"2".to_vec())];
    let tree = merge(&[&[lower, file("d/a")], &[upper]]).unwrap();
    assert_eq!(listing(&tree), ["d/", "d/a 0:1"]);
    let node = at(&tree, "d");
    let attributes = tree.attributes(node);
    assert_eq!((attributes.permissions, attributes.uid), (0o1777, 50));
    let xattrs: Vec<_> = tree.xattrs(node).collect();
    assert_eq!(xattrs, [(&b"user.new"[..], &b"2"[..])]);
}
