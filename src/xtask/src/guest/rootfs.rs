//! Root file systems for guests: the host's own distribution, made by
//! mmdebstrap from the host's own package sources.
//!
//! A root is made once and never served: each run gets a copy, which it may
//! change as it likes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::artifact::Cache;
use crate::packages::{self, MMDEBSTRAP};
use crate::process::run_ok;
use crate::progress::Step;
use crate::suite::{Distribution, Suite, sources_for};

/// What a root file system holds beside a minimal system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing: quick to make, enough to show a guest.
    Minimal,
    /// What the guest tests use.
    Tests,
    /// What the guest bench uses, in `/srv/bench` what it works on, and all
    /// documentation, so that it is the size of a usual system.
    Bench,
}

/// Packages of [`Contents::Tests`].
const TEST_PACKAGES: &str = "acl,attr,e2fsprogs,git,kmod,procps,python3-minimal,sqlite3,util-linux";

/// Packages of [`Contents::Bench`].
const BENCH_PACKAGES: &str = "fio,gcc,git,kmod,libc6-dev,procps,python3,sqlite3,util-linux";

/// Makes what the rows of the guest bench work on, inside the root.
const PREPARE_BENCH: &str = include_str!("../../guest/bench/prepare.py");

/// Packages the guest tests install inside a guest, beside the minimal system:
/// a program, and one with many small files.
pub(crate) const PACKAGES_TO_INSTALL: [&str; 3] = ["hello", "manpages", "manpages-dev"];

/// Where these packages lie in the root.
const PACKAGES_FOLDER: &str = "srv/packages";

/// Files no test looks at: a third of the size, and of every copy's time.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

/// Where mmdebstrap keeps the options it was given, inside the root.
const DPKG_OPTIONS: &str = "etc/dpkg/dpkg.cfg.d/99mmdebstrap";

/// The pristine root, made unless it is in the cache. Needs root.
///
/// # Errors
/// This user is not root, or the packages cannot be fetched.
pub(crate) fn pristine(cache: &Cache, contents: Contents) -> Result<PathBuf> {
    if !packages::is_root() {
        bail!("a guest's root file system has files of many owners: run this as root");
    }
    packages::install(&[MMDEBSTRAP])?;
    let host = Distribution::of_host()?;
    let (name, wanted) = match contents {
        Contents::Minimal => ("root-minimal", ""),
        Contents::Tests => ("root-tests", TEST_PACKAGES),
        Contents::Bench => ("root-bench", BENCH_PACKAGES),
    };
    let left_out: &[&str] = match contents {
        Contents::Minimal | Contents::Tests => &LEFT_OUT,
        Contents::Bench => &[],
    };
    let beside = match contents {
        Contents::Minimal | Contents::Tests => format!("{PACKAGES_TO_INSTALL:?}"),
        Contents::Bench => PREPARE_BENCH.to_owned(),
    };
    let recipe = format!(
        "minimal {} with {wanted}, beside it {beside}, without {left_out:?}, layout 2",
        host.codename
    );
    let folder = cache.get(name, &recipe, |folder| {
        let root = folder.join("root");
        bootstrap(folder, &root, &host.codename, wanted, left_out)?;
        match contents {
            Contents::Minimal => Ok(()),
            Contents::Tests => add_packages(folder, &root, &host.codename),
            Contents::Bench => prepare_bench(&root),
        }
    })?;
    Ok(folder.join("root"))
}

fn add_packages(folder: &Path, root: &Path, codename: &str) -> Result<()> {
    let lists = folder.join("lists");
    Suite::open(&lists, codename)?.download(&PACKAGES_TO_INSTALL, &root.join(PACKAGES_FOLDER))?;
    fs::remove_dir_all(&lists).context("remove the package lists")
}

fn prepare_bench(root: &Path) -> Result<()> {
    let mut step = Step::begin("make what the guest bench works on");
    let script = root.join("prepare.py");
    fs::write(&script, PREPARE_BENCH).context("write the script")?;
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(["/usr/bin/python3", "/prepare.py"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    run_ok(&command, Duration::from_secs(300), &mut |line| {
        step.note(line)
    })?;
    fs::remove_file(&script).context("remove the script")?;
    step.done();
    Ok(())
}

fn bootstrap(
    folder: &Path,
    root: &Path,
    codename: &str,
    wanted: &str,
    left_out: &[&str],
) -> Result<()> {
    let mut step = Step::begin(format!("make a {codename} root file system"));
    let (name, text) = sources_for(codename)?;
    let sources = folder.join(name);
    fs::write(&sources, text).context("write the sources file")?;
    let mut command = Command::new(MMDEBSTRAP.provides);
    command
        .args(["--mode=root", "--variant=minbase", "--format=directory"])
        // The root is made anew when the machine stops half-way: no fsync per file.
        .arg("--dpkgopt=force-unsafe-io")
        .args(
            left_out
                .iter()
                .map(|pattern| format!("--dpkgopt=path-exclude={pattern}")),
        )
        .args([
            "--aptopt=Acquire::Languages \"none\"",
            "--aptopt=Acquire::Retries \"3\"",
        ])
        .args((!wanted.is_empty()).then(|| format!("--include={wanted}")))
        .arg(codename)
        .arg(root)
        .arg(&sources);
    run_ok(&command, Duration::from_secs(1200), &mut |line| {
        step.note(line)
    })?;
    // A package installed inside a guest is installed whole, and synced.
    fs::remove_file(root.join(DPKG_OPTIONS)).context("remove dpkg's bootstrap options")?;
    step.done();
    Ok(())
}

/// A copy of a pristine root that one run may change. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    /// Copies `pristine`, sharing blocks where the file system can.
    ///
    /// # Errors
    /// The copy fails, as when the disk is full.
    pub(crate) fn copy_of(pristine: &Path, cache: &Cache) -> Result<Self> {
        remove_orphans(cache.folder());
        Self::copy_into(cache.folder(), pristine)
    }

    /// Copies `pristine` into a new folder in `parent`.
    ///
    /// # Errors
    /// As [`Tree::copy_of`].
    pub(crate) fn copy_into(parent: &Path, pristine: &Path) -> Result<Self> {
        let folder = folder_in(parent).context("make a folder for a guest's root")?;
        let mut command = Command::new("cp");
        command
            .args(["-a", "--reflink=auto"])
            .arg(pristine)
            .arg(folder.path().join("root"));
        run_ok(&command, Duration::from_secs(300), &mut |_| {})?;
        Ok(Self { folder })
    }

    /// The folder to serve.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

/// A folder for what is served to one guest. It is removed when dropped, and after a run that was killed
/// by the next one that copies a tree.
///
/// # Errors
/// `parent` cannot be written to.
pub(crate) fn folder_in(parent: &Path) -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new()
        .prefix(&format!("{TREE_PREFIX}{}-", std::process::id()))
        .tempdir_in(parent)?)
}

/// How a tree's folder is named: this, the process that made it, a random part.
const TREE_PREFIX: &str = "tree-";

/// Removes the trees of processes that were killed and could not do it.
fn remove_orphans(cache: &Path) {
    let entries = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .filter_map(std::result::Result::ok);
    for entry in entries {
        let name = entry.file_name();
        let owner = name.to_string_lossy();
        let Some(owner) = owner
            .strip_prefix(TREE_PREFIX)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(owner).exists() {
            // One that cannot be removed only takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_trees_of_dead_processes_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        let alive = format!("tree-{}-x", std::process::id());
        // No process has a number this large (PID_MAX_LIMIT is 4194304).
        for name in [alive.as_str(), "tree-9999999-x", "uml"] {
            fs::create_dir_all(cache.path().join(name).join("root")).unwrap();
        }
        remove_orphans(cache.path());
        let mut left: Vec<_> = fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [alive, "uml".to_owned()]);
    }
}
