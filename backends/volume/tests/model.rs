//! A volume does what the memory backend does, whatever is done.

#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;

use vfsd_memory::{Memory, Settings};
use vfsd_testkit::conformance::{Features, Fixture};
use vfsd_testkit::model;
use vfsd_volume::{Volume, VolumeOptions};

#[test]
fn a_volume_and_memory_do_the_same() {
    model::run(4_000, memory, volume);
}

fn memory() -> Fixture {
    let memory = Memory::new(Settings::default()).expect("an empty file system");
    Fixture::new(Arc::new(memory), Features::all())
}

fn volume() -> Fixture {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory for the volume");
    let of_the_host =
        Features::EXT4_LIMITS | Features::SHIFT_RANGES | Features::ALLOCATION | Features::HOLES;
    let features = vfsd_testkit::host::features(dir.path()) | (Features::all() - of_the_host);
    let options = VolumeOptions::default();
    Volume::create(dir.path(), &options).expect("make a volume");
    let volume = Volume::open(dir.path(), &options).expect("open the volume");
    Fixture::new(Arc::new(volume), features).holding(dir)
}
