//! Holes that were made after the last cut: a start after a kill takes none of them for content that is in the bucket alone.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use vfsd_backend::FallocateMode;
use vfsd_object_store::Store;
use vfsd_testkit::place::Place;
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{PREFIX, make_volume, number, oracle, root, store};
use crate::local_store::LocalStore;
use crate::work::look;

const DIRECTORY: &str = "VFSD_HOLES_DIRECTORY";
const CHANGE: &str = "VFSD_HOLES_CHANGE";
/// Ends in the middle of a block.
const SIZE: usize = 31_125;

/// What it is, and how a file, or two, are changed.
type Change = (&'static str, fn(&Place));

const CHANGES: [Change; 9] = [
    ("a hole over the end", |root| {
        let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        allocate(root, mode, 16_767, 15_798);
    }),
    ("a hole in the middle of a block", |root| {
        let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        allocate(root, mode, 5_000, 100);
    }),
    ("zeros over the end", |root| {
        let mode = FallocateMode::ZERO_RANGE | FallocateMode::KEEP_SIZE;
        allocate(root, mode, 16_767, 15_798);
    }),
    ("zeros that make it longer", |root| {
        allocate(root, FallocateMode::ZERO_RANGE, 16_767, 30_000);
    }),
    ("blocks taken out", |root| {
        allocate(root, FallocateMode::COLLAPSE_RANGE, 4096, 8192);
    }),
    ("blocks put in", |root| {
        allocate(root, FallocateMode::INSERT_RANGE, 4096, 8192);
    }),
    ("cut off and made longer", |root| {
        let file = root.lookup("file").unwrap().open_both().unwrap();
        file.truncate(5_000).unwrap();
        file.truncate(40_000).unwrap();
    }),
    ("cut to nothing and made longer", |root| {
        let file = root.lookup("file").unwrap().open_both().unwrap();
        file.truncate(0).unwrap();
        file.truncate(40_000).unwrap();
    }),
    ("a hole copied over it", |root| {
        let hole = root.lookup("hole").unwrap().open_both().unwrap();
        let file = root.lookup("file").unwrap().open_both().unwrap();
        assert_eq!(hole.copy_range(0, &file, 4096, 40_000), Ok(SIZE as u64));
    }),
];

fn allocate(root: &Place, mode: FallocateMode, offset: u64, length: u64) {
    let file = root.lookup("file").unwrap().open_both().unwrap();
    file.fallocate(mode, offset, length).unwrap();
}

/// What the bucket has: a file of bytes, and one that is a hole.
fn prepare(root: &Place) {
    let (_, hole) = root.create("hole").unwrap();
    hole.truncate(SIZE as u64).unwrap();
    let (_, file) = root.create("file").unwrap();
    file.write(0, &[1; SIZE]).unwrap();
    file.fsync().unwrap();
}

/// What the bucket does not have: newer bytes, and then a change.
fn change(root: &Place, change: &Change) {
    let file = root.lookup("file").unwrap().open_both().unwrap();
    file.write(0, &[2; SIZE]).unwrap();
    (change.1)(root);
}

fn bucket(directory: &Path) -> Store {
    store(Arc::new(LocalStore::new(&directory.join("bucket"))))
}

/// Nothing gets into the bucket but by a sync.
fn open(directory: &Path) -> Volume {
    let options = RemoteOptions {
        lag: Duration::from_secs(3600),
        takeover: true,
        ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
    };
    Volume::open_remote(
        &bucket(directory),
        PREFIX,
        &directory.join("host"),
        &options,
    )
    .unwrap()
}

#[test]
#[ignore = "run by the other test, in a process that ends by a kill"]
fn change_and_be_killed() {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let volume = open(Path::new(&directory));
    prepare(&root(&volume));
    let number = usize::try_from(number(CHANGE).unwrap()).unwrap();
    change(&root(&volume), &CHANGES[number]);
    let myself = rustix::process::getpid();
    rustix::process::kill_process(myself, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_hole_that_was_made_before_a_kill_stays_one() {
    for (number, what) in CHANGES.iter().enumerate() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        make_volume(&bucket(directory.path()));
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holes::change_and_be_killed", "--ignored"])
            .env(DIRECTORY, directory.path())
            .env(CHANGE, number.to_string())
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), Some(9), "{}: {ended:?}", what.0);

        let expected = oracle();
        prepare(&expected);
        change(&expected, what);
        let volume = open(directory.path());
        let (found, expected) = (look(&root(&volume)), look(&expected));
        for (path, look) in &expected {
            let found = &found[path];
            let differs = found
                .content
                .iter()
                .zip(&look.content)
                .position(|(a, b)| a != b);
            assert!(found == look, "{}: {path} differs at {differs:?}", what.0);
        }
    }
}
