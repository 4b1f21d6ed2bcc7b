//! A bucket with a volume, and hosts that have it one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::ObjectStore;
use tempfile::TempDir;
use vfsd_backend::Backend;
use vfsd_memory::{Memory, Settings};
use vfsd_object_store::{RetryPolicy, Store};
use vfsd_testkit::place::{Place, wait};
use vfsd_volume::bucket::CheckLevel;
use vfsd_volume::{RemoteOptions, Volume, VolumeError, VolumeOptions};

pub(crate) const PREFIX: &str = "some/where";

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// Told, or from the clock.
pub(crate) fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    number("VFSD_SEED").unwrap_or(u64::from(clock.subsec_nanos()))
}

pub(crate) fn store(objects: Arc<dyn ObjectStore>) -> Store {
    Store::over(objects, RetryPolicy::default())
}

/// One that gives up early.
pub(crate) fn impatient_store(objects: Arc<dyn ObjectStore>) -> Store {
    let policy = RetryPolicy::new(Duration::from_millis(400), Duration::from_millis(200));
    Store::over(objects, policy)
}

pub(crate) fn make_volume(store: &Store) {
    let options = VolumeOptions::default();
    let made = Volume::create_remote(store, PREFIX, &options);
    vfsd_testkit::block_on(made).unwrap();
}

/// Directories of hosts.
pub(crate) struct Hosts(TempDir, u32);

impl Hosts {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").unwrap(), 0)
    }

    /// One that has nothing.
    pub(crate) fn fresh(&mut self) -> PathBuf {
        self.1 += 1;
        self.0.path().join(format!("host{}", self.1))
    }
}

/// Everything is shipped all the time.
pub(crate) fn options() -> RemoteOptions {
    RemoteOptions {
        lag: Duration::from_millis(1),
        takeover: true,
        // A checkpoint now and then.
        checkpoint_after: 2_000,
        cache_size: Some(200_000),
        ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
    }
}

pub(crate) fn try_open(store: &Store, host: &Path) -> Result<Volume, VolumeError> {
    Volume::open_remote(store, PREFIX, host, &options())
}

pub(crate) fn open(store: &Store, host: &Path) -> Volume {
    try_open(store, host).unwrap()
}

/// Everything in the bucket fits together, and is there.
pub(crate) fn check(store: &Store, scratch: &Path) {
    std::fs::create_dir_all(scratch).unwrap();
    let runtime = vfsd_testkit::runtime().handle();
    let report =
        Volume::check_remote(store, PREFIX, scratch, CheckLevel::Content, runtime).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

pub(crate) fn sync(volume: &Volume) {
    wait(volume.root().syncfs()).unwrap();
}

pub(crate) fn root(volume: &Volume) -> Place {
    Place(volume.root())
}

/// What everything is compared with.
pub(crate) fn oracle() -> Place {
    Place(Memory::new(Settings::default()).unwrap().root())
}
