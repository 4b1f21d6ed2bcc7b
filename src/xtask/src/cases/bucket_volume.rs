//! A volume in a bucket of a real S3 server, and what another host finds in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use vfsd_testkit::servers::{RunningStore, StoreServer, TIME_LIMIT};

use crate::artifact::Cache;
use crate::daemon::{Daemon, Options, Program, Storage};
use crate::guest::rootfs::folder_in;
use crate::process::{output_of, run, run_ok};
use crate::python;
use crate::stores::StorePrograms;

const LIMIT: Duration = Duration::from_secs(120);
const SOURCE: &str = "volume:s3://data/volume";
/// As it was when the guest had ended.
const SNAPSHOT: &str = "volume:s3://data/volume?snapshot=kept";
/// Another one, made of a snapshot of it.
const CLONE: &str = "volume:s3://data/clone";
/// A third one, made of a dump of the first one, which is not encrypted.
const LOADED: &str = "volume:s3://data/loaded";
const KEY_OPTION: &str = "--volume-key-file";
/// Files with the key of the volume, and with another one.
const KEY: &str = "key";
const WRONG_KEY: &str = "wrong-key";
/// The proxy: the last one for Debian's Python.
const MITMPROXY: &str = "mitmproxy==11.0.2";
/// Says what befalls which requests.
const SEED: u64 = 20_250_521;
/// Each kind of mishap befell at least so many writes.
const MISHAPS: usize = 5;
/// Compares what is there with what the guest has noted.
const COMPARE: &str = "set -e
(cd kept && sha256sum --quiet -c ../sums)
find kept -printf '%y %m %U %G %s %n %l %p\\n' | grep -v '^d' | LC_ALL=C sort >/tmp/names.$$
LC_ALL=C sort names | diff - /tmp/names.$$
rm /tmp/names.$$";

/// An empty volume in a bucket, which is encrypted.
#[derive(Debug)]
pub(super) struct BucketVolume {
    /// What stands between the guest's daemon and the store, and goes before it.
    proxy: Option<RunningStore>,
    store: RunningStore,
    vfsd: PathBuf,
    /// Where each host has its part.
    folder: TempDir,
}

impl BucketVolume {
    /// Starts a server and makes a volume in it.
    ///
    /// # Errors
    /// One of them fails.
    pub(super) fn make(server: StoreServer, program: &Program, cache: &Cache) -> Result<Self> {
        let Program::Vfsd(vfsd) = program else {
            bail!("only vfsd has volumes")
        };
        let programs = StorePrograms::fetch(cache)?;
        let store = programs.start(server)?;
        programs.make_bucket(&store, "data")?;
        let made = Self {
            proxy: None,
            store,
            vfsd: vfsd.clone(),
            folder: folder_in(cache.folder()).context("make a folder for the volume")?,
        };
        for (name, byte) in [(KEY, 7), (WRONG_KEY, 8)] {
            std::fs::write(made.folder.path().join(name), [byte; 32]).context("write a key")?;
        }
        made.volume(&["create", SOURCE])?;
        Ok(made)
    }

    /// The same, which the guest's daemon reaches by a proxy that loses requests and replies.
    ///
    /// # Errors
    /// The proxy fails.
    pub(super) fn behind_mishaps(self, cache: &Cache) -> Result<Self> {
        let programs = python::programs(cache, "proxy", &[MITMPROXY], "install a proxy for tests")?;
        let mitmdump = programs.join("mitmdump");
        let proxy = self.store.behind_mishaps(&mitmdump, SEED, TIME_LIMIT);
        Ok(Self {
            proxy: Some(proxy.context("start a proxy")?),
            ..self
        })
    }

    /// Runs `vfsd volume` for one that is encrypted.
    fn volume(&self, words: &[&str]) -> Result<()> {
        let key = self.folder.path().join(KEY);
        self.run_volume(words, &[OsStr::new(KEY_OPTION), key.as_os_str()])
    }

    fn run_volume(&self, words: &[&str], more: &[&OsStr]) -> Result<()> {
        let mut command = Command::new(&self.vfsd);
        command.arg("volume").args(words).args(more);
        command.envs(self.store.environment());
        let done = run_ok(&command, LIMIT, &mut |_| {});
        done.map(drop)
            .with_context(|| format!("volume {}", words.join(" ")))
    }

    /// The volume as a host serves it that has its part in a folder of this name.
    pub(super) fn storage(&self, state: &str) -> Storage {
        self.storage_of(SOURCE, self.proxy.as_ref().unwrap_or(&self.store), state)
    }

    fn storage_of(&self, source: &str, store: &RunningStore, state: &str) -> Storage {
        let mut storage = Storage::named("data", source);
        storage.environment(store.environment());
        storage
            .argument("--state-dir")
            .argument(self.folder.path().join(state));
        if source != LOADED {
            let key = self.folder.path().join(KEY);
            storage.argument(KEY_OPTION).argument(key);
        }
        storage
    }

    /// Looks at the volume as another host does, which has nothing of it; in SeaweedFS also at a snapshot of it, and at volumes
    /// that are made of that and of a dump, unless that was done without a proxy.
    ///
    /// # Errors
    /// What is missing there.
    pub(super) fn verify(&self) -> Result<()> {
        self.compare(SOURCE, "another-host")?;
        self.volume(&["check", SOURCE])?;
        match (&self.proxy, self.store.kind()) {
            (Some(proxy), _) => verify_mishaps(&proxy.mishaps()),
            (None, StoreServer::SeaweedFs) => self.verify_copies(),
            (None, _) => Ok(()),
        }
    }

    /// Two hosts that read it while a third one has it.
    fn verify_readers(&self) -> Result<()> {
        let owner = self.storage_of(SOURCE, &self.store, "another-host");
        let mut mounted = vec![self.mount(&owner, "owner")?];
        for name in ["one-reader", "another-reader"] {
            let mut reader = self.storage_of(SOURCE, &self.store, name);
            reader.argument("--readonly");
            mounted.push(self.mount(&reader, name)?);
        }
        for (_, point) in &mounted {
            Self::compare_at(point)?;
        }
        mounted
            .into_iter()
            .try_for_each(|(daemon, _)| Self::end(daemon))
    }

    fn verify_copies(&self) -> Result<()> {
        self.verify_readers()?;
        self.volume(&["snapshot", "create", SOURCE, "kept"])?;
        self.volume(&["gc", SOURCE])?;
        self.compare(SNAPSHOT, "reader-of-the-snapshot")?;
        self.refuses_other_keys()?;
        self.volume(&["clone", "--snapshot", "kept", SOURCE, CLONE])?;
        self.volume(&["check", CLONE])?;
        self.compare(CLONE, "host-of-the-clone")?;
        let dump = self.folder.path().join("dump");
        let dump = dump.to_string_lossy();
        self.volume(&["dump", SOURCE, &dump])?;
        self.run_volume(&["load", LOADED, &dump], &[])?;
        self.run_volume(&["check", LOADED], &[])?;
        self.compare(LOADED, "host-of-the-loaded")
    }

    /// Nobody reads the volume with another key, or without one.
    fn refuses_other_keys(&self) -> Result<()> {
        let wrong = self.folder.path().join(WRONG_KEY);
        let point = self.folder.path().join("nothing");
        std::fs::create_dir(&point).context("make a mount point")?;
        for (key, told) in [
            (Some(wrong), "not that of the volume"),
            (None, "is encrypted"),
        ] {
            let mut mount = Command::new(&self.vfsd);
            mount.args(["mount", "--state-dir"]);
            mount.arg(self.folder.path().join("stranger"));
            if let Some(key) = key {
                mount.arg(KEY_OPTION).arg(key);
            }
            mount.arg(SOURCE).arg(&point).envs(self.store.environment());
            let done = run(&mount, LIMIT, &mut |_| {}).context("mount with another key")?;
            if done.status.success() || !done.output.contains(told) {
                bail!("a mount with another key: {}\n{}", done.status, done.output);
            }
        }
        Ok(())
    }

    fn compare(&self, source: &str, host: &str) -> Result<()> {
        let storage = self.storage_of(source, &self.store, host);
        // The guest's daemon has given it back.
        let (daemon, point) = self.mount(&storage, host)?;
        let compared = Self::compare_at(&point);
        let ended = Self::end(daemon);
        compared.and(ended)
    }

    /// Mounts it in a new folder.
    fn mount(&self, storage: &Storage, name: &str) -> Result<(Daemon, PathBuf)> {
        let point = self.folder.path().join(format!("{name}-mount"));
        std::fs::create_dir(&point).context("make a mount point")?;
        let log = self.folder.path().join(format!("{name}.log"));
        let program = Program::Vfsd(self.vfsd.clone());
        let daemon = Daemon::mount(&program, &Options::default(), storage, &point, &log)
            .with_context(|| format!("mount the volume for {name}"))?;
        Ok((daemon, point))
    }

    fn compare_at(point: &Path) -> Result<()> {
        let mut compare = Command::new("bash");
        compare.args(["-c", COMPARE]).current_dir(point);
        let compared = output_of(&mut compare).context("compare what the guest has written");
        compared.map(drop)
    }

    fn end(mut daemon: Daemon) -> Result<()> {
        match daemon.terminate().context("unmount the volume")? {
            status if status.success() => Ok(()),
            status => bail!(
                "the daemon of the other host failed: {status}\n{}",
                daemon.log()
            ),
        }
    }
}

/// The guest has written through all kinds of them.
fn verify_mishaps(told: &[String]) -> Result<()> {
    for kind in ["refused", "cut", "late", "lost"] {
        let begin = format!("{kind} PUT ");
        let met = told.iter().filter(|line| line.starts_with(&begin)).count();
        if met < MISHAPS {
            bail!("only {met} of the guest's writes to the bucket were {kind}: {told:#?}");
        }
    }
    Ok(())
}
