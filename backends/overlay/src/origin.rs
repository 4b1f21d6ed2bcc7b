//! From which lower file a copy was made, as the kernel's overlayfs notes it: by its file handle.
//!
//! It is written where the lower layer is a directory of the host whose files have handles. What this overlay has
//! copied says its inode number too (`vfsd.inode`), which is asked first; what the kernel has copied does not.

use vfsd_backend::{Errno, Error, Locator, Lookup, Name, Node, Result};

use crate::node::OverlayNode;
use crate::numbers::Number;
use crate::parts::Part;
use crate::xattr::{ORIGIN, is_unsupported};

/// The handle of a lower file, in the form of `origin`. `None` for one that has none.
///
/// # Errors
/// Those of the layer.
pub(crate) async fn handle_of(lower: &dyn Node) -> Result<Option<Vec<u8>>> {
    match lower.locator().await {
        Ok(locator) => Ok(locator.file_handle().map(|(handle, _)| handle.to_vec())),
        Err(error) if leads_nowhere(&error) || error.is(Errno::OVERFLOW) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The lower file that a file of the upper was copied from: its inode number, and its links. It is the one with the
/// number that is `known`, or else with what the kernel notes. `name` is the copy's name in `directory`.
///
/// # Errors
/// Those of the layers.
pub(crate) async fn lower_of(
    directory: &OverlayNode,
    copy: &Part,
    name: Name<'_>,
    known: Option<Number>,
) -> Result<Option<(Number, u32)>> {
    let shared = &directory.shared;
    let kept = shared.namespace.get(copy.node.as_ref(), ORIGIN).await?;
    // It is empty where the lower layer had no handles.
    let locator = kept
        .as_ref()
        .and_then(|kept| Locator::new(kept).ok())
        .filter(|kept| kept.file_handle().is_some());
    if locator.is_none() && known.is_none() {
        return Ok(None);
    }
    // Most have kept their name, under which each layer may look for them.
    for base in directory.lowers() {
        let Ok(Lookup::Found(entry)) = base.node.lookup(name).await else {
            continue;
        };
        let number = shared.numbers.of(base.layer, entry.attributes.inode);
        let same = entry.node.kind() == copy.node.kind()
            && match known {
                Some(known) => known.key == number.key,
                None => handle_of(entry.node.as_ref()).await? == kept,
            };
        if same {
            return Ok(Some((number, entry.attributes.links)));
        }
    }
    let Some(locator) = locator else {
        return Ok(None);
    };
    for (lower, root) in shared.lowers.iter().zip(shared.root_lowers()) {
        match lower.resolve(&locator).await {
            Ok(node) if node.kind() == copy.node.kind() => {
                let attributes = node.getattr().await?;
                let number = shared.numbers.of(root.layer, attributes.inode);
                return Ok(Some((number, attributes.links)));
            }
            Ok(_) => {}
            Err(error) if leads_nowhere(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The file is gone, was never there, or cannot be found by this process.
fn leads_nowhere(error: &Error) -> bool {
    is_unsupported(error) || error.is(Errno::STALE) || error.is(Errno::PERM)
}
