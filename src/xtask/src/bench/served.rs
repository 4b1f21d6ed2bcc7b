//! The folder in which everything that is served is made, and is gone after the run.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "served-";

/// A folder that is removed with its content. A run that is killed leaves it; the next one in the
/// same place removes it.
#[derive(Debug)]
pub(crate) struct Served {
    folder: TempDir,
    /// Locked as long as the run lives: what is not locked is a leftover.
    _lock: File,
}

impl Served {
    /// Makes one in `within`, which is made when missing, and removes leftovers there.
    ///
    /// # Errors
    /// `within` cannot be written to.
    pub(crate) fn make(within: &Path) -> Result<Self> {
        fs::create_dir_all(within).with_context(|| format!("make {}", within.display()))?;
        remove_leftovers(within)?;
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(within)
            .with_context(|| format!("make a folder in {}", within.display()))?;
        let lock = File::open(folder.path()).context("open the folder to serve")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("lock the folder to serve")?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub(crate) fn remove(self) -> Result<()> {
        self.folder.close().context("remove what was served")
    }
}

fn remove_leftovers(within: &Path) -> Result<()> {
    let entries = fs::read_dir(within).with_context(|| format!("list {}", within.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", within.display()))?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        // Whoever else removes it at the same time is as welcome.
        let Ok(open) = File::open(&path) else {
            continue;
        };
        if flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_goes_and_what_is_in_use_stays() {
        let within = tempfile::tempdir().unwrap();
        let leftover = within.path().join("served-old");
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join("file"), "content").unwrap();
        let other = within.path().join("results.json");
        fs::write(&other, "{}").unwrap();
        let first = Served::make(within.path()).unwrap();
        let second = Served::make(within.path()).unwrap();
        assert!(!leftover.exists());
        assert!(first.path().exists() && other.exists());
        let path = second.path().to_path_buf();
        second.remove().unwrap();
        assert!(!path.exists());
    }
}
