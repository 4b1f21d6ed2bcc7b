//! What a session serves: one storage as the root, or several as directories of a root of our own.

use std::fmt;
use std::sync::Arc;

use vfsd_backend::{Backend, Capabilities, Name};

/// One storage, and how it is served.
#[derive(Clone)]
pub struct Export {
    /// The directory that it appears as, when it is not the root.
    pub name: String,
    /// The storage.
    pub backend: Arc<dyn Backend>,
    /// Every change answers EROFS, whatever the guest's mount flags say.
    pub readonly: bool,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("name", &self.name)
            .field("readonly", &self.readonly)
            .finish_non_exhaustive()
    }
}

/// The exports of a session.
#[derive(Debug, Clone)]
pub struct Exports {
    pub(crate) layout: Layout,
}

#[derive(Debug, Clone)]
pub(crate) enum Layout {
    Single(Arc<Export>),
    Named(Arc<[Arc<Export>]>),
}

/// Why a set of exports cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportsError {
    /// There is none.
    Empty,
    /// This name cannot be a directory's.
    BadName(String),
    /// Two exports have this name.
    DuplicateName(String),
}

impl fmt::Display for ExportsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no export is configured: add at least one"),
            Self::BadName(name) => write!(
                f,
                "export name {name:?} cannot be a directory: use 1 to 255 bytes without '/'"
            ),
            Self::DuplicateName(name) => {
                write!(f, "two exports are named {name:?}: rename one of them")
            }
        }
    }
}

impl std::error::Error for ExportsError {}

impl Exports {
    /// One storage as the root of the file system.
    pub fn single(backend: Arc<dyn Backend>, readonly: bool) -> Self {
        let name = String::new();
        Self { layout: Layout::Single(Arc::new(Export { name, backend, readonly })) }
    }

    /// Several storages as directories of a synthetic, read-only root.
    ///
    /// # Errors
    /// When there is none, or a name is no directory name or is used twice.
    pub fn named(exports: Vec<Export>) -> Result<Self, ExportsError> {
        if exports.is_empty() {
            return Err(ExportsError::Empty);
        }
        let mut seen = std::collections::BTreeSet::new();
        for export in &exports {
            if Name::new(export.name.as_bytes()).is_err() {
                return Err(ExportsError::BadName(export.name.clone()));
            }
            if !seen.insert(export.name.as_str()) {
                return Err(ExportsError::DuplicateName(export.name.clone()));
            }
        }
        Ok(Self { layout: Layout::Named(exports.into_iter().map(Arc::new).collect()) })
    }

    /// What at least one of the storages can do.
    pub fn capabilities(&self) -> Capabilities {
        match &self.layout {
            Layout::Single(export) => export.backend.capabilities(),
            Layout::Named(exports) => exports
                .iter()
                .fold(Capabilities::empty(), |all, export| all | export.backend.capabilities()),
        }
    }
}
