//! The disk of the local directory has no room left: what fails then, what is kept, and that it goes on when there is room.
//!
//! `VFSD_SEED` says where it begins, `VFSD_SEEDS` how many seeds there are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use object_store::memory::InMemory;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use vfsd_backend::{Backend, Errno, FallocateMode};
use vfsd_testkit::place::{Outcome, Place, wait};

use super::kills::{Random, number, store};
use super::scene::Scene;
use crate::bucket::CheckLevel;
use crate::{Durability, Volume};

/// What the local directory has room for.
const DISK: &std::ffi::CStr = c"size=12m";
/// What the largest file may have.
const MOST: u64 = 300_000;
const FILES: u64 = 10;

/// A file system of its own, in memory; unmounted at the end.
struct Disk(TempDir);

impl Disk {
    /// `None` where the test may not mount.
    fn mount() -> Option<Self> {
        let point = tempfile::tempdir().unwrap();
        if let Err(errno) = mount("tmpfs", point.path(), "tmpfs", MountFlags::empty(), DISK) {
            eprintln!("skipped: cannot mount: {errno}");
            return None;
        }
        Some(Self(point))
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// All that was acknowledged.
type Files = BTreeMap<String, Vec<u8>>;

fn found_in(root: &Place) -> Files {
    let names = root.names().unwrap().into_iter();
    names
        .map(|name| {
            let content = root.lookup(&name).unwrap().content().unwrap();
            (name, content)
        })
        .collect()
}

/// Writes bytes into content, which becomes as long as it has to.
fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).unwrap();
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// What is done to a volume, and what of it was acknowledged.
struct Work {
    random: Random,
    files: Files,
    /// Operations that failed because there was no room.
    failed: u32,
    seed: u64,
}

impl Work {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            files: Files::new(),
            failed: 0,
            seed,
        }
    }

    fn name(&mut self) -> String {
        format!("f{}", self.random.below(FILES))
    }

    /// One operation. What fails changes nothing.
    fn step(&mut self, root: &Place) {
        let (name, kind) = (self.name(), self.random.below(20));
        let done = match kind {
            0 | 1 => self.unlink(root, &name),
            2 | 3 => self.rename(root, &name),
            4 | 5 => self.truncate(root, &name),
            6 | 7 => self.punch(root, &name),
            8 => root
                .lookup(&name)
                .and_then(|file| file.open_both()?.fsync()),
            _ => self.write(root, &name),
        };
        let synced = kind == 8;
        match done {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOSPC) => self.failed += 1,
            Err(Errno::IO) if synced => self.failed += 1,
            Err(errno) => panic!("VFSD_SEED={}, {kind} of {name}: {errno}", self.seed),
        }
    }

    fn unlink(&mut self, root: &Place, name: &str) -> Outcome<()> {
        root.unlink(name)?;
        self.files.remove(name);
        Ok(())
    }

    fn rename(&mut self, root: &Place, name: &str) -> Outcome<()> {
        let to = self.name();
        root.rename(name, root, &to)?;
        let content = self.files.remove(name).unwrap();
        self.files.insert(to, content);
        Ok(())
    }

    fn truncate(&mut self, root: &Place, name: &str) -> Outcome<()> {
        let size = self.random.below(MOST);
        root.lookup(name)?.truncate(size)?;
        let content = self.files.get_mut(name).unwrap();
        content.resize(usize::try_from(size).unwrap(), 0);
        Ok(())
    }

    fn punch(&mut self, root: &Place, name: &str) -> Outcome<()> {
        let (offset, length) = (self.random.below(MOST), self.random.below(60_000) + 1);
        let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        root.lookup(name)?
            .open_both()?
            .fallocate(mode, offset, length)?;
        let content = self.files.get_mut(name).unwrap();
        for byte in content
            .iter_mut()
            .skip(usize::try_from(offset).unwrap())
            .take(usize::try_from(length).unwrap())
        {
            *byte = 0;
        }
        Ok(())
    }

    fn write(&mut self, root: &Place, name: &str) -> Outcome<()> {
        let offset = self.random.below(MOST - 60_000);
        let length = self.random.below(60_000) + 1;
        let fill = u8::try_from(self.random.below(255)).unwrap() + 1;
        let bytes = vec![fill; usize::try_from(length).unwrap()];
        let handle = match root.lookup(name) {
            Ok(file) => file.open_both()?,
            Err(_) => {
                let (_, handle) = root.create(name)?;
                self.files.insert(name.to_owned(), Vec::new());
                handle
            }
        };
        let written = handle.write(offset, &bytes)?;
        put(self.files.get_mut(name).unwrap(), offset, &bytes[..written]);
        if written < bytes.len() {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    fn compare(&self, found: &Files, what: &str) {
        if *found == self.files {
            return;
        }
        let mut told = String::new();
        for name in found.keys().chain(self.files.keys()) {
            let (is, was) = (found.get(name), self.files.get(name));
            if is != was {
                let lengths = (is.map(Vec::len), was.map(Vec::len));
                let at = is
                    .zip(was)
                    .and_then(|(is, was)| is.iter().zip(was).position(|(is, was)| is != was));
                let there = |content: Option<&Vec<u8>>| content.zip(at).map(|(c, at)| c[at]);
                told += &format!(
                    "\n  {name}: {lengths:?}, differs at {at:?}: {:?} for {:?}",
                    there(is),
                    there(was)
                );
            }
        }
        panic!("VFSD_SEED={}, {what}:{told}", self.seed);
    }
}

fn is_synced(scene: &Scene) -> bool {
    (0..50).any(|_| wait(scene.volume.root().syncfs()).is_ok())
}

fn check(scene: &Scene, objects: &InMemory) {
    let scratch = scene.fresh();
    std::fs::create_dir(&scratch).unwrap();
    let bucket = store(objects.fork());
    let runtime = vfsd_testkit::runtime().handle();
    let report =
        Volume::check_remote(&bucket, "vol", &scratch, CheckLevel::Content, runtime).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

/// The seeds of a run, the usual ones from `first` on, each with what it is promised by.
fn seeds(first: u64) -> impl Iterator<Item = (u64, Durability)> {
    let first = number("VFSD_SEED", first);
    (first..first + number("VFSD_SEEDS", 4)).map(|seed| {
        println!("VFSD_SEED={seed}");
        let durability = [Durability::Bucket, Durability::Local];
        (seed, durability[usize::try_from(seed % 2).unwrap()])
    })
}

/// With room again all comes into the bucket, and from there to another host.
fn heals(scene: &Scene, work: &Work, when: &str) {
    assert!(is_synced(scene), "{when}: it heals");
    work.compare(&found_in(&scene.root()), "with room again");
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    work.compare(&found_in(&Place(elsewhere.root())), "on another host");
}

/// Works with room and without, and looks at what kills leave.
fn fill_and_go_on(seed: u64, durability: Durability) -> Option<u32> {
    let disk = Disk::mount()?;
    let scene = Scene::promising_at(durability, Some(disk.0.path().join("host")));
    let mut work = Work::new(seed);
    let mut failed = 0;
    for round in 0..4 {
        for _ in 0..25 {
            work.step(&scene.root());
        }
        assert_eq!(
            work.failed, 0,
            "VFSD_SEED={seed}, round {round}: there is room"
        );
        disk.fill();
        for _ in 0..60 {
            work.step(&scene.root());
        }
        work.compare(&found_in(&scene.root()), "without room");
        let left = scene.copy.make("full");
        let killed = scene.open_left(&left);
        work.compare(
            &found_in(&Place(killed.root())),
            "after a kill without room",
        );
        drop(killed);
        std::fs::remove_dir_all(&left.host).unwrap();
        disk.make_room();
        failed += std::mem::take(&mut work.failed);
        heals(&scene, &work, &format!("VFSD_SEED={seed}, round {round}"));
    }
    check(&scene, &scene.copy.objects);
    Some(failed)
}

#[test]
fn on_a_full_disk_changes_fail_nothing_acknowledged_is_lost_and_it_goes_on_with_room() {
    for (seed, durability) in seeds(99) {
        let Some(failed) = fill_and_go_on(seed, durability) else {
            return;
        };
        assert!(
            failed > 20,
            "VFSD_SEED={seed}: only {failed} operations failed"
        );
    }
}

/// Ends without room and starts again, without room where it can.
fn fill_and_start_again(seed: u64, durability: Durability) -> Option<()> {
    let disk = Disk::mount()?;
    let mut scene = Scene::promising_at(durability, Some(disk.0.path().join("host")));
    let mut work = Work::new(seed);
    for round in 0..4 {
        for _ in 0..25 {
            work.step(&scene.root());
        }
        disk.fill();
        for _ in 0..60 {
            work.step(&scene.root());
        }
        work.compare(&found_in(&scene.root()), "without room");
        scene = scene.restarted(|| disk.make_room());
        work.compare(&found_in(&scene.root()), "after a start");
        if disk.ballast().exists() {
            disk.make_room();
        }
        heals(&scene, &work, &format!("VFSD_SEED={seed}, round {round}"));
    }
    check(&scene, &scene.copy.objects);
    Some(())
}

#[test]
fn a_volume_that_ends_on_a_full_disk_starts_with_all_that_was_acknowledged() {
    for (seed, durability) in seeds(6368) {
        if fill_and_start_again(seed, durability).is_none() {
            return;
        }
    }
}
