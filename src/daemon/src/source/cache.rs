//! The folder in which storages keep what they fetched.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::exit::Failure;

/// What an operator decides about it.
#[derive(Debug, Clone, Default)]
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
        let folder = match &self.dir {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .and_then(|()| folder.canonicalize())
            .map_err(|error| {
                Failure::run(format!(
                    "cannot use the cache {}: {error}; choose another with --cache-dir",
                    folder.display()
                ))
            })
    }
}

/// By the file system hierarchy and the XDG base directories.
fn default_folder() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/cache/vfsd".into());
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|caches| caches.join("vfsd"))
        .ok_or_else(|| Failure::run("there is no HOME to keep a cache in: name a --cache-dir"))
}
