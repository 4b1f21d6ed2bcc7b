//! Folders of this host in which storages keep something.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where this user's things of a kind are kept, by the file system hierarchy and the XDG base directories: for root in
/// `system`, for others in what the variable names, or below their home. None where there is no home.
pub(super) fn usual(system: &str, variable: &str, below_home: &str) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(system.into());
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .map(|kept| kept.join("vfsd"))
}

/// Makes a folder for this user alone, unless it is there, and answers its whole path.
///
/// # Errors
/// What the file system answers.
pub(super) fn make(path: &Path) -> io::Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| path.canonicalize())
}
