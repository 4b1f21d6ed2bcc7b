//! Read-only trees over one another, in the format of the kernel's overlayfs.
//!
//! A layer is any backend. A name is looked for from the topmost layer down: a whiteout ends the search,
//! directories of one name are merged until one is opaque, and a directory may say by a redirect under which
//! name it goes on below. What the layers say of this, in the format of Linux's
//! Documentation/filesystems/overlayfs.rst, is followed and hidden.
//!
//! | module | what is there |
//! |---|---|
//! | `options` | what an overlay is made of |
//! | `layers`, `numbers`, `table` | what all nodes have in common |
//! | `resolve`, `whiteout`, `xattr` | what a name stands for, and what the layers say of it |
//! | `node`, `file`, `directory`, `merge` | what a file can do |
//!
//! # Format
//!
//! - A whiteout is a character device 0/0, or an empty regular file with the attribute `whiteout` in a directory
//!   whose `opaque` is `x`.
//! - A directory whose `opaque` is `y` hides what is below.
//! - `redirect` is followed, the name or the path in the layers below.
//! - A file whose content is in a layer below (`metacopy`) is EIO.
//!
//! All these are below `trusted.overlay.` or `user.overlay.` ([`Namespace`]); what a program calls so is
//! escaped, as by Linux 6.7.
//!
//! # Locks
//!
//! `Shared::names` (held to read while a name is looked up or a directory is listed, and across calls of
//! the layers), then an open directory's list before it; the table of nodes and a node's place are
//! locked last, and never across a call of a layer.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod directory;
mod file;
mod layers;
mod merge;
mod node;
mod numbers;
mod options;
mod resolve;
mod table;
mod whiteout;
mod xattr;

pub use options::{OpenError, Options, Which};
pub use xattr::Namespace;

use std::sync::Arc;

use vfsd_backend::{Backend, Capabilities, FileKind, Node};

use crate::layers::{Layer, Shared};
use crate::node::OverlayNode;
use crate::resolve::{Part, Parts};
use crate::xattr::Marks;

/// The most lower layers: their numbers have 16 bits in inode numbers.
const MOST_LOWERS: usize = 65_000;

/// Trees over one another, as one file system.
pub struct Overlay {
    root: Arc<OverlayNode>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("lowers", &self.root.shared.lowers.len())
            .finish_non_exhaustive()
    }
}

impl Overlay {
    /// Stacks layers.
    ///
    /// # Errors
    /// When there is no lower layer, or one cannot be read.
    pub async fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let count = options.lowers.len();
        match count {
            0 => return Err(OpenError::NoLower),
            1..=MOST_LOWERS => {}
            _ => return Err(OpenError::TooManyLowers(count)),
        }
        let mut lowers = Vec::with_capacity(count);
        let mut top = None;
        for (index, backend) in options.lowers.iter().enumerate() {
            let which = Which::Lower(index.saturating_add(1));
            let root = backend.root();
            if root.kind() != FileKind::Directory {
                return Err(OpenError::NotADirectory(which));
            }
            let unreadable = |error| OpenError::Unreadable { which, error };
            let attributes = root.getattr().await.map_err(unreadable)?;
            top.get_or_insert(attributes);
            let marks = Marks::of(options.namespace, &root).await;
            lowers.push(Part {
                layer: Layer::lower(index, count),
                node: root,
                inode: attributes.inode,
                marks: marks.map_err(unreadable)?,
            });
        }
        let attributes = top.ok_or(OpenError::NoLower)?;
        let capabilities = capabilities(&options);
        let shared = Arc::new(Shared::new(&options, lowers.clone(), capabilities));
        let parts = Parts {
            upper: None,
            lowers,
            attributes,
        };
        let root = OverlayNode::root(&shared, parts);
        Ok(Arc::new(Self { root }))
    }
}

/// What all lowers can do, and nothing that takes more than reading.
fn capabilities(options: &Options) -> Capabilities {
    let all = options
        .lowers
        .iter()
        .map(|lower| lower.capabilities())
        .fold(Capabilities::all(), |all, one| all & one);
    all & (Capabilities::XATTR
        | Capabilities::POSIX_ACL
        | Capabilities::POSIX_LOCKS
        | Capabilities::FLOCK
        | Capabilities::IMMUTABLE)
}

impl Backend for Overlay {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.root.shared.capabilities
    }
}
