//! Published test programs, built on the host and copied into guests. Guests
//! run the host's own distribution, so the C library fits.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifact::Cache;
use crate::packages::{self, ACL, C_COMPILER, LIBACL_DEV, LIBC_DEV};
use crate::process::run_ok;
use crate::progress::Step;

/// A program of the package registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Package and program name.
    pub(crate) name: &'static str,
    version: &'static str,
}

/// The POSIX file system test suite.
pub(crate) const PJDFSTEST: Tool = Tool {
    name: "pjdfstest",
    version: "0.2.2",
};
/// The file system exerciser: random reads, writes, truncates and mappings.
pub(crate) const FSX: Tool = Tool {
    name: "fsx",
    version: "0.3.2",
};

impl Tool {
    /// The program, built unless it is in the cache.
    ///
    /// # Errors
    /// cargo fails.
    pub(crate) fn build(self, cache: &Cache) -> Result<PathBuf> {
        packages::install(&[C_COMPILER, LIBC_DEV, LIBACL_DEV, ACL])?;
        let Self { name, version } = self;
        let folder = cache.get(name, &format!("{name} {version}"), |folder| {
            let mut step = Step::begin(format!("build {name} {version}"));
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            cargo
                .args([
                    "install",
                    "--locked",
                    "--no-track",
                    "--version",
                    version,
                    "--root",
                ])
                .arg(folder)
                .arg(name)
                .env("CARGO_TARGET_DIR", folder.join("build"))
                // The tests bring their own limits; seconds of compile time
                // count for more than the speed of these programs.
                .args(["--config", "profile.release.opt-level=1"]);
            run_ok(&cargo, Duration::from_secs(900), &mut |line| {
                step.note(line)
            })?;
            std::fs::remove_dir_all(folder.join("build")).context("remove the build folder")?;
            step.done();
            Ok(())
        })?;
        Ok(folder.join("bin").join(name))
    }

    /// Copies the program into the root file system at `root`.
    ///
    /// # Errors
    /// It cannot be built or copied.
    pub(crate) fn copy_into(self, root: &Path, cache: &Cache) -> Result<()> {
        let target = root.join("usr/local/bin").join(self.name);
        std::fs::copy(self.build(cache)?, &target)
            .with_context(|| format!("copy to {}", target.display()))?;
        Ok(())
    }
}
