//! The initrd: a static shell, the virtio-fs modules, and an init that mounts
//! the served folder as root and runs a session in it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::session::Session;
use crate::packages::{self, BUSYBOX};

const INIT: &str = include_str!("../../guest/init.sh");
const RUN_SESSION: &str = include_str!("../../guest/session.sh");
const LIBRARY: &str = include_str!("../../guest/lib.sh");

/// Writes the initrd of one run to `file`: `modules` are loaded in order.
///
/// # Errors
/// A module or the shell cannot be read, or `file` cannot be written.
pub(crate) fn write(file: &Path, modules: &[PathBuf], session: &Session) -> Result<()> {
    packages::install(&[BUSYBOX])?;
    let output = File::create(file).with_context(|| format!("make {}", file.display()))?;
    let mut archive = Archive::new(std::io::BufWriter::new(output));
    for folder in [
        "bin",
        "dev",
        "proc",
        "sys",
        "newroot",
        "modules",
        "session",
        "session/cases",
    ] {
        archive.folder(folder)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.character_device("dev/null", 1, 3)?;
    archive.file("bin/busybox", 0o755, &read(Path::new(BUSYBOX.provides))?)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    let mut order = String::new();
    for module in modules {
        let name = module
            .file_name()
            .context("a module has a name")?
            .to_string_lossy();
        archive.file(&format!("modules/{name}"), 0o644, &read(module)?)?;
        order.push_str(&format!("{name}\n"));
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    archive.file("session/run", 0o755, RUN_SESSION.as_bytes())?;
    archive.file("session/lib.sh", 0o644, LIBRARY.as_bytes())?;
    for (name, content) in session.files() {
        archive.file(&format!("session/{name}"), 0o755, content.as_bytes())?;
    }
    archive.finish()?.flush().context("write the initrd")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}
