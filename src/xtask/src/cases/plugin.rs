//! Storages in processes of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::artifact::Cache;
use crate::daemon::{BUILD_LIMIT, Storage};
use crate::guest::rootfs::folder_in;
use crate::packages::{self, PYTHON_VENV};
use crate::process::run_ok;
use crate::progress::Step;
use crate::workspace::Workspace;

/// The example plugin that shows an archive, and the SDK that it imports.
const ARCHIVE: [(&str, &str); 2] = [
    (
        "archive.py",
        include_str!("../../../../examples/plugins/archive.py"),
    ),
    (
        "vfsd_plugin.py",
        include_str!("../../../../plugins/python/vfsd_plugin.py"),
    ),
];

/// The plugin that serves a file system in memory.
const MEMORY: &str = "memory_plugin";

/// How long an archive may take to be made.
const LIMIT: Duration = Duration::from_secs(120);

/// An archive of a part of the tree, and the folder that it lies in with what shows it.
///
/// # Errors
/// One of them cannot be made.
pub(crate) fn archive(tree: &Path, cache: &Cache) -> Result<(Storage, TempDir)> {
    packages::install(&[PYTHON_VENV])?;
    let folder = folder_for_nobody(cache)?;
    for (name, text) in ARCHIVE {
        std::fs::write(folder.path().join(name), text).context("write the plugin")?;
    }
    let archive = folder.path().join("archive.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C");
    tar.arg(tree.join("usr/share")).arg("perl5");
    run_ok(&tar, LIMIT, &mut |_| {}).context("make an archive")?;
    let program = folder.path().join("archive.py");
    let (program, archive) = (program.display(), archive.display());
    let source = format!("plugin:exec:/usr/bin/python3 {program} {archive}");
    Ok((Storage::named("data", source), folder))
}

/// An empty file system in memory, and the folder that its program lies in.
///
/// # Errors
/// The program cannot be built.
pub(crate) fn memory(cache: &Cache) -> Result<(Storage, TempDir)> {
    let folder = folder_for_nobody(cache)?;
    Ok((memory_in("data", folder.path())?, folder))
}

/// As [`memory`], in a folder that everybody can read, as the file system of that tag.
///
/// # Errors
/// The program cannot be built.
pub(crate) fn memory_in(tag: &str, folder: &Path) -> Result<Storage> {
    let program = folder.join(MEMORY);
    std::fs::copy(build(&Workspace::find()?)?, &program).context("copy the plugin")?;
    let source = format!("plugin:exec:{}", program.display());
    Ok(Storage::named(tag, source))
}

/// A folder that a plugin gets to: it runs as nobody.
fn folder_for_nobody(cache: &Cache) -> Result<TempDir> {
    let folder = folder_in(cache.folder()).context("make a folder for the plugin")?;
    let everybody = Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).context("let the plugin in")?;
    Ok(folder)
}

/// Builds the plugin that serves a file system in memory, as cargo's tests do.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut step = Step::begin("build a plugin");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .args(["build", "-p", "vfsd-plugin", "--example", MEMORY])
        .current_dir(workspace.root());
    run_ok(&cargo, BUILD_LIMIT, &mut |line| step.note(line)).context("build a plugin")?;
    step.done();
    Ok(workspace.target().join("debug/examples").join(MEMORY))
}
