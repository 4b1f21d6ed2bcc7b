//! Programs of the Python package index, each set in a folder of the cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifact::Cache;
use crate::packages::{self, PYTHON_VENV};
use crate::process::run_ok;
use crate::progress::Step;

/// How long the packages may take.
const LIMIT: Duration = Duration::from_secs(600);

/// The folder with the programs of `packages`, which are installed below `name` unless they are there; `what` says so.
///
/// # Errors
/// Python or a package cannot be fetched.
pub(crate) fn programs(
    cache: &Cache,
    name: &str,
    packages: &[&str],
    what: &str,
) -> Result<PathBuf> {
    let recipe = format!("{packages:?}, layout 1");
    let folder = cache.get(name, &recipe, |folder| {
        let mut step = Step::begin(what);
        install(folder, packages, &mut step)?;
        let done = cache.folder().join(name);
        name_interpreter(&folder.join("venv/bin"), folder, &done)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("venv/bin"))
}

/// Installs packages into the folder `venv` of a folder.
///
/// # Errors
/// Python or a package cannot be fetched.
pub(crate) fn install(folder: &Path, packages: &[&str], step: &mut Step) -> Result<()> {
    packages::install(&[PYTHON_VENV])?;
    let mut venv = Command::new("/usr/bin/python3");
    venv.args(["-m", "venv"]).arg(folder.join("venv"));
    run_ok(&venv, LIMIT, &mut |line| step.note(line)).context("make a Python folder")?;
    let mut pip = Command::new(folder.join("venv/bin/pip"));
    pip.args(["install", "-q"]).args(packages);
    run_ok(&pip, LIMIT, &mut |line| step.note(line)).context("install Python's packages")?;
    Ok(())
}

/// Scripts name their interpreter by its path, which is another one when the folder is in place.
fn name_interpreter(scripts: &Path, made_in: &Path, done: &Path) -> Result<()> {
    let (from, to) = (made_in.to_string_lossy(), done.to_string_lossy());
    for entry in std::fs::read_dir(scripts).context("list the programs")? {
        let path = entry.context("list the programs")?.path();
        // Links lead to the interpreter; what is no text is no script.
        if path.is_symlink() {
            continue;
        }
        if let Ok(text) = std::fs::read_to_string(&path)
            && text.starts_with("#!")
        {
            std::fs::write(&path, text.replace(&*from, &to)).context("rewrite a program")?;
        }
    }
    Ok(())
}
