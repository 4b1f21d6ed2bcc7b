//! Where an entry lands, whatever its path says.

use super::*;

#[test]
fn directories_that_no_layer_describes_are_made() {
    let tree = merge(&[&[file("a/b/c")]]).unwrap();
    assert_eq!(listing(&tree), ["a/", "a/b/", "a/b/c 0:0"]);
    for path in ["a", "a/b", ""] {
        let made = tree.attributes(at(&tree, path));
        assert_eq!((made.permissions, made.uid, made.gid), (0o755, 0, 0));
        assert_eq!(made.modified, CREATED);
    }
}

#[test]
fn a_directory_may_be_described_after_what_is_in_it() {
    let tree = merge(&[&[file("a/b"), dir("a")]]).unwrap();
    assert_eq!(tree.attributes(at(&tree, "a")).permissions, 0o640);
    assert_eq!(listing(&tree), ["a/", "a/b 0:0"]);
}

#[test]
fn spellings_of_a_path_are_the_same_path() {
    merges_to(
        &[&[
            file("./a"),
            file("/a"),
            file(".//a"),
            dir("./d/"),
            file("d//x/../y"),
        ]],
        &["a 0:2", "d/", "d/y 0:4"],
    );
}

#[test]
fn paths_that_lead_outside_end_at_the_root() {
    merges_to(
        &[&[
            file("../../etc/passwd"),
            file("/etc/shadow"),
            file("etc/../../x"),
        ]],
        &["etc/", "etc/passwd 0:0", "etc/shadow 0:1", "x 0:2"],
    );
}

#[test]
fn an_entry_above_a_link_to_a_directory_lands_where_the_link_leads() {
    let lower = [
        dir("usr"),
        dir("usr/lib"),
        symlink("lib", "usr/lib"),
        dir("usr/lib/sub"),
    ];
    merges_to(
        &[&lower, &[file("lib/x"), file("lib/sub/y")]],
        &[
            "lib -> usr/lib",
            "usr/",
            "usr/lib/",
            "usr/lib/sub/",
            "usr/lib/sub/y 1:1",
            "usr/lib/x 1:0",
        ],
    );
}

#[test]
fn links_on_the_way_are_followed_inside_the_root() {
    merges_to(
        &[&[
            symlink("absolute", "/data"),
            symlink("up", "../../../../data"),
            symlink("twice", "absolute/./deeper/.."),
            dir("data"),
            dir("data/deeper"),
            file("absolute/a"),
            file("up/b"),
            file("twice/c"),
        ]],
        &[
            "absolute -> /data",
            "data/",
            "data/a 0:5",
            "data/b 0:6",
            "data/c 0:7",
            "data/deeper/",
            "twice -> absolute/./deeper/..",
            "up -> ../../../../data",
        ],
    );
}

#[test]
fn directories_are_made_where_a_dead_link_leads() {
    merges_to(
        &[&[symlink("l", "../no/where"), file("l/a")]],
        &["l -> ../no/where", "no/", "no/where/", "no/where/a 0:1"],
    );
}

#[test]
fn links_in_a_circle_are_an_error() {
    is_refused(
        &[&[symlink("a", "b"), symlink("b", "/a"), file("a/x")]],
        "layer 0, entry 2 (\"a/x\"): too many symbolic links on the way to it",
    );
}

#[test]
fn a_file_on_the_way_is_an_error() {
    is_refused(
        &[&[file("a")], &[file("a/b")]],
        "layer 1, entry 0 (\"a/b\"): \"a\" on the way to it is not a directory",
    );
}

#[test]
fn names_and_paths_end_where_those_of_linux_end() {
    let long = "n".repeat(255);
    let tree = merge(&[&[file(&long)]]).unwrap();
    assert!(tree.lookup(tree.root(), long.as_bytes()).is_some());
    let error = merge(&[&[file(&format!("{long}n"))]]).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a name has 256 bytes, 255 are allowed"),
        "{error}"
    );
    assert!(error.path.ends_with("nn..."), "cut: {}", error.path);
    let error = merge(&[&[file(&"a/".repeat(2049))]]).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the path has 4098 bytes, 4096 are allowed"),
        "{error}"
    );
}

#[test]
fn names_that_are_no_text_are_kept() {
    let mut odd = file("x");
    odd.path = b"d/\xff\n\xfe".to_vec();
    let tree = merge(&[&[odd]]).unwrap();
    assert!(tree.lookup(at(&tree, "d"), b"\xff\n\xfe").is_some());
}

#[test]
fn the_root_takes_its_attributes_from_an_entry_and_stays_a_directory() {
    let tree = merge(&[&[dir("./")]]).unwrap();
    assert_eq!(tree.attributes(tree.root()).permissions, 0o640);
    is_refused(
        &[&[symlink("a/..", "x")]],
        "layer 0, entry 0 (\"a/..\"): the root of the image must be a directory",
    );
}

#[test]
fn an_image_without_layers_is_an_empty_directory() {
    let tree = merge(&[]).unwrap();
    assert_eq!(listing(&tree).len(), 0);
    assert_eq!(tree.attributes(tree.root()).links, 2);
    assert_eq!(tree.parent(tree.root()), Some(tree.root()));
}

#[test]
fn an_image_of_more_files_than_allowed_is_refused() {
    let mut builder = TreeBuilder::with_limit(CREATED, 4);
    builder.begin_layer();
    for number in 0..50 {
        builder.entry(number, file("again")).unwrap();
    }
    let error = builder.entry(50, file("a/b/c/d")).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the image has more than 4 files"),
        "{error}"
    );
}

#[test]
fn a_hundred_and_twenty_eight_layers_are_a_tree() {
    let layers: Vec<[LayerEntry; 3]> = (0..128)
        .map(|layer| {
            let gone = if layer == 0 { 500 } else { layer - 1 };
            [
                file(&format!("d/{layer}")),
                file(&format!("d/.wh.{gone}")),
                file("same"),
            ]
        })
        .collect();
    let layers: Vec<&[LayerEntry]> = layers.iter().map(|layer| &layer[..]).collect();
    merges_to(&layers, &["d/", "d/127 127:0", "same 127:2"]);
}
