//! The folder in which storages keep what they fetched.

use std::path::PathBuf;

use super::folder;
use crate::exit::Failure;

/// What an operator decides about it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CacheSettings {
    /// Where; by default the system's cache for root, and the user's own for others.
    pub(crate) dir: Option<PathBuf>,
    /// How many bytes at most.
    pub(crate) size: Option<u64>,
}

impl CacheSettings {
    /// Whether anything of it was said.
    pub(crate) fn is_given(&self) -> bool {
        self.dir.is_some() || self.size.is_some()
    }

    /// The folder, made unless it is there.
    ///
    /// # Errors
    /// When there is none, and none can be made.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        let folder =
            match &self.dir {
                Some(folder) => folder.clone(),
                None => folder::usual("/var/cache/vfsd", "XDG_CACHE_HOME", ".cache").ok_or_else(
                    || Failure::run("there is no HOME to keep a cache in: name a --cache-dir"),
                )?,
            };
        folder::make(&folder).map_err(|error| {
            Failure::run(format!(
                "cannot use the cache {}: {error}; choose another with --cache-dir",
                folder.display()
            ))
        })
    }
}
