//! Storages in processes of their own.

use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;
use tempfile::TempDir;

use crate::artifact::Cache;
use crate::daemon::{BUILD_LIMIT, Profile, Storage};
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
pub(crate) const MEMORY: &str = "memory_plugin";

/// The plugin that serves a directory of the host.
pub(crate) const DIRECTORY: &str = "directory_plugin";

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
    let source = format!("plugin:exec:{}", program(MEMORY, folder, Profile::Debug)?);
    Ok(Storage::named(tag, source))
}

/// Three exports of one daemon, and the folder that they lie in: `kept` is a directory in a plugin, `lost` is memory in a plugin, and
/// `other` is memory of the daemon's own.
///
/// # Errors
/// A program cannot be built.
pub(crate) fn exports(cache: &Cache) -> Result<(Storage, TempDir)> {
    let folder = folder_for_nobody(cache)?;
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).context("make a directory for the plugin")?;
    std::fs::set_permissions(&kept, Permissions::from_mode(0o777)).context("let the plugin in")?;
    let (directory, memory) = (
        program(DIRECTORY, folder.path(), Profile::Debug)?,
        program(MEMORY, folder.path(), Profile::Debug)?,
    );
    let exports = [
        (
            "kept",
            format!("plugin:exec:{directory} {}", kept.display()),
        ),
        ("lost", format!("plugin:exec:{memory}")),
        ("other", "memory:".to_owned()),
    ];
    let text = exports
        .map(|(name, source)| format!("[[export]]\nname = \"{name}\"\nsource = \"{source}\"\n"));
    let configuration = folder.path().join("exports.toml");
    std::fs::write(&configuration, text.concat()).context("write a configuration")?;
    Ok((Storage::configured("data", &configuration), folder))
}

/// The plugins that run from a folder, by the name of their program.
///
/// # Errors
/// Processes cannot be listed.
pub(crate) fn running(name: &str, folder: &Path) -> Result<Vec<Pid>> {
    let program = folder.join(name);
    let processes = std::fs::read_dir("/proc").context("list processes")?;
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found = numbers.filter(|pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = words.split(|byte| *byte == 0).next();
        first == Some(program.as_os_str().as_bytes())
    });
    Ok(found.filter_map(Pid::from_raw).collect())
}

/// A folder that a plugin gets to: it runs as nobody.
fn folder_for_nobody(cache: &Cache) -> Result<TempDir> {
    let folder = folder_in(cache.folder()).context("make a folder for the plugin")?;
    let everybody = Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).context("let the plugin in")?;
    Ok(folder)
}

/// Builds a plugin of the Rust SDK, copies it into a folder, and says where it is there.
///
/// # Errors
/// It does not build.
pub(crate) fn program(name: &str, folder: &Path, profile: Profile) -> Result<String> {
    let workspace = Workspace::find()?;
    let mut step = Step::begin("build a plugin");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .args(["build", "-p", "vfsd-plugin", "--example", name])
        .current_dir(workspace.root());
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    run_ok(&cargo, BUILD_LIMIT, &mut |line| step.note(line)).context("build a plugin")?;
    step.done();
    let examples = profile.program(&workspace).with_file_name("examples");
    let program = folder.join(name);
    std::fs::copy(examples.join(name), &program).context("copy the plugin")?;
    Ok(program.display().to_string())
}
