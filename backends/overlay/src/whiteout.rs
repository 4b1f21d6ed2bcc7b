//! Names of a layer that say that there is nothing.

use std::sync::Arc;

use vfsd_backend::{Attributes, Device, FileKind, Node, Result};

use crate::xattr::{Namespace, WHITEOUT};

/// Whether a file of a layer is a whiteout: a character device 0/0, or, in a directory that says that it
/// has such, an empty regular file with a mark.
pub(crate) async fn is_whiteout(
    namespace: Namespace,
    marked: bool,
    node: &Arc<dyn Node>,
    attributes: &Attributes,
) -> Result<bool> {
    if is_device(attributes) {
        return Ok(true);
    }
    is_marked_file(namespace, marked, node, attributes, WHITEOUT).await
}

/// Whether a file is an empty regular one with a mark, in a directory that says that it has such.
pub(crate) async fn is_marked_file(
    namespace: Namespace,
    marked: bool,
    node: &Arc<dyn Node>,
    attributes: &Attributes,
    mark: &str,
) -> Result<bool> {
    if !marked || attributes.kind != FileKind::Regular || attributes.size != 0 {
        return Ok(false);
    }
    Ok(namespace.get(node.as_ref(), mark).await?.is_some())
}

/// Whether attributes are those of a whiteout device.
pub(crate) fn is_device(attributes: &Attributes) -> bool {
    attributes.kind == FileKind::CharDevice && attributes.device == Device::default()
}

/// Whether a listed file of this kind may be a whiteout, so that it has to be looked at.
pub(crate) fn is_suspect(marked: bool, kind: Option<FileKind>) -> bool {
    match kind {
        None | Some(FileKind::CharDevice) => true,
        Some(FileKind::Regular) => marked,
        Some(_) => false,
    }
}
