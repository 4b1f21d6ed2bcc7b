//! The behaviour that every backend shows, in volumes.

#![allow(clippy::expect_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::Arc;

use vfsd_backend::Backend;
use vfsd_testkit::conformance::{self, Features, Fixture};
use vfsd_volume::{Volume, VolumeOptions};

fn main() -> ExitCode {
    conformance::main(|| {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory for the volume");
        // What depends on the file system that the data files are in, beside what a volume does itself.
        let of_the_host =
            Features::EXT4_LIMITS | Features::SHIFT_RANGES | Features::ALLOCATION | Features::HOLES;
        let features = vfsd_testkit::host::features(dir.path()) | (Features::all() - of_the_host);
        let options = VolumeOptions::default();
        Volume::create(dir.path(), &options).expect("make a volume");
        let volume = Volume::open(dir.path(), &options).expect("open the volume");
        let path = dir.path().to_owned();
        let reopen = move |old| {
            drop(old);
            let opened = Volume::open(&path, &VolumeOptions::default());
            Arc::new(opened.expect("open the volume")) as Arc<dyn Backend>
        };
        Fixture::new(Arc::new(volume), features)
            .reopening(reopen)
            .holding(dir)
    })
}
