//! Operations on a few files, at random from a seed, and what of them was acknowledged.

use std::collections::BTreeMap;

use object_store::memory::InMemory;
use vfsd_backend::{Backend, Errno, FallocateMode};
use vfsd_testkit::place::{Outcome, Place, wait};

use super::kills::{Random, number, store};
use super::scene::Scene;
use crate::bucket::CheckLevel;
use crate::{Durability, Volume};

/// What the largest file may have.
const MOST: u64 = 300_000;
const FILES: u64 = 10;
/// All that was acknowledged.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn found_in(root: &Place) -> Files {
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
pub(super) struct Work {
    random: Random,
    pub(super) files: Files,
    /// Operations that failed because there was no room.
    pub(super) failed: u32,
    seed: u64,
}

impl Work {
    pub(super) fn new(seed: u64) -> Self {
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
    pub(super) fn step(&mut self, root: &Place) {
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

    pub(super) fn compare(&self, found: &Files, what: &str) {
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

pub(super) fn is_synced(scene: &Scene) -> bool {
    (0..50).any(|_| wait(scene.volume.root().syncfs()).is_ok())
}

pub(super) fn check(scene: &Scene, objects: &InMemory) {
    let scratch = scene.fresh();
    std::fs::create_dir(&scratch).unwrap();
    let bucket = store(objects.fork());
    let runtime = vfsd_testkit::runtime().handle();
    let report =
        Volume::check_remote(&bucket, "vol", &scratch, CheckLevel::Content, runtime).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

/// The seeds of a run, the usual ones from `first` on, each with what it is promised by.
pub(super) fn seeds(first: u64) -> impl Iterator<Item = (u64, Durability)> {
    let first = number("VFSD_SEED", first);
    (first..first + number("VFSD_SEEDS", 4)).map(|seed| {
        println!("VFSD_SEED={seed}");
        let durability = [Durability::Bucket, Durability::Local];
        (seed, durability[usize::try_from(seed % 2).unwrap()])
    })
}

/// With room again all comes into the bucket, and from there to another host.
pub(super) fn heals(scene: &Scene, work: &Work, when: &str) {
    assert!(is_synced(scene), "{when}: it heals");
    work.compare(&found_in(&scene.root()), "with room again");
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    work.compare(&found_in(&Place(elsewhere.root())), "on another host");
}
