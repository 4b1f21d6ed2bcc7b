//! The listing of a directory: the entries of all of its layers, each name once.

use std::sync::Arc;

use vfsd_backend::{FileKind, Lookup, Name, Node, Result};

use crate::ask::OpenPart;
use crate::layers::Layer;
use crate::listing::Listing;
use crate::nested;
use crate::node::OverlayNode;
use crate::parts::Part;
use crate::whiteout::{is_suspect, is_whiteout};

/// All entries of a layer's directory but `.` and `..`, as the layer lists them.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn entries_of(directory: &Arc<dyn Node>) -> Result<Listing> {
    let mut all = Listing::default();
    let open = directory.opendir().await?;
    all.add_all(open.as_ref(), 0).await?;
    Ok(all)
}

/// All entries of a directory of the overlay but `.` and `..`, in the order of their names' hashes. The names must not
/// change meanwhile. `open` has those of its layers' directories that are open.
///
/// The whole list is in memory: that is how each name is listed once, and how cookies stay.
///
/// # Errors
/// Those of the layers.
pub(crate) async fn list(directory: &Arc<OverlayNode>, open: &[OpenPart]) -> Result<Listing> {
    let mut all = Listing::default();
    if directory.is_removed() {
        return Ok(all);
    }
    directory.shared.check_names_are_locked();
    let upper = directory.upper_part();
    let parts: Vec<&Part> = upper.iter().chain(directory.lowers()).collect();
    let last = parts.len().saturating_sub(1);
    for ((index, part), number) in parts.iter().enumerate().zip(0..) {
        let first = all.len();
        match open.iter().find(|open| Arc::ptr_eq(&open.node, &part.node)) {
            Some(part) => all.add_all(part.open.as_ref(), number).await?,
            None => {
                let open = part.node.opendir().await?;
                all.add_all(open.as_ref(), number).await?;
            }
        }
        if index < last
            && let Some(known) = &part.names
        {
            known.are(all.names_from(first), &directory.shared.names_memory);
        }
    }
    all.arrange();
    for mut entry in all.take_entries() {
        let part = usize::try_from(entry.part).ok();
        let Some(part) = part.and_then(|part| parts.get(part)) else {
            continue;
        };
        let name = all.name_of(&entry);
        let Some(kind) = kind_of(directory, part, name, entry.kind).await? else {
            continue;
        };
        entry.kind = kind;
        entry.inode = match shows_another_number(directory, part, kind) {
            true => match directory.find(Name::new(name)?).await? {
                Some((node, _)) => node.number(),
                None => continue,
            },
            false => directory.shared.numbers.of(part.layer, entry.inode).shown,
        };
        all.put(entry);
    }
    Ok(all)
}

/// The kind of an entry of a layer as programs see it, if that is known. `None` when it is a whiteout, or went
/// away meanwhile.
async fn kind_of(
    directory: &OverlayNode,
    part: &Part,
    name: &[u8],
    kind: Option<FileKind>,
) -> Result<Option<Option<FileKind>>> {
    let marked = part.has_marked_whiteouts();
    let devices = part.marks.devices;
    if !is_suspect(marked || devices, kind) {
        return Ok(Some(kind));
    }
    let Lookup::Found(found) = part.node.lookup(Name::new(name)?).await? else {
        return Ok(None);
    };
    let namespace = directory.shared.namespace;
    if is_whiteout(namespace, marked, &found.node, &found.attributes).await? {
        return Ok(None);
    }
    let is_device = nested::is_device(namespace, devices, &found.node, &found.attributes).await?;
    Ok(Some(match is_device {
        true => Some(FileKind::CharDevice),
        false => kind,
    }))
}

/// Whether a file of the upper may show another number than its own: a directory may be merged, and
/// in a directory that is marked so everything may have been copied up.
fn shows_another_number(directory: &OverlayNode, part: &Part, kind: Option<FileKind>) -> bool {
    let merged = !directory.lowers().is_empty();
    let is_directory = matches!(kind, None | Some(FileKind::Directory));
    part.layer == Layer::UPPER && (part.marks.impure || (merged && is_directory))
}
