//! The tree of a guest's root as an OCI image that others made: one layer, and a second that removes and adds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::artifact::Cache;
use crate::daemon::{Program, Storage};
use crate::guest::rootfs::folder_in;
use crate::packages::{self, UMOCI};
use crate::process::run_ok;

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes the layout. Arguments: the tree, the folder to work in.
const MAKE: &str = include_str!("../../guest/image.sh");

/// An image in a layout, with a cache and a writable layer of its own.
#[derive(Debug)]
pub(crate) struct ImageRoot {
    folder: TempDir,
}

impl ImageRoot {
    /// Makes an image of a tree, and indexes it.
    ///
    /// # Errors
    /// A tool cannot be installed, or fails.
    pub(crate) fn of(tree: &Path, program: &Program, cache: &Cache) -> Result<Self> {
        let Program::Vfsd(vfsd) = program else {
            bail!("only vfsd serves images")
        };
        let folder = folder_in(cache.folder()).context("make a folder for the image")?;
        let this = Self { folder };
        make_layout(tree, this.folder.path())?;
        let mut index = Command::new(vfsd);
        index
            .args(["image", "pull", &this.source(), "--cache-dir"])
            .arg(this.kept());
        run_ok(&index, LIMIT, &mut |_| {}).context("index the image")?;
        Ok(this)
    }

    /// The root that a guest is served.
    pub(crate) fn root(&self) -> Storage {
        self.as_device("root")
    }

    /// The same, by another tag.
    pub(crate) fn as_device(&self, tag: &str) -> Storage {
        let mut storage = Storage::named(tag, self.source());
        storage
            .argument("--cache-dir")
            .argument(self.kept())
            .argument("--upper")
            .argument(self.upper());
        storage
    }

    /// Where changes go.
    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.path().join("upper")
    }

    fn source(&self) -> String {
        format!("oci:{}:root", self.folder.path().join("layout").display())
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("cache")
    }
}

/// Makes a layout `layout` with the image `root` of a tree, in a folder.
///
/// # Errors
/// A tool cannot be installed, or fails.
pub(crate) fn make_layout(tree: &Path, folder: &Path) -> Result<()> {
    packages::install(&[UMOCI])?;
    let mut make = Command::new("sh");
    make.args(["-c", MAKE, "image"]).args([tree, folder]);
    run_ok(&make, LIMIT, &mut |_| {}).context("make an image")?;
    Ok(())
}
