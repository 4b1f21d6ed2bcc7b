//! User-Mode Linux: the newest guest kernel, at near native speed, anywhere.
//!
//! The kernel is an ordinary program of the Debian package `user-mode-linux`.
//! It needs a newer C library than a stable host has, so it runs in a folder
//! with its own, entered with chroot in a mount namespace of its own that goes
//! away with the process. One virtual CPU, one virtio-fs request queue.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::KernelFiles;
use crate::artifact::Cache;
use crate::suite::{Distribution, Suite, unpack};

/// The virtio device type of a file system (virtio 1.3, section 5.11.1).
const DEVICE_ID_FS: u32 = 26;

/// The script that enters the folder. Arguments: the folder, the folder of
/// the run, and the kernel's command line.
const ENTER: &str = include_str!("../../guest/enter-uml.sh");

/// The kernel, its C library and its modules.
///
/// # Errors
/// The packages cannot be fetched.
pub(crate) fn fetch(cache: &Cache) -> Result<KernelFiles> {
    let host = Distribution::of_host()?;
    // Debian's development suite has the newest; Ubuntu has the package in
    // each of its own suites.
    let suite = if host.id == "ubuntu" {
        host.codename.as_str()
    } else {
        "sid"
    };
    let recipe = format!("user-mode-linux and libc6 of {suite}, layout 1");
    let folder = cache.get("uml", &recipe, |folder| {
        let lists = folder.join("lists");
        let packages = folder.join("packages");
        let files =
            Suite::open(&lists, suite)?.download(&["user-mode-linux", "libc6"], &packages)?;
        let root = folder.join("root");
        for made in ["usr/lib64", "usr/lib", "dev/shm", "proc", "run/vfsd", "tmp"] {
            std::fs::create_dir_all(root.join(made)).context("make the kernel's folder")?;
        }
        symlink("usr/lib", root.join("lib")).context("link /lib")?;
        symlink("usr/lib64", root.join("lib64")).context("link /lib64")?;
        unpack(&files, &root)?;
        std::fs::remove_dir_all(&lists).context("remove the package lists")?;
        std::fs::remove_dir_all(&packages).context("remove the downloaded packages")
    })?;
    let root = folder.join("root");
    let modules = ["fuse/fuse.ko", "fuse/virtiofs.ko", "overlayfs/overlay.ko"]
        .map(|path| find_module(&root.join("usr/lib/uml/modules"), path))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(KernelFiles {
        image: root,
        modules,
    })
}

/// The command that boots the kernel. `run` is the run's folder, which holds
/// `sockets` and `initrd`.
pub(crate) fn command(
    files: &KernelFiles,
    run: &Path,
    sockets: &[&str],
    memory_mib: u32,
) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            ENTER,
            "enter-uml",
        ])
        .arg(&files.image)
        .arg(run)
        .arg(format!("mem={memory_mib}M"))
        .arg("initrd=/run/vfsd/initrd")
        .args(
            sockets
                .iter()
                .map(|socket| format!("virtio_uml.device=/run/vfsd/{socket}:{DEVICE_ID_FS}")),
        )
        .args(["con=null", "con0=fd:0,fd:1", "uml_dir=/run/vfsd/"])
        // The fast way to catch a process's system calls, from Linux 6.16 on.
        .arg("seccomp=auto")
        .args(["quiet", "log_buf_len=4M", "panic=-1"])
        // Guest memory is shared with the daemon, so it is a file.
        .env("TMPDIR", memory_folder());
    command
}

/// Where the guest's memory lies, as seen from the kernel's folder: in memory
/// when that may be executed from, as the kernel demands, or else in the run's
/// folder (containers often forbid it).
fn memory_folder() -> &'static str {
    let allowed = rustix::fs::statvfs("/dev/shm")
        .is_ok_and(|shm| !shm.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC));
    if allowed { "/dev/shm" } else { "/run/vfsd" }
}

/// A module of a file system.
fn find_module(folder: &Path, path: &str) -> Result<PathBuf> {
    let versions =
        std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    versions
        .filter_map(std::result::Result::ok)
        .map(|version| version.path().join("kernel/fs").join(path))
        .find(|path| path.is_file())
        .with_context(|| format!("the kernel package has no {path}"))
}
