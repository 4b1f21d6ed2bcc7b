//! Trees in files.

use sha2::{Digest, Sha256};

use super::super::LoadError;
use super::*;

fn sample() -> Tree {
    let mut described = file("usr/bin/tool");
    described.xattrs = vec![(b"user.a".to_vec(), b"value".to_vec())];
    merge(&[
        &[
            dir("usr"),
            described,
            symlink("bin", "usr/bin"),
            device("null", 1, 3),
        ],
        &[
            hard_link("usr/other", "bin/tool"),
            fifo("pipe"),
            file("etc/x"),
        ],
    ])
    .unwrap()
}

/// What `load` says of these bytes.
fn load(bytes: &[u8]) -> Result<Tree, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tree");
    std::fs::write(&path, bytes).unwrap();
    Tree::load(&path)
}

fn stored(tree: &Tree) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tree");
    tree.store(&path).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn a_stored_tree_is_read_as_it_was() {
    let tree = sample();
    let read = load(&stored(&tree)).unwrap();
    assert_eq!(listing(&read), listing(&tree));
    assert_eq!(read.bytes, tree.bytes);
    assert_eq!((read.figures(), read.layers()), (tree.figures(), 2));
}

#[test]
fn the_same_layers_are_stored_as_the_same_bytes() {
    assert_eq!(stored(&sample()), stored(&sample()));
}

#[test]
fn storing_replaces_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tree");
    std::fs::write(&path, "junk").unwrap();
    assert!(matches!(Tree::load(&path), Err(LoadError::Foreign)));
    sample().store(&path).unwrap();
    assert_eq!(listing(&Tree::load(&path).unwrap()), listing(&sample()));
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "nothing else left"
    );
}

#[test]
fn a_file_of_another_version_or_of_another_kind_is_not_a_tree() {
    let mut bytes = stored(&sample());
    bytes[8] = 99;
    let end = bytes.len() - 32;
    let checksum = Sha256::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum);
    assert!(matches!(load(&bytes), Err(LoadError::Foreign)));
    assert!(matches!(load(b""), Err(LoadError::Foreign)));
    assert!(matches!(load(b"vfsdtree"), Err(LoadError::Checksum)));
    assert!(matches!(
        Tree::load("/nonexistent/tree".as_ref()),
        Err(LoadError::Io(_))
    ));
}

#[test]
fn every_changed_bit_and_every_cut_is_found_by_the_checksum() {
    let bytes = stored(&sample());
    for place in 8..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        assert!(
            matches!(load(&changed), Err(LoadError::Checksum)),
            "byte {place}"
        );
    }
    for length in 8..bytes.len() {
        assert!(
            matches!(load(&bytes[..length]), Err(LoadError::Checksum)),
            "cut at {length}"
        );
    }
}

#[test]
fn records_that_make_no_tree_are_refused_though_their_checksum_is_right() {
    let bytes = sample().bytes;
    let mut refused: u32 = 0;
    for place in 0..bytes.len() {
        for change in [0x01, 0x02, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[place] ^= change;
            match Tree::from_bytes(changed) {
                Err(_) => refused += 1,
                // An owner, a time, a letter of a name: another tree, but one that can be walked.
                Ok(tree) => {
                    listing(&tree);
                    for node in tree.nodes() {
                        tree.attributes(node);
                        tree.xattrs(node).for_each(drop);
                    }
                }
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_hundred_thousand_files_take_less_than_sixteen_mebibytes() {
    let mut builder = TreeBuilder::new(CREATED);
    builder.begin_layer();
    for number in 0..100_000 {
        let path = format!(
            "usr/share/directory-{}/file-number-{number}.txt",
            number / 50
        );
        builder.entry(number, file(&path)).unwrap();
    }
    let tree = builder.finish().unwrap();
    assert_eq!(tree.figures().nodes, 102_003);
    assert!(tree.bytes.len() < 16 << 20, "{}", tree.bytes.len());
}
