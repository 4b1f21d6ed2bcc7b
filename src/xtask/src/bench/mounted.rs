//! Storages that are mounted on this host: ours, and those of other programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::{Daemon, is_mount_point};
use crate::process::{Background, run_ok, tail_of_file};

/// An empty folder to mount on. Nothing stays mounted when it is dropped.
#[derive(Debug)]
pub(crate) struct MountPoint(PathBuf);

impl MountPoint {
    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn make(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir(&folder).context("make a mount point")?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if is_mount_point(&self.0) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// What is mounted, and who does it.
#[derive(Debug)]
pub(crate) enum Mounted {
    /// vfsd.
    Ours(Daemon),
    /// Another program, which stays in the foreground.
    Peer {
        /// Its process.
        process: Background,
        /// Where its log is.
        log: PathBuf,
    },
}

impl Mounted {
    /// Starts another program, and waits until something is mounted.
    ///
    /// # Errors
    /// It ends, or mounts nothing within `limit`.
    pub(crate) fn peer(
        name: &str,
        command: &Command,
        point: &MountPoint,
        log: &Path,
        limit: Duration,
    ) -> Result<Self> {
        let file = std::fs::File::create(log).context("make a log file")?;
        let mut process = Background::start(command, &file)?;
        let deadline = Instant::now() + limit;
        while !is_mount_point(point.path()) {
            let end = || tail_of_file(log, 30);
            ensure!(
                Instant::now() < deadline,
                "{name} mounts nothing\n{}",
                end()
            );
            if let Some(status) = process.exited()? {
                bail!("{name} ended at once ({status})\n{}", end());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = log.to_path_buf();
        Ok(Self::Peer { process, log })
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Ours(daemon) => daemon.pid(),
            Self::Peer { process, .. } => process.pid(),
        }
    }

    /// Unmounts it, and waits until its program has ended.
    ///
    /// # Errors
    /// The program did not end well within `limit`.
    pub(crate) fn unmount(self, name: &str, point: &MountPoint, limit: Duration) -> Result<()> {
        let mut unmount = Command::new("umount");
        // Another mount namespace of this host may hold a copy of the mount. vfsd is told of the end all the same.
        if let Self::Ours(_) = self {
            unmount.arg("--force");
        }
        unmount.arg(point.path());
        run_ok(&unmount, limit, &mut |_| {}).context("unmount")?;
        let (status, log) = match self {
            Self::Ours(mut daemon) => (daemon.ended(limit)?, daemon.log()),
            Self::Peer { mut process, log } => {
                let status = process.wait_until(Instant::now() + limit)?;
                let status = status.with_context(|| format!("{name} does not end"))?;
                (status, tail_of_file(&log, 30))
            }
        };
        ensure!(status.success(), "{name} failed: {status}\n{log}");
        Ok(())
    }
}
