//! The behaviour that every backend shows, in volumes in a bucket that are shipped all the time.

#![allow(clippy::expect_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use vfsd_object_store::{RetryPolicy, Store};
use vfsd_testkit::conformance::{self, Features, Fixture};
use vfsd_volume::{RemoteOptions, Volume, VolumeOptions};

fn main() -> ExitCode {
    conformance::main(|| {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory for the volume");
        let of_the_host =
            Features::EXT4_LIMITS | Features::SHIFT_RANGES | Features::ALLOCATION | Features::HOLES;
        let features = vfsd_testkit::host::features(dir.path()) | (Features::all() - of_the_host);
        let store = Store::over(Arc::new(InMemory::new()), RetryPolicy::default());
        let options = VolumeOptions::default();
        vfsd_testkit::block_on(Volume::create_remote(&store, "volume", &options))
            .expect("make a volume");
        let options = RemoteOptions {
            lag: Duration::ZERO,
            ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
        };
        let volume =
            Volume::open_remote(&store, "volume", dir.path(), &options).expect("open the volume");
        Fixture::new(Arc::new(volume), features).holding(dir)
    })
}
