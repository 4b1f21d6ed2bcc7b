//! From which lower file a copy was made, as the kernel's overlayfs notes it: by its file handle.
//!
//! It is written where the lower layer is a directory of the host whose files have handles. What this overlay has
//! copied says its inode number too (`vfsd.inode`), which is asked first; what the kernel has copied does not.

use vfsd_backend::{Errno, Error, Locator, Lookup, Name, Node, Result};

use crate::node::OverlayNode;
use crate::numbers::Number;
use crate::resolve::Part;
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

/// The inode number of the lower file that a file of the upper was copied from, by what the kernel has noted. `name`
/// is its name in `directory`.
///
/// # Errors
/// Those of the layers.
pub(crate) async fn number_of(
    directory: &OverlayNode,
    copy: &Part,
    name: Name<'_>,
) -> Result<Option<Number>> {
    let shared = &directory.shared;
    let Some(kept) = shared.namespace.get(copy.node.as_ref(), ORIGIN).await? else {
        return Ok(None);
    };
    // It is empty where the lower layer had no handles.
    let Some(locator) = Locator::new(&kept)
        .ok()
        .filter(|kept| kept.file_handle().is_some())
    else {
        return Ok(None);
    };
    // Most have kept their name, under which each layer may look for them.
    for base in directory.lowers() {
        if let Ok(Lookup::Found(entry)) = base.node.lookup(name).await
            && entry.node.kind() == copy.node.kind()
            && handle_of(entry.node.as_ref()).await?.as_ref() == Some(&kept)
        {
            return Ok(Some(shared.numbers.of(base.layer, entry.attributes.inode)));
        }
    }
    for (lower, root) in shared.lowers.iter().zip(shared.root_lowers()) {
        match lower.resolve(&locator).await {
            Ok(node) if node.kind() == copy.node.kind() => {
                let inode = node.getattr().await?.inode;
                return Ok(Some(shared.numbers.of(root.layer, inode)));
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
