//! A daemon that is killed at any moment: the same host has everything that was acknowledged, another host everything
//! that was synced, and both a state after some operation.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use vfsd_object_store::Store;

use crate::bench::{make_volume, number, open, oracle, root, seed, store};
use crate::local_store::LocalStore;
use crate::work::{Work, look};

const DIRECTORY: &str = "VFSD_CRASH_DIRECTORY";
/// It ends by itself, should nobody kill it.
const MOST_STEPS: u64 = 200_000;

fn bucket(directory: &Path) -> Store {
    store(Arc::new(LocalStore::new(&directory.join("bucket"))))
}

/// Works on a volume, and notes after each operation how many are done, and which was the last that is synced.
#[test]
#[ignore = "run by the other test, in a process that it kills"]
fn work_until_killed() {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let directory = Path::new(&directory);
    let seed = number("VFSD_SEED").unwrap();
    let volume = open(&bucket(directory), &directory.join("host"));
    let done = File::create(directory.join("done")).unwrap();
    let mut work = Work::new(root(&volume), seed);
    for step in 1..=MOST_STEPS {
        let synced = work.step_is_synced();
        done.write_all_at(&step.to_le_bytes(), 0).unwrap();
        if synced {
            done.write_all_at(&step.to_le_bytes(), 8).unwrap();
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Operations that were acknowledged, and up to which one they were synced.
fn done(directory: &Path) -> (u64, u64) {
    let read = |at| {
        let mut bytes = [0; 8];
        let file = File::open(directory.join("done")).ok()?;
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    (read(0).unwrap_or(0), read(8).unwrap_or(0))
}

fn work_and_kill(directory: &Path, seed: u64, steps: u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::work_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .env("VFSD_SEED", seed.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut killed = Killed(child);
    while done(directory).0 < steps && killed.0.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_killed_daemon_loses_nothing_here_and_nothing_synced_elsewhere() {
    let first = seed();
    for crash in 0..number("VFSD_CRASHES").unwrap_or(12) {
        let seed = first + crash;
        let steps = [1, 30, 300, 900][usize::try_from(seed % 4).unwrap()] + seed % 97;
        crash_once(seed, steps);
    }
}

fn crash_once(seed: u64, steps: u64) {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path();
    make_volume(&bucket(path));
    work_and_kill(path, seed, steps);
    let (done, synced) = done(path);
    let repeat =
        format!("repeat with VFSD_SEED={seed}; {done} operations were done, {synced} synced");
    assert!(done >= steps, "{repeat}");

    let oracle = oracle();
    let mut expected = Work::new(oracle.clone(), seed);
    let mut states = Vec::new();
    for step in 0..=done + 1 {
        if step >= synced {
            states.push((step, look(&oracle)));
        }
        expected.step();
    }

    // Another host, from the bucket alone.
    let elsewhere = path.join("elsewhere");
    copy_all(&path.join("bucket"), &elsewhere.join("bucket"));
    let other = open(&bucket(&elsewhere), &elsewhere.join("host"));
    let found = look(&root(&other));
    assert!(
        states.iter().any(|(_, state)| *state == found),
        "no state since the sync\n{repeat}"
    );
    drop(other);

    // The same host. The operation that was going on may be half done: its content, that is.
    let volume = open(&bucket(path), &path.join("host"));
    let found = look(&root(&volume));
    let whole = states
        .iter()
        .any(|(step, state)| *step >= done && *state == found);
    if !whole {
        let (Some((_, before)), Some((_, after))) = (states.get(states.len() - 2), states.last())
        else {
            panic!("{repeat}");
        };
        for (path, was) in before {
            let moves = after.get(path) != Some(was);
            assert!(found.get(path) == Some(was) || moves, "{path}\n{repeat}");
        }
        assert!(
            found
                .keys()
                .all(|path| before.contains_key(path) || after.contains_key(path)),
            "{repeat}"
        );
    }
    drop(volume);
    // And what it went on with is found from the bucket alone.
    let last = open(&bucket(path), &path.join("third"));
    assert!(look(&root(&last)) == found, "{repeat}");
}
