//! Files of which a layer has the attributes alone, and a layer below the content: the kernel makes them with `metacopy=on`.
//! Here they are EIO, before anything that is not there is shown as zeros.
//!
//! Of what has no blocks that is asked when it is looked up. Most small files look as if they might be such, because a
//! file system may count blocks for attributes; they are asked when their content is needed.

use vfsd_backend::{Attributes, Errno, FileKind, Node, Result};

use crate::layers::{Layer, Shared};
use crate::node::OverlayNode;
use crate::xattr::{METACOPY, Namespace};

/// Blocks that a file system counts to a file for its extended attributes, at most: ext4 has a block of 64 KiB for them
/// where it has such blocks.
const ATTRIBUTE_BLOCKS: u64 = 128;

/// Whether a file has a size, and no blocks: it is sparse, or a metacopy.
pub(crate) fn is_suspect(attributes: &Attributes) -> bool {
    attributes.kind == FileKind::Regular && attributes.size > 0 && attributes.blocks == 0
}

/// Whether a file may be one all the same, because all its blocks may be of its attributes. The lowest layer has nothing
/// below.
pub(crate) fn may_be_one(shared: &Shared, layer: Layer, attributes: &Attributes) -> bool {
    attributes.kind == FileKind::Regular
        && attributes.size > 0
        && attributes.blocks <= ATTRIBUTE_BLOCKS
        && !shared.is_lowest(layer)
}

/// Whether a file without blocks is one.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn is_one(
    namespace: Namespace,
    node: &dyn Node,
    attributes: &Attributes,
) -> Result<bool> {
    Ok(is_suspect(attributes) && namespace.get(node, METACOPY).await?.is_some())
}

/// Says what is wrong with a file, and who can mend it.
pub(crate) fn warn(path: &[u8]) {
    tracing::warn!(
        "the file {} of a layer has its content in a layer below (metacopy): EIO; the kernel's overlay of \
         the same directories copies it when it is written to",
        path.escape_ascii()
    );
}

impl OverlayNode {
    /// To be called before the content of the file is read, changed or copied.
    ///
    /// # Errors
    /// EIO when a layer below has it, and those of the storage.
    pub(crate) async fn check_content(&self) -> Result<()> {
        if !self.is_doubtful() {
            return Ok(());
        }
        let namespace = self.shared.namespace;
        if namespace
            .get(self.real()?.as_ref(), METACOPY)
            .await?
            .is_some()
        {
            let place = self.place();
            warn(place.as_ref().map_or(b"", |place| &place.name));
            return Err(Errno::IO.into());
        }
        self.is_whole();
        Ok(())
    }
}
