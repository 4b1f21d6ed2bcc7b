//! A host directory does what the memory backend does, whatever is done.

#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;

use vfsd_memory::{Memory, Settings};
use vfsd_passthrough::{Options, Passthrough};
use vfsd_testkit::conformance::{Features, Fixture};
use vfsd_testkit::{host, model};

#[test]
fn a_host_directory_and_memory_do_the_same() {
    if !host_directory().features().contains(Features::PRIVILEGED) {
        // The host's kernel refuses an ordinary user what memory leaves to the guest's.
        eprintln!("skipped: only root does on the host what a guest's root does");
        return;
    }
    model::run(6_000, memory, host_directory);
}

fn memory() -> Fixture {
    let memory = Memory::new(Settings::default()).expect("an empty file system");
    Fixture::new(Arc::new(memory), Features::all())
}

fn host_directory() -> Fixture {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory to share");
    let features = host::features(dir.path());
    let options = Options {
        posix_acl: true,
        kill_privileges: true,
        ..Options::default()
    };
    let backend = Passthrough::open(dir.path(), options).expect("share the directory");
    Fixture::new(Arc::new(backend), features).holding(dir)
}
