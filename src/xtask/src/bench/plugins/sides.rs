//! Who answers: storages of vfsd, compiled in and in plugins, and a FUSE file system that virtiofsd exports.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::DRIVER;
use crate::bench::Plan;
use crate::bench::native::folder::Folder;
use crate::bench::native::processors::Division;
use crate::bench::native::session::{OPTIONS, OWN_OPTIONS, Offered};
use crate::cases::plugin::{DIRECTORY, MEMORY, program};
use crate::daemon::{Profile, Program, Storage, is_mount_point};
use crate::packages::{self, BINDFS};
use crate::process::{Background, run_ok};

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A directory.
    Directory,
    /// The same in a plugin of the Rust SDK.
    DirectoryPlugin,
    /// A file system in memory.
    Memory,
    /// The same in a plugin.
    MemoryPlugin,
    /// The directory by bindfs, a file system of libfuse, exported by virtiofsd.
    Bindfs,
}

/// In the order of the columns.
pub(super) const SIDES: [Side; 5] = [
    Side::Directory,
    Side::DirectoryPlugin,
    Side::Memory,
    Side::MemoryPlugin,
    Side::Bindfs,
];

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Directory => "`dir:`",
            Self::DirectoryPlugin => "the same in a plugin",
            Self::Memory => "`memory:`",
            Self::MemoryPlugin => "the same in a plugin",
            Self::Bindfs => "bindfs and virtiofsd",
        }
    }

    /// The storage that it is, compiled in.
    pub(super) fn compiled_in(self) -> Option<Self> {
        match self {
            Self::DirectoryPlugin => Some(Self::Directory),
            Self::MemoryPlugin => Some(Self::Memory),
            Self::Directory | Self::Memory | Self::Bindfs => None,
        }
    }
}

/// How long a mount may take, or a plugin to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// What all sides share for a run.
#[derive(Debug)]
pub(super) struct Standing {
    vfsd: Program,
    virtiofsd: Program,
    directory: PathBuf,
    /// Where bindfs is mounted.
    mount: PathBuf,
    /// Where the plugin of the directory listens. It holds a descriptor for each file, of which one that the daemon starts has too few.
    directory_socket: PathBuf,
    _directory_plugin: Background,
    /// The command that starts the plugin of the memory.
    memory_plugin: String,
}

impl Standing {
    /// Builds the plugins, and mounts bindfs on the folder.
    ///
    /// # Errors
    /// One of them fails.
    pub(super) fn make(plan: &Plan, folder: &Folder) -> Result<Self> {
        let profile = match cfg!(debug_assertions) {
            true => Profile::Debug,
            false => Profile::Release,
        };
        packages::install(&[BINDFS])?;
        let mount = plan.folder.join("bindfs");
        std::fs::create_dir(&mount).context("make a mount point")?;
        let directory_socket = plan.folder.join("directory.socket");
        let mut plugin = Command::new("sh");
        plugin
            .args(["-c", "ulimit -n $(ulimit -H -n); exec \"$@\"", "plugin"])
            .arg(program(DIRECTORY, &plan.folder, profile)?)
            .arg(folder.path())
            .arg("--socket")
            .arg(&directory_socket);
        let log = File::create(plan.folder.join("plugin.log")).context("make a log")?;
        // Both stay where they are started.
        let division = Division::of_one_driver()?;
        let _there = division
            .map(|division| division.drive(DRIVER))
            .transpose()?;
        let standing = Self {
            vfsd: Program::Vfsd(plan.vfsd.clone()),
            virtiofsd: Program::Virtiofsd(plan.virtiofsd.clone()),
            directory: folder.path().to_path_buf(),
            mount,
            _directory_plugin: Background::start(&plugin, &log)?,
            directory_socket,
            memory_plugin: program(MEMORY, &plan.folder, profile)?,
        };
        let mut bindfs = Command::new(BINDFS.provides);
        bindfs
            .arg("--multithreaded")
            .arg(&standing.directory)
            .arg(&standing.mount);
        run_ok(&bindfs, LIMIT, &mut |_| {}).context("mount bindfs")?;
        ensure!(is_mount_point(&standing.mount), "bindfs mounts nothing");
        let deadline = Instant::now() + LIMIT;
        while !standing.directory_socket.exists() {
            ensure!(Instant::now() < deadline, "the plugin does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(standing)
    }

    /// What a side serves.
    pub(super) fn offered(&self, side: Side) -> Offered<'_> {
        let storage = match side {
            Side::Directory => named(format!("dir:{}", self.directory.display())),
            Side::DirectoryPlugin => named(format!("plugin:{}", self.directory_socket.display())),
            Side::Memory => named("memory:".to_owned()),
            Side::MemoryPlugin => {
                let mut storage = named(format!("plugin:exec:{}", self.memory_plugin));
                storage.argument("--plugin-user").argument("root");
                storage
            }
            Side::Bindfs => Storage::folder(&self.mount),
        };
        let (program, options) = match side {
            Side::Bindfs => (&self.virtiofsd, &OPTIONS),
            _ => (&self.vfsd, &OWN_OPTIONS),
        };
        Offered {
            program,
            options,
            storage,
            is_empty: matches!(side, Side::Memory | Side::MemoryPlugin),
        }
    }

    /// Unmounts bindfs.
    ///
    /// # Errors
    /// It stays.
    pub(super) fn end(self) -> Result<()> {
        match self.unmount() {
            true => Ok(()),
            false => bail!("{} stays mounted", self.mount.display()),
        }
    }

    fn unmount(&self) -> bool {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.mount);
        !is_mount_point(&self.mount) || run_ok(&umount, LIMIT, &mut |_| {}).is_ok()
    }
}

impl Drop for Standing {
    /// What is removed afterwards is not what it shows.
    fn drop(&mut self) {
        self.unmount();
    }
}

fn named(source: String) -> Storage {
    Storage::named("bench", source)
}
