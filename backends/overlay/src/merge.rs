//! The listing of a directory: the entries of all of its layers, each name once.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use vfsd_backend::{DirEntry, DirSink, Directory, FileKind, Lookup, Name, Node, Result};

use crate::ask::OpenPart;
use crate::layers::Layer;
use crate::nested;
use crate::node::OverlayNode;
use crate::resolve::Part;
use crate::whiteout::{is_suspect, is_whiteout};

/// An entry of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: Box<[u8]>,
    pub(crate) inode: u64,
    pub(crate) kind: Option<FileKind>,
}

/// Takes all entries of a layer's directory.
#[derive(Default)]
struct Collect {
    entries: Vec<Listed>,
    last: u64,
}

impl DirSink for Collect {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        self.last = entry.next;
        if !matches!(entry.name, b"." | b"..") {
            self.entries.push(Listed {
                name: entry.name.into(),
                inode: entry.inode,
                kind: entry.kind,
            });
        }
        ControlFlow::Continue(())
    }
}

/// All entries of a layer's directory but `.` and `..`.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn entries_of(directory: &Arc<dyn Node>) -> Result<Vec<Listed>> {
    entries_in(directory.opendir().await?.as_ref()).await
}

/// As [`entries_of`], of a directory that is open.
async fn entries_in(open: &dyn Directory) -> Result<Vec<Listed>> {
    let mut all = Collect::default();
    loop {
        let from = all.last;
        open.read(from, &mut all).await?;
        if all.last == from {
            return Ok(all.entries);
        }
    }
}

/// All entries of a directory of the overlay but `.` and `..`. The names must not change meanwhile. `open` has those of
/// its layers' directories that are open.
///
/// The whole list is in memory: that is how each name is listed once, and how cookies stay.
///
/// # Errors
/// Those of the layers.
pub(crate) async fn list(directory: &Arc<OverlayNode>, open: &[OpenPart]) -> Result<Vec<Listed>> {
    if directory.is_removed() {
        return Ok(Vec::new());
    }
    directory.shared.check_names_are_locked();
    let upper = directory.upper_part();
    let parts: Vec<&Part> = upper.iter().chain(directory.lowers()).collect();
    let mut merged = Vec::new();
    let mut seen: HashSet<Box<[u8]>> = HashSet::new();
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.into_iter().enumerate() {
        let open = open.iter().find(|open| Arc::ptr_eq(&open.node, &part.node));
        let entries = match open {
            Some(part) => entries_in(part.open.as_ref()).await?,
            None => entries_of(&part.node).await?,
        };
        if index < last
            && let Some(known) = &part.names
        {
            let names = entries.iter().map(|entry| &*entry.name);
            known.are(names, &directory.shared.names_memory);
        }
        for mut entry in entries {
            if seen.contains(&entry.name) {
                continue;
            }
            let kind = kind_of(directory, part, &entry).await?;
            if index < last {
                seen.insert(entry.name.clone());
            }
            let Some(kind) = kind else {
                continue;
            };
            entry.kind = kind;
            entry.inode = match shows_another_number(directory, part, &entry) {
                true => match directory.find(Name::new(&entry.name)?).await? {
                    Some((node, _)) => node.number(),
                    None => continue,
                },
                false => directory.shared.numbers.of(part.layer, entry.inode).shown,
            };
            merged.push(entry);
        }
    }
    Ok(merged)
}

/// The kind of an entry of a layer as programs see it, if that is known. `None` when it is a whiteout, or went
/// away meanwhile.
async fn kind_of(
    directory: &OverlayNode,
    part: &Part,
    entry: &Listed,
) -> Result<Option<Option<FileKind>>> {
    let marked = part.has_marked_whiteouts();
    let devices = part.marks.devices;
    if !is_suspect(marked || devices, entry.kind) {
        return Ok(Some(entry.kind));
    }
    let Lookup::Found(found) = part.node.lookup(Name::new(&entry.name)?).await? else {
        return Ok(None);
    };
    let namespace = directory.shared.namespace;
    if is_whiteout(namespace, marked, &found.node, &found.attributes).await? {
        return Ok(None);
    }
    let is_device = nested::is_device(namespace, devices, &found.node, &found.attributes).await?;
    Ok(Some(match is_device {
        true => Some(FileKind::CharDevice),
        false => entry.kind,
    }))
}

/// Whether a file of the upper may show another number than its own: a directory may be merged, and
/// in a directory that is marked so everything may have been copied up.
fn shows_another_number(directory: &OverlayNode, part: &Part, entry: &Listed) -> bool {
    let merged = !directory.lowers().is_empty();
    let is_directory = matches!(entry.kind, None | Some(FileKind::Directory));
    part.layer == Layer::UPPER && (part.marks.impure || (merged && is_directory))
}
