//! Things that take long to make and are kept: kernels, root file systems,
//! test programs.
//!
//! An artifact is a folder beside a file that holds its recipe, the text of
//! everything that decides its content. A changed recipe makes it anew; an
//! unchanged one is never looked at twice, so a second run is fast and works
//! without a network. Deleting the cache folder refreshes everything.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// A folder of artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`, made when missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where the cache lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The artifact `name`, made by `make` (which gets an empty folder) unless
    /// one with the same `recipe` is there. Two programs that ask at the same
    /// time make it once.
    ///
    /// # Errors
    /// Whatever `make` reports; nothing half-made stays behind under the name.
    pub(crate) fn get(
        &self,
        name: &str,
        recipe: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let lock = File::create(self.folder.join(format!("{name}.lock")))
            .context("make a lock file in the guest cache")?;
        flock(&lock, FlockOperation::LockExclusive).context("lock the guest cache")?;
        let done = self.folder.join(name);
        let recipe_file = self.folder.join(format!("{name}.recipe"));
        if fs::read_to_string(&recipe_file).is_ok_and(|text| text == recipe) && done.exists() {
            return Ok(done);
        }
        let partial = self.folder.join(format!("{name}.partial"));
        for stale in [&done, &partial] {
            if stale.exists() {
                fs::remove_dir_all(stale).with_context(|| format!("remove {}", stale.display()))?;
            }
        }
        fs::create_dir(&partial).with_context(|| format!("make {}", partial.display()))?;
        make(&partial).with_context(|| format!("make the guest's {name}"))?;
        fs::rename(&partial, &done).context("put an artifact in place")?;
        fs::write(&recipe_file, recipe).context("write a recipe")?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_with(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| fs::write(folder.join("content"), text).map_err(Into::into)
    }

    #[test]
    fn an_artifact_is_made_once_per_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache")).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path.join("content")).unwrap();
        assert_eq!(
            read(cache.get("a", "1", make_with("first")).unwrap()),
            "first"
        );
        assert_eq!(
            read(cache.get("a", "1", make_with("second")).unwrap()),
            "first"
        );
        assert_eq!(
            read(cache.get("a", "2", make_with("third")).unwrap()),
            "third"
        );
    }

    #[test]
    fn a_failed_artifact_leaves_nothing_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_path_buf()).unwrap();
        assert!(cache.get("a", "1", |_| anyhow::bail!("no luck")).is_err());
        assert!(!folder.path().join("a").exists());
        assert!(cache.get("a", "1", make_with("now")).is_ok());
    }
}
