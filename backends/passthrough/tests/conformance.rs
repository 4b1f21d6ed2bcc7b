//! The behaviour that every backend shows, in directories of the host's file system.

#![allow(clippy::expect_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::Arc;

use vfsd_backend::Backend;
use vfsd_passthrough::{Options, Passthrough};
use vfsd_testkit::conformance::{self, Fixture};

fn main() -> ExitCode {
    conformance::main(|| {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory to share");
        let features = vfsd_testkit::host::features(dir.path());
        let backend = Passthrough::open(dir.path(), every_option()).expect("share the directory");
        let path = dir.path().to_owned();
        let reopen = move |old| {
            drop(old);
            let opened = Passthrough::open(&path, every_option());
            Arc::new(opened.expect("share the directory")) as Arc<dyn Backend>
        };
        Fixture::new(Arc::new(backend), features)
            .reopening(reopen)
            .holding(dir)
    })
}

fn every_option() -> Options {
    Options {
        posix_acl: true,
        security_labels: true,
        preserve_noatime: true,
        kill_privileges: true,
        ..Options::default()
    }
}
