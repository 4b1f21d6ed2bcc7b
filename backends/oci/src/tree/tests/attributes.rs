//! What a node says of itself.

use super::*;

#[test]
fn attributes_are_those_of_the_entry() {
    let mut entry = file("a");
    entry.permissions = 0o6755;
    entry.uid = 4_000_000_000;
    entry.modified = Timestamp {
        seconds: -5,
        nanoseconds: 999_999_999,
    };
    let tree = merge(&[&[entry.clone()]]).unwrap();
    let attributes = tree.attributes(at(&tree, "a"));
    assert_eq!(attributes.mode(), 0o106_755);
    assert_eq!((attributes.uid, attributes.gid), (4_000_000_000, 2));
    assert_eq!(attributes.modified, entry.modified);
    assert_eq!(
        (attributes.size, attributes.blocks, attributes.links),
        (10, 1, 1)
    );
}

#[test]
fn symbolic_links_have_the_permissions_that_linux_gives_them() {
    let tree = merge(&[&[symlink("l", "x")]]).unwrap();
    assert_eq!(tree.attributes(at(&tree, "l")).mode(), 0o120_777);
}

#[test]
fn devices_and_pipes_are_kept() {
    let block = entry(
        "b",
        EntryKind::BlockDevice(Device {
            major: 259,
            minor: 70_000,
        }),
    );
    let tree = merge(&[&[fifo("f"), device("c", 1, 3), block]]).unwrap();
    let of = |path| tree.attributes(at(&tree, path));
    assert_eq!(of("f").kind, FileKind::Fifo);
    assert_eq!(
        (of("c").kind, of("c").device),
        (FileKind::CharDevice, Device { major: 1, minor: 3 })
    );
    let device = Device {
        major: 259,
        minor: 70_000,
    };
    assert_eq!(
        (of("b").kind, of("b").device),
        (FileKind::BlockDevice, device)
    );
}

#[test]
fn extended_attributes_are_kept_where_a_kernel_would_have_them() {
    let with = |mut entry: LayerEntry| {
        entry.xattrs = vec![
            (b"user.b".to_vec(), b"\0\xff".to_vec()),
            (b"security.capability".to_vec(), vec![1; 20]),
            (b"user.a".to_vec(), Vec::new()),
        ];
        entry
    };
    let tree = merge(&[&[
        with(file("f")),
        with(dir("d")),
        with(symlink("l", "x")),
        with(fifo("p")),
    ]]);
    let tree = tree.unwrap();
    let names = |path| -> Vec<String> {
        let xattrs = tree.xattrs(at(&tree, path));
        xattrs
            .map(|(name, _)| name.escape_ascii().to_string())
            .collect()
    };
    assert_eq!(names("f"), ["security.capability", "user.a", "user.b"]);
    assert_eq!(names("d"), names("f"));
    assert_eq!(names("l"), ["security.capability"]);
    assert_eq!(names("p"), ["security.capability"]);
    assert_eq!(tree.xattr(at(&tree, "f"), b"user.b"), Some(&b"\0\xff"[..]));
    assert_eq!(tree.xattr(at(&tree, "f"), b"user.a"), Some(&b""[..]));
    assert_eq!(tree.xattr(at(&tree, "f"), b"user.c"), None);
}

#[test]
fn extended_attributes_that_no_file_can_have_are_an_error() {
    let long = "user.".to_owned() + &"n".repeat(251);
    for (name, length) in [("", 1), ("user.a", 65_537), (long.as_str(), 1)] {
        let mut entry = file("f");
        entry.xattrs = vec![(name.as_bytes().to_vec(), vec![0; length])];
        let error = merge(&[&[entry]]).unwrap_err();
        assert!(
            matches!(error.problem, super::super::Problem::Xattr(_)),
            "{error}"
        );
    }
}

#[test]
fn targets_of_links_that_no_link_can_have_are_an_error() {
    for target in ["", &"a".repeat(4096)] {
        let error = merge(&[&[symlink("l", target)]]).unwrap_err();
        assert_eq!(error.problem, super::super::Problem::LinkTarget);
    }
}

#[test]
fn content_is_found_by_its_pieces() {
    let extent = |file_offset, tar_offset, length| DataExtent {
        file_offset,
        tar_offset,
        length,
    };
    let data = vec![extent(4096, 512, 100), extent(1 << 40, 612, 50)];
    let size = (1 << 40) + 4096;
    let tree = merge(&[&[entry(
        "a",
        EntryKind::Regular {
            size,
            data: data.clone(),
        },
    )]])
    .unwrap();
    let content = tree.content(at(&tree, "a")).unwrap();
    assert_eq!(content.extents().collect::<Vec<_>>(), data);
    for (offset, found) in [
        (0, Some(0)),
        (4195, Some(0)),
        (4196, Some(1)),
        (1 << 40, Some(1)),
        (size - 1, None),
    ] {
        assert_eq!(
            content.extent_after(offset),
            found.map(|place: usize| data[place]),
            "{offset}"
        );
    }
    let attributes = tree.attributes(at(&tree, "a"));
    assert_eq!(
        (attributes.size, attributes.blocks),
        (size, 1),
        "holes take nothing"
    );
    assert_eq!(tree.figures().data, 150);
    for bad in [
        vec![extent(10, 0, 5), extent(12, 100, 5)],
        vec![extent(size - 1, 0, 2)],
        vec![extent(0, 0, 0)],
        vec![extent(0, u64::MAX - 1, 2)],
    ] {
        let error = merge(&[&[entry("a", EntryKind::Regular { size, data: bad })]]).unwrap_err();
        assert_eq!(error.problem, super::super::Problem::Extents);
    }
}

#[test]
fn numbers_follow_the_sorted_tree_and_not_the_order_of_layers() {
    let one = merge(&[&[file("b/z"), file("a"), hard_link("b/y", "a"), file("c")]]).unwrap();
    let other = merge(&[
        &[dir("b"), file("b/z")],
        &[file("c"), file("b/y"), hard_link("a", "b/y")],
    ])
    .unwrap();
    for tree in [&one, &other] {
        let number = |path| at(tree, path).inode();
        assert_eq!(
            [number(""), number("a"), number("b"), number("c")],
            [1, 2, 3, 4]
        );
        assert_eq!([number("b/y"), number("b/z")], [2, 5]);
    }
}

#[test]
fn the_links_of_a_directory_count_its_subdirectories() {
    let tree = merge(&[&[file("d/a/x"), file("d/b/x"), file("d/c")]]).unwrap();
    assert_eq!(tree.attributes(at(&tree, "d")).links, 4);
    assert_eq!(tree.attributes(tree.root()).links, 3);
    assert_eq!(tree.parent(at(&tree, "d/a")), Some(at(&tree, "d")));
    assert_eq!(tree.parent(at(&tree, "d/c")), None);
}

#[test]
fn children_are_listed_sorted_and_from_any_position() {
    let tree = merge(&[&[file("b"), file("B"), file("a"), file("ab"), file("\u{e9}")]]).unwrap();
    let names = |from| -> Vec<String> {
        let children = tree.children(tree.root(), from);
        children
            .map(|(name, _)| String::from_utf8(name.to_vec()).unwrap())
            .collect()
    };
    assert_eq!(names(0), ["B", "a", "ab", "b", "\u{e9}"]);
    assert_eq!(names(3), ["b", "\u{e9}"]);
    assert_eq!(names(5).len() + names(9).len(), 0);
    assert_eq!(tree.children(at(&tree, "a"), 0).len(), 0, "not a directory");
    assert_eq!(tree.lookup(at(&tree, "a"), b"a"), None);
}
