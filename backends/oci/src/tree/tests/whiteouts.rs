//! What an upper layer hides.

use super::*;

#[test]
fn a_whiteout_removes_a_file_or_a_directory_of_a_lower_layer() {
    merges_to(
        &[
            &[dir("d"), file("d/a"), file("d/b"), dir("e"), file("e/x")],
            &[file("d/.wh.a"), file(".wh.e")],
        ],
        &["d/", "d/b 0:2"],
    );
}

#[test]
fn a_whiteout_leaves_what_its_own_layer_has_in_either_order() {
    let expected = ["d/", "d/a 1:1"];
    let lower = [dir("d"), file("d/a"), file("d/b")];
    let first = [file(".wh.d"), file("d/a"), dir("d")];
    let last = [dir("d"), file("d/a"), file(".wh.d")];
    merges_to(&[&lower, &first], &expected);
    merges_to(&[&lower, &last], &expected);
    merges_to(&[&[file("a")], &[file("a"), file(".wh.a")]], &["a 1:0"]);
}

#[test]
fn an_opaque_directory_hides_what_is_below_it_in_either_order() {
    let lower = [
        dir("d"),
        file("d/old"),
        dir("d/sub"),
        file("d/sub/old"),
        file("other"),
    ];
    let expected = ["d/", "d/new 1:1", "d/sub/", "d/sub/new 1:2", "other 0:4"];
    let opaque = || file("d/.wh..wh..opq");
    let first = [opaque(), file("d/new"), file("d/sub/new"), dir("d")];
    let last = [dir("d"), file("d/new"), file("d/sub/new"), opaque()];
    merges_to(&[&lower, &first], &expected);
    merges_to(&[&lower, &last], &expected);
}

#[test]
fn a_directory_kept_by_its_layer_alone_forgets_lower_attributes_in_either_order() {
    let lower = [dir("d"), dir("d/sub"), file("d/sub/old")];
    let first = [file("d/.wh..wh..opq"), file("d/sub/new")];
    let last = [file("d/sub/new"), file("d/.wh..wh..opq")];
    for upper in [&first, &last] {
        let tree = merge(&[&lower, upper]).unwrap();
        let attributes = tree.attributes(at(&tree, "d/sub"));
        assert_eq!(
            (attributes.permissions, attributes.modified),
            (0o755, CREATED)
        );
        assert_eq!(
            tree.attributes(at(&tree, "d")).permissions,
            0o640,
            "not removed"
        );
    }
}

#[test]
fn an_opaque_directory_hides_nothing_that_comes_later() {
    merges_to(
        &[
            &[dir("d"), file("d/a")],
            &[dir("d"), file("d/.wh..wh..opq"), file("d/b")],
            &[file("d/c")],
        ],
        &["d/", "d/b 1:2", "d/c 2:0"],
    );
}

#[test]
fn an_opaque_root_hides_all_of_the_layers_below() {
    merges_to(
        &[&[dir("d"), file("d/a")], &[file(".wh..wh..opq"), file("b")]],
        &["b 1:1"],
    );
}

#[test]
fn a_whiteout_of_what_is_not_there_makes_nothing() {
    merges_to(
        &[
            &[file("a")],
            &[file("x/y/.wh.z"), file(".wh.q"), file("x/.wh..wh..opq")],
        ],
        &["a 0:0"],
    );
}

#[test]
fn a_whiteout_that_names_nothing_is_an_error() {
    for name in ["d/.wh.", "d/.wh..", "d/.wh..."] {
        is_refused(
            &[&[dir("d")], &[file(name)]],
            &format!("layer 1, entry 0 (\"{name}\"): a whiteout that names no file"),
        );
    }
}

#[test]
fn a_whiteout_hides_a_link_and_not_what_it_leads_to() {
    merges_to(
        &[
            &[dir("usr"), file("usr/a"), symlink("lib", "usr")],
            &[file(".wh.lib")],
        ],
        &["usr/", "usr/a 0:1"],
    );
}

#[test]
fn a_whiteout_below_a_linked_directory_hides_where_the_link_leads() {
    merges_to(
        &[
            &[
                dir("usr"),
                file("usr/a"),
                file("usr/b"),
                symlink("lib", "usr"),
            ],
            &[file("lib/.wh.a")],
        ],
        &["lib -> usr", "usr/", "usr/b 0:2"],
    );
}

#[test]
fn what_aufs_left_is_no_part_of_the_image() {
    merges_to(
        &[&[
            dir(".wh..wh.plnk"),
            file(".wh..wh.plnk/12.34"),
            hard_link("a", ".wh..wh.plnk/12.34"),
            file(".wh..wh.aufs"),
            dir(".wh..wh.orph"),
            file("d/.wh..wh.other"),
        ]],
        &["a 0:1"],
    );
}

#[test]
fn a_whiteout_of_one_name_leaves_the_other_names_of_a_file() {
    let lower = [file("a"), dir("d"), hard_link("d/b", "a")];
    merges_to(&[&lower, &[file(".wh.a")]], &["d/", "d/b 0:0"]);
    merges_to(&[&lower, &[file(".wh.d")]], &["a 0:0"]);
}

#[test]
fn directories_are_hidden_however_deep_they_are() {
    let mut builder = TreeBuilder::new(CREATED);
    builder.begin_layer();
    let deep = "d/".repeat(1000);
    // Each entry goes on where a link to the end of the one before leads; 40 links are followed at most.
    let mut end = deep.clone();
    for number in 0..40 {
        builder.entry(0, dir(&end)).unwrap();
        builder
            .entry(0, symlink(&format!("l{number}"), &end))
            .unwrap();
        end = format!("l{number}/{deep}");
    }
    builder.begin_layer();
    builder.entry(0, file(".wh.d")).unwrap();
    let tree = builder.finish().unwrap();
    assert_eq!(tree.figures().nodes, 41, "the root and the links");
}
