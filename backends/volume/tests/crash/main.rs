//! A daemon that is killed at any moment has kept all that it acknowledged.
//!
//! `VFSD_CRASHES` says how often (default 12), `VFSD_SEED` how it begins.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod work;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vfsd_backend::Backend;
use vfsd_memory::{Memory, Settings};
use vfsd_testkit::place::Place;
use vfsd_volume::{Volume, VolumeOptions};

use work::{Work, look};

const DIRECTORY: &str = "VFSD_CRASH_DIRECTORY";
/// It ends by itself, should nobody kill it.
const MOST_STEPS: u64 = 200_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

fn open(directory: &Path) -> Volume {
    Volume::open(directory, &VolumeOptions::default()).unwrap()
}

/// Works on a volume, and notes after each operation how many are done.
#[test]
#[ignore = "run by the other test, in a process that it kills"]
fn work_until_killed() {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let directory = Path::new(&directory);
    let seed = number("VFSD_SEED").unwrap();
    let volume = open(&directory.join("volume"));
    let done = File::create(directory.join("done")).unwrap();
    let mut work = Work::new(Place(volume.root()), seed);
    for step in 1..=MOST_STEPS {
        work.step();
        done.write_all_at(&step.to_le_bytes(), 0).unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Operations that were acknowledged.
fn done(directory: &Path) -> u64 {
    let mut bytes = [0; 8];
    match File::open(directory.join("done")) {
        Ok(file) => match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        },
        Err(_) => 0,
    }
}

/// Lets a process work on the volume and kills it after `steps` operations at the earliest.
fn work_and_kill(directory: &Path, seed: u64, steps: u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "work_until_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env("VFSD_SEED", seed.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut killed = Killed(child);
    while done(directory) < steps && killed.0.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn memory() -> Memory {
    Memory::new(Settings::default()).unwrap()
}

#[test]
fn a_killed_daemon_has_kept_what_it_acknowledged() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("VFSD_SEED").unwrap_or(u64::from(clock.subsec_nanos()));
    for crash in 0..number("VFSD_CRASHES").unwrap_or(12) {
        let seed = first + crash;
        // Early kills too, and now and then one after a checkpoint.
        let steps = [1, 30, 300, 2000][usize::try_from(seed % 4).unwrap()] + seed % 97;
        crash_once(seed, steps);
    }
}

fn crash_once(seed: u64, steps: u64) {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("volume");
    Volume::create(&path, &VolumeOptions::default()).unwrap();
    work_and_kill(directory.path(), seed, steps);
    let done = done(directory.path());
    let repeat = format!("repeat with VFSD_SEED={seed}; {done} operations were done");
    assert!(done >= steps, "{repeat}");

    let report = Volume::check(&path).unwrap();
    assert!(report.is_clean(), "{:#?}\n{repeat}", report.problems);

    let oracle = memory();
    let mut expected = Work::new(Place(oracle.root()), seed);
    for _ in 0..done {
        expected.step();
    }
    let before = look(&Place(oracle.root()));
    let half_done = expected.next_changes_content();
    expected.step();
    let after = look(&Place(oracle.root()));

    let volume = open(&path);
    let found = look(&Place(Arc::new(volume).root()));
    if found == before || found == after {
        return;
    }
    // The operation that was going on may have written some of its content.
    let paths: Vec<&String> = found
        .keys()
        .chain(before.keys())
        .chain(after.keys())
        .collect();
    for path in paths {
        let (is, was) = (found.get(path), before.get(path));
        let moves = was != after.get(path);
        assert!(
            is == was || (half_done && moves && is.is_some() && was.is_some()),
            "{path}\n  found {:?}\n before {:?}\n  after {:?}\n{repeat}",
            is.map(|look| &look.attributes),
            was.map(|look| &look.attributes),
            after.get(path).map(|look| &look.attributes),
        );
    }
}
