//! An index in a file.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::{LayerIndex, LoadError};
use crate::blob::Sha256Digest;

/// The largest file that is read: the entries' limit and the windows of a layer of 64 GiB.
const LARGEST: u64 = 4 << 30;

impl LayerIndex {
    /// Where in the folder of indexes the one is that this host has made of a layer as a whole.
    pub(crate) fn own_path(folder: &Path, layer: Sha256Digest) -> PathBuf {
        folder.join(format!("{}.index", layer.hex()))
    }

    /// Writes the index to `path`, whole or not at all, to last: into a new file beside it, which is
    /// synced and renamed.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(&self.to_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(parent)?.sync_all()
    }

    /// Reads an index that was [stored](Self::store).
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path)?;
        if file.metadata()?.len() > LARGEST {
            return Err(LoadError::Foreign);
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Self::from_bytes(&bytes)
    }
}
