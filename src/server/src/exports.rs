//! What a session serves: one storage as the root, or several as directories of a root of our own.

use std::fmt;
use std::sync::Arc;

use vfsd_backend::{Backend, Capabilities, FileKind, Name, Node};

use crate::export::{Export, ExportId};
use crate::export_root::ExportRoot;
use crate::threads::Threads;

/// The exports of a session.
#[derive(Debug, Clone)]
pub struct Exports {
    /// What the root directory belongs to.
    root: Arc<Export>,
    /// The directories of the root, if it is ours.
    named: Arc<[Arc<Export>]>,
    all_writable: bool,
    /// What some storages can do, and others cannot.
    uneven: Capabilities,
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
        Self::root_of(Export::new("", backend, readonly))
    }

    /// One export as the root of the file system; its name is not used.
    pub fn root_of(export: Export) -> Self {
        Self {
            all_writable: !export.readonly,
            uneven: Capabilities::empty(),
            root: Arc::new(export),
            named: Arc::new([]),
        }
    }

    /// What the root is.
    pub(crate) fn root_kind(&self) -> FileKind {
        self.root.backend.root().kind()
    }

    /// Whether exports can have these names together, before they are opened.
    ///
    /// # Errors
    /// When a name is no directory name or is used twice.
    pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), ExportsError> {
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            if Name::new(name.as_bytes()).is_err() {
                return Err(ExportsError::BadName(name.to_owned()));
            }
            if !seen.insert(name) {
                return Err(ExportsError::DuplicateName(name.to_owned()));
            }
        }
        Ok(())
    }

    /// Several storages as directories of a synthetic, read-only root.
    ///
    /// # Errors
    /// When there is none, or a name is no directory name or is used twice.
    pub fn named(mut exports: Vec<Export>) -> Result<Self, ExportsError> {
        if exports.is_empty() {
            return Err(ExportsError::Empty);
        }
        Self::check_names(exports.iter().map(|export| export.name.as_str()))?;
        for (id, export) in (1..).zip(exports.iter_mut()) {
            export.id = ExportId(id);
        }
        let named: Arc<[Arc<Export>]> = exports.into_iter().map(Arc::new).collect();
        let each = || named.iter().map(|export| export.backend.capabilities());
        let some = each().fold(Capabilities::empty(), Capabilities::union);
        let all = each().fold(Capabilities::all(), Capabilities::intersection);
        let backend = Arc::new(ExportRoot::new(Arc::clone(&named)));
        Ok(Self {
            root: Arc::new(Export {
                // Where it asks an export, it does so with that one's.
                threads: Threads::all(),
                ..Export::new("", backend, true)
            }),
            named,
            // The root is not.
            all_writable: false,
            uneven: some.difference(all),
        })
    }

    /// What at least one of the storages can do.
    pub fn capabilities(&self) -> Capabilities {
        self.named
            .iter()
            .fold(self.root.backend.capabilities(), |all, export| {
                all | export.backend.capabilities()
            })
    }

    /// Whether some storages can do something that others cannot.
    pub(crate) fn are_uneven(&self, capability: Capabilities) -> bool {
        self.uneven.intersects(capability)
    }

    /// Whether an export's storage cannot do something that another's can.
    pub(crate) fn leaves(&self, export: ExportId, capability: Capabilities) -> bool {
        self.are_uneven(capability) && !self.get(export).backend.capabilities().contains(capability)
    }

    /// Whether a guest need open nothing: every storage is its own, and opens what it knows whenever
    /// that is used.
    pub(crate) fn open_by_themselves(&self) -> bool {
        let own = |export: &Export| {
            export.steady && export.backend.capabilities().contains(Capabilities::REOPEN)
        };
        match self.named.is_empty() {
            true => own(&self.root),
            // The directory above them is ours, and never changes.
            false => self.named.iter().all(|export| own(export)),
        }
    }

    /// The export of the root directory, and the root directory.
    pub(crate) fn root(&self) -> (ExportId, Arc<dyn Node>) {
        (self.root.id, self.root.backend.root())
    }

    /// The export of that number.
    pub(crate) fn get(&self, id: ExportId) -> &Export {
        usize::try_from(id.0)
            .ok()
            .and_then(|id| id.checked_sub(1))
            .and_then(|index| self.named.get(index))
            .unwrap_or(&self.root)
    }

    /// Whether nothing of any export is protected from changes.
    pub(crate) fn all_writable(&self) -> bool {
        self.all_writable
    }

    /// The export that a name in a directory of `parent` leads to: `parent` itself, unless that is
    /// the root of our own.
    pub(crate) fn below(&self, parent: ExportId, name: Name<'_>) -> ExportId {
        if parent != self.root.id {
            return parent;
        }
        self.named
            .iter()
            .find(|export| export.name.as_bytes() == name.as_bytes())
            .map_or(parent, |export| export.id)
    }
}
