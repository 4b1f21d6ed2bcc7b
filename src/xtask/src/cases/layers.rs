//! A writable layer over the tree of a guest's root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::artifact::Cache;
use crate::daemon::Storage;
use crate::guest::rootfs::folder_in;
use crate::packages::{self, ATTR};
use crate::process::{output_of, run_ok};

/// Looks at an upper with the kernel's overlayfs.
const KERNEL: &str = include_str!("../../guest/layers-kernel.sh");

/// A writable layer, empty before the guest boots.
#[derive(Debug)]
pub(crate) struct Layer {
    folder: TempDir,
    lower: PathBuf,
    /// The content of what is below, which must not change.
    fingerprint: String,
}

impl Layer {
    /// A layer over a tree, on the same disk.
    ///
    /// # Errors
    /// No folder can be made, or the tree cannot be read.
    pub(crate) fn over(lower: &Path, cache: &Cache) -> Result<Self> {
        Ok(Self {
            folder: folder_in(cache.folder()).context("make a folder for the writable layer")?,
            lower: lower.to_path_buf(),
            fingerprint: fingerprint(lower)?,
        })
    }

    /// Another layer over the same tree.
    ///
    /// # Errors
    /// No folder can be made.
    pub(crate) fn beside(&self, cache: &Cache) -> Result<Self> {
        Ok(Self {
            folder: folder_in(cache.folder()).context("make a folder for the writable layer")?,
            lower: self.lower.clone(),
            fingerprint: self.fingerprint.clone(),
        })
    }

    /// The root that a guest is served.
    pub(crate) fn root(&self) -> Storage {
        let source = format!("dir:{}", self.lower.display());
        let mut storage = Storage::named("root", source);
        storage.argument("--upper").argument(self.upper());
        storage
    }

    /// Where changes go.
    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.path().join("upper")
    }

    /// Looks whether the lower tree is as it was, and the kernel finds in the upper what the guest
    /// has left.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn verify(&self) -> Result<()> {
        self.verify_lower()?;
        packages::install(&[ATTR])?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", KERNEL, "layers-kernel"])
            .args([&self.lower, &self.upper(), self.folder.path()]);
        run_ok(&command, Duration::from_secs(120), &mut |_| {})
            .context("the kernel's overlay of the same directories")?;
        Ok(())
    }

    /// Looks whether the lower tree is as it was.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub(crate) fn verify_lower(&self) -> Result<()> {
        match fingerprint(&self.lower)? == self.fingerprint {
            true => Ok(()),
            false => bail!("the tree below the writable layer has changed"),
        }
    }
}

/// A hash over names, attributes and content of a tree.
fn fingerprint(root: &Path) -> Result<String> {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "set -e; tar --sort=name --xattrs --xattrs-include='*' --pax-option=delete=atime,delete=ctime -cf - -C \"$1\" . | sha256sum",
            "fingerprint",
        ])
        .arg(root);
    output_of(&mut command)
}
