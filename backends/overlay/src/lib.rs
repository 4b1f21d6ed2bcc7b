//! A writable layer over read-only trees, in the format of the kernel's overlayfs.
//!
//! A layer is any backend. A name is looked for from the topmost layer down: a whiteout ends the search,
//! directories of one name are merged until one is opaque, and a directory may say by a redirect under which
//! name it goes on below. What is changed is copied to the upper first, whole and by one rename. What the
//! layers say of this, in the format of Linux's Documentation/filesystems/overlayfs.rst, is followed,
//! written and hidden.
//!
//! | module | what is there |
//! |---|---|
//! | `options`, `open` | what an overlay is made of, and what is checked before |
//! | `layers`, `numbers`, `table` | what all nodes have in common |
//! | `parts`, `ask`, `resolve`, `spot`, `whiteout`, `nested`, `metacopy`, `xattr` | what a name stands for, and what the layers say of it |
//! | `node`, `calls`, `file`, `directory`, `merge`, `listing`, `listing_budget` | what a file is, and can do |
//! | `known_names` | what a layer's directory surely lacks |
//! | `copy_up`, `content`, `origin`, `index`, `links`, `work` | how a file comes into the upper |
//! | `new`, `create`, `remove`, `rename` | names that come, go and move |
//! | `locator` | what leads to a file after a restart |
//! | `settled` | changes are made whole, although nobody waits for them |
//!
//! # Format
//!
//! - A whiteout is a character device 0/0, or an empty regular file with the attribute `whiteout` in a directory
//!   whose `opaque` is `x`. The first is written.
//! - A directory whose `opaque` is `y` hides what is below. New directories are opaque where a lower layer could
//!   get the name.
//! - `redirect`: the name, or the path, in the layers below. It is written when a directory that they have a part
//!   in is moved.
//! - `impure`: files of the directory show other inode numbers than their own.
//! - A file whose content is in a layer below (`metacopy`) is EIO, at the latest when it is opened.
//! - `origin`: the file handle of the lower file that was copied, whose inode number is shown. It is written where the
//!   lower layer is a directory of the host whose files have handles, and followed in what the kernel has copied: by
//!   name, or by opening the handle where the daemon may.
//! - `vfsd.inode`, which the kernel does not know: the same inode number in decimal, of any lower layer and without
//!   rights to open handles. A symbolic link or special file can keep neither in `user.overlay.*`: its number changes
//!   with a restart.
//! - `vfsd.device` on a file, `vfsd.devices` on its directory, which the kernel does not know: the file is a
//!   character device 0/0 that a program has made, a whiteout of an overlay over this one. For the kernel it is
//!   an escaped whiteout.
//! - `vfsd.lowers` on the upper's root: which lower layers it belongs to.
//! - `index` in the work directory has the copies of lower files with several names, by `origin`, as the kernel's
//!   with `index=on`: all names stay one file, and `nlink` (`U+1`) says how many more than the copy's own there are,
//!   or than the lower file's (`L`) while the copy is getting a name.
//!   In `user.overlay.*`, where the kernel has no index, and over layers without handles it is `vfsd-index`, by
//!   inode number; there the kernel sees the name alone that was changed first, as with `index=off`.
//!
//! All these are below `trusted.overlay.` or `user.overlay.` ([`Namespace`]); what a program calls so is
//! escaped, as by Linux 6.7.
//!
//! # What differs from the kernel's overlay
//!
//! - A file that was opened before it was copied up shows what is written later.
//! - `user.overlay.*` has redirects too, unless that is turned off ([`Options::redirects`]): then, as by the
//!   kernel, such a rename is EXDEV.
//! - Byte-range locks and flock are kept here, for nobody else uses the upper: a lock that was taken before the
//!   copy excludes after it.
//!
//! # Locks
//!
//! In this order: an open directory's list; `copying` of a node, that of directories before that of what is in
//! them and never two at once; `Shared::names`, held to read while a name is looked up or a directory is listed, to
//! write while names change. These are held across calls of the layers. The table of nodes, a node's place
//! and its marks are locked last, and never across a call.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod ask;
mod calls;
mod content;
mod copy_up;
mod create;
mod directory;
mod file;
mod index;
mod known_names;
mod layers;
mod links;
mod listing;
mod listing_budget;
mod locator;
mod merge;
mod metacopy;
mod nested;
mod new;
mod node;
mod numbers;
mod open;
mod options;
mod origin;
mod parts;
mod remove;
mod rename;
mod resolve;
mod settled;
mod spot;
mod table;
mod whiteout;
mod work;
mod xattr;

pub use options::{OpenError, Options, Upper, Which};
pub use xattr::Namespace;

use std::sync::Arc;

use vfsd_backend::{Answer, Backend, Capabilities, Locator, Node, Result};

use crate::node::OverlayNode;

/// Trees over one another, as one file system.
pub struct Overlay {
    root: Arc<OverlayNode>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("lowers", &self.root.shared.lowers.len())
            .field("upper", &self.root.shared.upper.is_some())
            .finish_non_exhaustive()
    }
}

impl Backend for Overlay {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.root.shared.capabilities
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        Answer::later(async move { Ok(self.root.at(locator).await? as Arc<dyn Node>) })
    }

    fn close(&self) -> Result<()> {
        let shared = &self.root.shared;
        let upper = shared.upper.iter().map(|upper| &upper.backend);
        let layers = upper.chain(&shared.lowers);
        // All are closed, whatever becomes of the first.
        let closed: Vec<Result<()>> = layers.map(|layer| layer.close()).collect();
        closed.into_iter().collect()
    }
}
