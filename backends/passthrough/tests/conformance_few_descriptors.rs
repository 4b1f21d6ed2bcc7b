//! The behaviour that every backend shows, where nodes lose their descriptors at once and are
//! opened again by handle each time.

#![allow(clippy::expect_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::Arc;

use vfsd_backend::Backend;
use vfsd_passthrough::{FileHandles, Options, Passthrough};
use vfsd_testkit::conformance::{self, Fixture};

fn main() -> ExitCode {
    let options = |file_handles| Options {
        posix_acl: true,
        security_labels: true,
        preserve_noatime: true,
        kill_privileges: true,
        file_handles,
        cached_descriptors: Some(0),
        ..Options::default()
    };
    let probe = tempfile::tempdir_in("/var/tmp").expect("a directory to share");
    if let Err(error) = Passthrough::open(probe.path(), options(FileHandles::Mandatory)) {
        eprintln!("skipped: {error}");
        return ExitCode::SUCCESS;
    }
    conformance::main(move || {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory to share");
        let features = vfsd_testkit::host::features(dir.path());
        let backend = Passthrough::open(dir.path(), options(FileHandles::Mandatory))
            .expect("share the directory");
        let path = dir.path().to_owned();
        let reopen = move |old| {
            drop(old);
            let opened = Passthrough::open(&path, options(FileHandles::Mandatory));
            Arc::new(opened.expect("share the directory")) as Arc<dyn Backend>
        };
        Fixture::new(Arc::new(backend), features)
            .reopening(reopen)
            .holding(dir)
    })
}
