//! virtiofsd, installed once and kept.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifact::Cache;
use crate::packages::{self, C_COMPILER, LIBC_DEV, LIBCAP_NG_DEV, LIBSECCOMP_DEV};
use crate::process::run_ok;
use crate::progress::Step;
use crate::workspace::Workspace;

/// The version that is the measure.
pub(crate) const VERSION: &str = "1.14.0";

/// How long its build may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// The program, built with the dependencies that its authors locked.
///
/// # Errors
/// Its libraries cannot be installed, or it does not build.
pub(crate) fn virtiofsd(workspace: &Workspace) -> Result<PathBuf> {
    let cache = Cache::open(workspace.target().join("bench"))?;
    let recipe = format!("cargo install virtiofsd {VERSION} --locked\n");
    let folder = cache.get("virtiofsd", &recipe, |folder| {
        packages::install(&[C_COMPILER, LIBC_DEV, LIBSECCOMP_DEV, LIBCAP_NG_DEV])?;
        let mut step = Step::begin(format!("install virtiofsd {VERSION}"));
        let build = folder.join("build");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args(["install", "virtiofsd", "--locked", "--version", VERSION])
            .arg("--root")
            .arg(folder)
            .arg("--target-dir")
            .arg(&build);
        run_ok(&cargo, LIMIT, &mut |line| step.note(line))?;
        fs::remove_dir_all(&build).context("remove the build of virtiofsd")?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("bin").join("virtiofsd"))
}
