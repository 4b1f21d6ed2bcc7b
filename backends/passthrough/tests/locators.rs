//! What leads to a file again where the daemon may not open files by handle: names, which are compared with the handle.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

use vfsd_backend::{Backend, Errno, Locator};
use vfsd_passthrough::{FileHandles, Options, Passthrough};
use vfsd_testkit::place::{Outcome, Place, wait};

fn open(path: &Path, file_handles: FileHandles) -> Passthrough {
    let options = Options {
        file_handles,
        ..Options::default()
    };
    Passthrough::open(path, options).unwrap()
}

fn resolve(share: &Passthrough, locator: &Locator) -> Outcome<Place> {
    wait(share.resolve(locator)).map(Place)
}

fn locator(share: &Passthrough, path: &[&str]) -> Locator {
    let found = path.iter().fold(Place(share.root()), |place, name| {
        place.lookup(name).unwrap()
    });
    wait(found.0.locator()).unwrap()
}

#[test]
fn names_lead_to_the_file_that_had_them() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    for name in ["dir/file", "dir/gone", "dir/other"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let never = || open(dir.path(), FileHandles::Never);
    let before = never();
    let root = locator(&before, &[]);
    let [file, gone, other] =
        ["file", "gone", "other"].map(|name| locator(&before, &["dir", name]));
    drop(before);
    fs::remove_file(dir.path().join("dir/gone")).unwrap();
    // Another file has the name now.
    fs::rename(dir.path().join("dir/other"), dir.path().join("dir/moved")).unwrap();
    fs::write(dir.path().join("dir/other"), "new").unwrap();
    let after = never();
    assert_eq!(
        resolve(&after, &root).unwrap().identity(),
        after.root().identity()
    );
    let found = resolve(&after, &file).unwrap();
    assert_eq!(found.content().unwrap(), b"dir/file");
    for lost in [gone, other] {
        assert_eq!(resolve(&after, &lost).map(drop), Err(Errno::STALE));
    }
}

#[test]
fn a_handle_finds_a_file_that_was_moved() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(dir.path().join("file"), "content").unwrap();
    let options = Options {
        file_handles: FileHandles::Mandatory,
        ..Options::default()
    };
    if let Err(error) = Passthrough::open(dir.path(), options) {
        eprintln!("skipped: {error}");
        return;
    }
    // Also one that was made where no handle may be opened.
    for maker in [FileHandles::Never, FileHandles::Mandatory] {
        let made = locator(&open(dir.path(), maker), &["file"]);
        fs::rename(dir.path().join("file"), dir.path().join("moved")).unwrap();
        let found = resolve(&open(dir.path(), FileHandles::Mandatory), &made).unwrap();
        assert_eq!(found.content().unwrap(), b"content");
        fs::rename(dir.path().join("moved"), dir.path().join("file")).unwrap();
    }
}

#[test]
fn a_path_that_is_too_long_leaves_the_handle() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let long = "n".repeat(200);
    fs::write(dir.path().join(&long), "content").unwrap();
    let never = open(dir.path(), FileHandles::Never);
    let found = Place(never.root()).lookup(&long).unwrap();
    match wait(found.0.locator()) {
        Ok(made) => {
            assert!(made.file_handle().is_some());
            let found = resolve(&never, &made).map(drop);
            assert_eq!(
                found,
                Err(Errno::OPNOTSUPP),
                "this daemon may not follow it"
            );
        }
        // The file system has no handles.
        Err(errno) => assert_eq!(errno, Errno::OVERFLOW),
    }
}
