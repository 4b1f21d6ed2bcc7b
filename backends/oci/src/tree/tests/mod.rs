//! The rules by which layers become a tree, a test each.

use vfsd_backend::{Device, FileKind, Timestamp};

use crate::{DataExtent, EntryKind, LayerEntry};

use super::{Tree, TreeBuilder, TreeError};

mod attributes;
mod links;
mod paths;
mod stored;
mod whiteouts;

/// The time of directories that no layer describes.
const CREATED: Timestamp = Timestamp {
    seconds: 7,
    nanoseconds: 0,
};

/// An entry with the attributes that most tests don't look at.
fn entry(path: &str, kind: EntryKind) -> LayerEntry {
    LayerEntry {
        path: path.as_bytes().to_vec(),
        permissions: 0o640,
        kind,
        uid: 1,
        gid: 2,
        modified: Timestamp {
            seconds: 1_000_000_000,
            nanoseconds: 123_456_789,
        },
        xattrs: Vec::new(),
    }
}

fn dir(path: &str) -> LayerEntry {
    entry(path, EntryKind::Directory)
}

/// A file of ten bytes.
fn file(path: &str) -> LayerEntry {
    let data = vec![DataExtent {
        file_offset: 0,
        tar_offset: 512,
        length: 10,
    }];
    entry(path, EntryKind::Regular { size: 10, data })
}

fn symlink(path: &str, target: &str) -> LayerEntry {
    let target = target.as_bytes().to_vec();
    entry(path, EntryKind::Symlink { target })
}

fn hard_link(path: &str, target: &str) -> LayerEntry {
    let target = target.as_bytes().to_vec();
    entry(path, EntryKind::HardLink { target })
}

fn fifo(path: &str) -> LayerEntry {
    entry(path, EntryKind::Fifo)
}

fn device(path: &str, major: u32, minor: u32) -> LayerEntry {
    entry(path, EntryKind::CharDevice(Device { major, minor }))
}

/// The tree of some layers.
fn merge(layers: &[&[LayerEntry]]) -> Result<Tree, TreeError> {
    let mut builder = TreeBuilder::new(CREATED);
    for layer in layers {
        builder.begin_layer();
        for (number, entry) in layer.iter().enumerate() {
            builder.entry(u32::try_from(number).unwrap(), entry.clone())?;
        }
    }
    builder.finish()
}

/// All paths below the root, each with what it is: a directory ends with `/`, a file shows layer and entry of its content
/// and its names if they are several.
fn listing(tree: &Tree) -> Vec<String> {
    let mut shown = Vec::new();
    let mut directories = vec![(tree.root(), String::new())];
    while let Some((directory, path)) = directories.pop() {
        for (name, node) in tree.children(directory, 0) {
            let path = format!("{path}{}", name.escape_ascii());
            let links = tree.attributes(node).links;
            let what = match tree.kind(node) {
                FileKind::Directory => "/".to_owned(),
                FileKind::Symlink => {
                    format!(" -> {}", tree.target(node).unwrap().escape_ascii())
                }
                FileKind::Regular => {
                    let content = tree.content(node).unwrap();
                    let names = if links > 1 {
                        format!(" x{links}")
                    } else {
                        String::new()
                    };
                    format!(" {}:{}{names}", content.layer, content.entry)
                }
                other => format!(" {other:?}"),
            };
            shown.push(format!("{path}{what}"));
            if tree.kind(node) == FileKind::Directory {
                directories.push((node, format!("{path}/")));
            }
        }
    }
    shown.sort();
    shown
}

/// The node at a path, without following links.
fn at(tree: &Tree, path: &str) -> super::NodeId {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(tree.root(), |directory, name| {
        tree.lookup(directory, name.as_bytes()).unwrap()
    })
}

#[track_caller]
fn merges_to(layers: &[&[LayerEntry]], expected: &[&str]) {
    let tree = merge(layers).unwrap();
    assert_eq!(listing(&tree), expected);
}

#[track_caller]
fn is_refused(layers: &[&[LayerEntry]], message: &str) {
    assert_eq!(merge(layers).unwrap_err().to_string(), message);
}
