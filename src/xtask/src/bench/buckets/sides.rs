//! A bucket of SeaweedFS, mounted on this host by vfsd and by other clients.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vfsd_testkit::servers::{ACCESS_KEY, RunningStore, SECRET_KEY};

use super::super::mounted::{MountPoint, Mounted};
use crate::daemon::{Daemon, Options, Program, Storage};
use crate::packages::S3FS;
use crate::process::run_ok;
use crate::stores::StorePrograms;

/// Making the bucket, filling it, and for reading and for writing: mounting, working, and unmounting with everything
/// brought into the bucket.
const PARTS: u32 = 8;
const BUCKET: &str = "data";

/// Who has the bucket mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// vfsd.
    Ours,
    /// rclone, with its cache of whole files, which writing needs.
    Rclone,
    /// s3fs, with a cache.
    S3fs,
    /// Nobody: curl asks the store for what the work needs.
    Bare,
}

/// In the order of the columns.
pub(super) const SIDES: [Side; 4] = [Side::Ours, Side::Rclone, Side::S3fs, Side::Bare];

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "vfsd",
            Self::Rclone => "rclone",
            Self::S3fs => "s3fs",
            Self::Bare => "curl",
        }
    }
}

/// What a mount is for. Each begins with an empty cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Reading what another client has put.
    Read,
    /// Writing.
    Write,
}

/// What all buckets are made with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) vfsd: PathBuf,
    pub(super) stores: StorePrograms,
    /// What is put into each bucket.
    pub(super) source: PathBuf,
    /// How long one part of the work may take.
    pub(super) limit: Duration,
    /// How many small objects each bucket has.
    pub(super) objects: u32,
}

/// A bucket of a server of its own.
#[derive(Debug)]
pub(super) struct Bucket<'a> {
    side: Side,
    tools: &'a Tools,
    store: RunningStore,
    folder: PathBuf,
    point: MountPoint,
}

impl<'a> Bucket<'a> {
    /// Fills it; `folder` is not there yet.
    ///
    /// # Errors
    /// The server or a program fails.
    pub(super) fn fill(side: Side, tools: &'a Tools, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir(&folder).context("make a folder for a bucket")?;
        let store = tools
            .stores
            .seaweedfs_for(tools.limit.saturating_mul(PARTS))?;
        tools.stores.make_bucket(&store, BUCKET)?;
        let this = Self {
            side,
            tools,
            store,
            point: MountPoint::make(folder.join("mount"))?,
            folder,
        };
        let mut copy = this.rclone();
        copy.args(["copy", "--transfers", "16", "--no-traverse"]);
        copy.arg(&tools.source).arg(format!("w:{BUCKET}"));
        run_ok(&copy, tools.limit, &mut |_| {}).context("fill a bucket")?;
        Ok(this)
    }

    /// rclone, which knows the server as `w:`.
    fn rclone(&self) -> Command {
        let mut command = Command::new(self.tools.stores.program("rclone"));
        command.arg("--s3-no-check-bucket");
        for (name, value) in [
            ("TYPE", "s3"),
            ("PROVIDER", "SeaweedFS"),
            ("ENDPOINT", &self.store.endpoint()),
            ("ACCESS_KEY_ID", ACCESS_KEY),
            ("SECRET_ACCESS_KEY", SECRET_KEY),
        ] {
            command.env(format!("RCLONE_CONFIG_W_{name}"), value);
        }
        // Nothing that it knows of other stores.
        command.env("HOME", &self.folder);
        command
    }

    /// What tells a client where the bucket is, and the program where its server counts requests.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut environment = self.store.environment();
        let metrics = self.store.metrics().map(|address| {
            let url = format!("http://{address}/metrics");
            ("STORE_METRICS".to_owned(), url)
        });
        environment.extend(metrics);
        environment
    }

    /// Where everything of it lies on this host.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn point(&self) -> &Path {
        self.point.path()
    }

    /// Mounts it, with an empty cache.
    ///
    /// # Errors
    /// The program ends, or mounts nothing, as the bare client does.
    pub(super) fn mount(&self, mode: Mode) -> Result<Mounted> {
        let word = match mode {
            Mode::Read => "read",
            Mode::Write => "write",
        };
        let cache = self.folder.join(word);
        std::fs::create_dir(&cache).context("make a folder for a cache")?;
        let log = self.folder.join(format!("{word}.log"));
        let peer = |command| {
            Mounted::peer(
                self.side.name(),
                &command,
                &self.point,
                &log,
                self.tools.limit,
            )
        };
        match self.side {
            Side::Ours => {
                let mut storage = Storage::named("data", format!("s3://{BUCKET}"));
                storage.environment(self.environment());
                storage.argument("--cache-dir").argument(&cache);
                if mode == Mode::Write {
                    storage.argument("--flat-write");
                }
                let program = Program::Vfsd(self.tools.vfsd.clone());
                let options = Options::default();
                let point = self.point.path();
                Daemon::mount(&program, &options, &storage, point, &log).map(Mounted::Ours)
            }
            Side::Rclone => {
                let mut mount = self.rclone();
                mount.args(["mount", "--vfs-cache-mode", "full", "--cache-dir"]);
                mount.arg(&cache);
                mount.args(match mode {
                    // Without a question for each object, as vfsd does it.
                    Mode::Read => ["--read-only", "--use-server-modtime"],
                    Mode::Write => ["--vfs-write-back", "0s"],
                });
                mount.arg(format!("w:{BUCKET}")).arg(self.point.path());
                peer(mount)
            }
            Side::Bare => bail!("curl mounts nothing"),
            Side::S3fs => {
                let keys = self.folder.join("keys");
                std::fs::write(&keys, format!("{ACCESS_KEY}:{SECRET_KEY}"))
                    .context("write the keys")?;
                let secret = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(&keys, secret).context("hide the keys")?;
                let mut mount = Command::new(S3FS.provides);
                mount.arg(BUCKET).arg(self.point.path()).arg("-f");
                for option in [
                    format!("passwd_file={}", keys.display()),
                    format!("url={}", self.store.endpoint()),
                    "use_path_request_style".to_owned(),
                    format!("use_cache={}", cache.display()),
                    "max_stat_cache_size=200000".to_owned(),
                ] {
                    mount.arg("-o").arg(option);
                }
                if mode == Mode::Read {
                    mount.args(["-o", "ro"]);
                }
                peer(mount)
            }
        }
    }

    /// Unmounts it when everything is in the bucket.
    ///
    /// # Errors
    /// The program did not end well.
    pub(super) fn unmount(&self, mounted: Mounted) -> Result<()> {
        mounted.unmount(self.side.name(), &self.point, self.tools.limit)
    }
}
