//! The files of the layers that one of the overlay consists of.

use std::sync::Arc;

use vfsd_backend::{Attributes, Node};

use crate::ask::Base;
use crate::known_names::KnownNames;
use crate::layers::Layer;
use crate::table::Key;
use crate::xattr::{Marks, Opacity};

/// The file of one layer.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) layer: Layer,
    pub(crate) node: Arc<dyn Node>,
    /// Its inode number in the layer.
    pub(crate) inode: u64,
    /// A directory's marks.
    pub(crate) marks: Marks,
    /// Its names, where another layer is asked after it, or it changes.
    pub(crate) names: Option<Arc<KnownNames>>,
}

impl Part {
    pub(crate) fn key(&self) -> Key {
        Key {
            layer: self.layer,
            identity: self.node.identity(),
        }
    }

    /// As it is asked for names.
    pub(crate) fn base(&self) -> Base<'_> {
        Base {
            layer: self.layer,
            node: &self.node,
            names: self.names.as_deref(),
        }
    }

    /// Whether files in this directory may be whiteouts by an extended attribute.
    pub(crate) fn has_marked_whiteouts(&self) -> bool {
        self.marks.opacity == Opacity::XattrWhiteouts
    }
}

/// The files of the layers that make up one of the overlay: one, or directories that are merged.
pub(crate) struct Parts {
    pub(crate) upper: Option<Part>,
    /// The topmost first.
    pub(crate) lowers: Lowers,
    /// Those of the topmost.
    pub(crate) attributes: Attributes,
}

/// Those of the lower layers, the topmost first: one at most of what is no directory, and of that there may be millions.
pub(crate) enum Lowers {
    One(Option<Part>),
    Many(Vec<Part>),
}

impl Lowers {
    pub(crate) fn as_slice(&self) -> &[Part] {
        match self {
            Self::One(part) => part.as_slice(),
            Self::Many(parts) => parts,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Part] {
        match self {
            Self::One(part) => part.as_mut_slice(),
            Self::Many(parts) => parts,
        }
    }
}

impl From<Vec<Part>> for Lowers {
    fn from(mut parts: Vec<Part>) -> Self {
        match parts.len() {
            ..=1 => Self::One(parts.pop()),
            _ => Self::Many(parts),
        }
    }
}
