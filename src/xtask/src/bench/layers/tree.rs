//! A tree of 100,000 files: in one directory, and in two layers.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::native::folder::{Folder, MANY};

/// Directories, all in [`MANY`].
pub(super) const DIRECTORIES: usize = 1000;
/// Files in each.
pub(super) const IN_EACH: usize = 100;
/// Of these the last ones are in the upper layer, where a tree is merged.
const IN_UPPER: usize = 10;
/// A file that is copied when it is written to, beside [`MANY`].
pub(super) const BIG: &str = "one-gibibyte";
/// Its length.
const BIG_MIB: usize = 1024;

/// Name of a directory; all names are equally long.
pub(super) fn directory(index: usize) -> String {
    format!("dir-{index:04}")
}

/// Name of a file; all names are equally long.
pub(super) fn file(index: usize) -> String {
    format!("file-{index:02}")
}

/// The tree in its forms.
#[derive(Debug)]
pub(super) struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// Makes it in `folder`.
    ///
    /// # Errors
    /// Something cannot be written.
    pub(super) fn make(folder: PathBuf) -> Result<Self> {
        let tree = Self { folder };
        let whole = Folder::fill(tree.whole())?;
        fill(&whole.path().join(MANY), 0..IN_EACH)?;
        let lower = Folder::fill(tree.lower())?;
        fill(&lower.path().join(MANY), 0..IN_EACH - IN_UPPER)?;
        let path = tree.whole().join(BIG);
        let mut big = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        let mut block = vec![0; 1 << 20];
        for (number, byte) in (0_u32..).zip(&mut block) {
            *byte = number.wrapping_mul(0x9E37_79B9).to_be_bytes()[0];
        }
        for _ in 0..BIG_MIB {
            big.write_all(&block).context("write the large file")?;
        }
        big.sync_all().context("write the large file")?;
        Ok(tree)
    }

    /// All of it.
    pub(super) fn whole(&self) -> PathBuf {
        self.folder.join("whole")
    }

    /// What is not in the upper layer.
    pub(super) fn lower(&self) -> PathBuf {
        self.folder.join("lower")
    }

    /// Where layers and sockets may lie.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the upper layer that makes [`lower`](Self::lower) whole.
    ///
    /// # Errors
    /// Something cannot be written.
    pub(super) fn fill_upper(&self, upper: &Path) -> Result<()> {
        fill(&upper.join(MANY), IN_EACH - IN_UPPER..IN_EACH)
    }
}

fn fill(many: &Path, files: std::ops::Range<usize>) -> Result<()> {
    for index in 0..DIRECTORIES {
        let directory = many.join(directory(index));
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        for index in files.clone() {
            let path = directory.join(file(index));
            fs::write(&path, "content\n").with_context(|| format!("make {}", path.display()))?;
        }
    }
    Ok(())
}
