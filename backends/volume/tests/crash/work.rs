//! Random operations that follow from a seed, and what a tree looks like after them.

use std::collections::BTreeMap;

use vfsd_backend::{FallocateMode, FileKind, OpenFlags, RenameFlags};
use vfsd_testkit::place::{Handle, Outcome, Place};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A path: one of a few directories, and one of a few names in it.
#[derive(Debug, Clone)]
struct Spot(Option<u64>, u64);

impl Spot {
    fn directory(&self, root: &Place) -> Outcome<Place> {
        match self.0 {
            None => Ok(root.clone()),
            Some(number) => root.lookup(&format!("d{number}")),
        }
    }

    fn name(&self) -> String {
        format!("n{}", self.1)
    }

    fn place(&self, root: &Place) -> Outcome<Place> {
        self.directory(root)?.lookup(&self.name())
    }

    fn handle(&self, root: &Place) -> Outcome<Handle> {
        self.place(root)?.open_both()
    }
}

/// One call that changes something, with those around it that do not.
#[derive(Debug, Clone)]
enum Step {
    Mkdir(u64),
    Rmdir(u64),
    Create(Spot),
    /// Leaves the file open, so that it may lose its name.
    Hold(Spot),
    Release,
    Write(Spot, u64, usize, u8),
    WriteHeld(u64, usize, u8),
    Truncate(Spot, u64),
    Punch(Spot, u64, u64),
    Copy(Spot, Spot),
    Unlink(Spot),
    Rename(Spot, Spot, RenameFlags),
    Link(Spot, Spot),
    Symlink(Spot),
    Chmod(Spot, u32),
    SetXattr(Spot, u64, usize),
    RemoveXattr(Spot, u64),
    Sync(Spot),
}

fn step(random: &mut Random) -> Step {
    let spot = |random: &mut Random| {
        let directory = random.below(4);
        Spot(directory.checked_sub(1), random.below(12))
    };
    let at = spot(random);
    let length = usize::try_from(random.below(9000)).unwrap();
    let fill = u8::try_from(random.below(256)).unwrap();
    match random.below(40) {
        0 | 1 => Step::Mkdir(random.below(3)),
        2 => Step::Rmdir(random.below(3)),
        3..=7 => Step::Create(at),
        8 | 9 => Step::Hold(at),
        10 => Step::Release,
        11..=16 => Step::Write(at, random.below(30_000), length, fill),
        17 | 18 => Step::WriteHeld(random.below(30_000), length, fill),
        19 | 20 => Step::Truncate(at, random.below(30_000)),
        21 => Step::Punch(at, random.below(20_000), random.below(20_000) + 1),
        22 => Step::Copy(at, spot(random)),
        23..=26 => Step::Unlink(at),
        27..=30 => {
            let flags = [
                RenameFlags::empty(),
                RenameFlags::empty(),
                RenameFlags::NOREPLACE,
                RenameFlags::EXCHANGE,
                RenameFlags::WHITEOUT,
            ];
            let flags = flags[usize::try_from(random.below(5)).unwrap()];
            Step::Rename(at, spot(random), flags)
        }
        31 | 32 => Step::Link(at, spot(random)),
        33 => Step::Symlink(at),
        34 | 35 => Step::Chmod(at, u32::try_from(random.below(0o1000)).unwrap()),
        36 | 37 => Step::SetXattr(at, random.below(4), length % 300),
        38 => Step::RemoveXattr(at, random.below(4)),
        _ => Step::Sync(at),
    }
}

/// A tree that is worked on.
pub(crate) struct Work {
    root: Place,
    random: Random,
    held: Vec<Handle>,
}

impl Work {
    pub(crate) fn new(root: Place, seed: u64) -> Self {
        Self {
            root,
            random: Random(seed),
            held: Vec::new(),
        }
    }

    /// Does the next operation. What is refused is refused, as it will be on another tree.
    pub(crate) fn step(&mut self) {
        let step = step(&mut self.random);
        let _ = self.take(step);
    }

    /// As [`step`](Self::step), and says whether everything is synced then.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn step_is_synced(&mut self) -> bool {
        let step = step(&mut self.random);
        let syncs = matches!(step, Step::Sync(_));
        self.take(step).is_ok() && syncs
    }

    /// Whether the next operation changes content, which a kill can leave half done.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn next_changes_content(&self) -> bool {
        let mut random = Random(self.random.0);
        matches!(
            step(&mut random),
            Step::Write(..) | Step::WriteHeld(..) | Step::Copy(..) | Step::Punch(..)
        )
    }

    fn take(&mut self, step: Step) -> Outcome<()> {
        let root = &self.root;
        match step {
            Step::Mkdir(number) => drop(root.mkdir(&format!("d{number}"))?),
            Step::Rmdir(number) => root.rmdir(&format!("d{number}"))?,
            Step::Create(at) => drop(at.directory(root)?.create(&at.name())?),
            Step::Hold(at) => {
                let handle = at.handle(root)?;
                self.held.push(handle);
            }
            Step::Release => drop(self.held.pop()),
            Step::Write(at, offset, length, fill) => {
                at.handle(root)?.write(offset, &vec![fill; length])?;
            }
            Step::WriteHeld(offset, length, fill) => {
                if let Some(held) = self.held.last() {
                    held.write(offset, &vec![fill; length])?;
                }
            }
            Step::Truncate(at, size) => drop(at.place(root)?.truncate(size)?),
            Step::Punch(at, offset, length) => {
                let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                at.handle(root)?.fallocate(mode, offset, length)?;
            }
            Step::Copy(from, to) => {
                let (from, to) = (from.handle(root)?, to.handle(root)?);
                from.copy_range(0, &to, 100, 20_000)?;
            }
            Step::Unlink(at) => at.directory(root)?.unlink(&at.name())?,
            Step::Rename(from, to, flags) => {
                let (old, new) = (from.directory(root)?, to.directory(root)?);
                old.rename_with(&from.name(), &new, &to.name(), flags)?;
            }
            Step::Link(from, to) => {
                let target = from.place(root)?;
                drop(to.directory(root)?.link(&target, &to.name())?);
            }
            Step::Symlink(at) => drop(at.directory(root)?.symlink(&at.name(), "somewhere")?),
            Step::Chmod(at, permissions) => drop(at.place(root)?.chmod(permissions)?),
            Step::SetXattr(at, number, length) => {
                let name = format!("user.x{number}");
                at.place(root)?.setxattr(&name, &vec![7; length])?;
            }
            Step::RemoveXattr(at, number) => {
                at.place(root)?.removexattr(&format!("user.x{number}"))?;
            }
            Step::Sync(at) => at.handle(root)?.fsync()?,
        }
        Ok(())
    }
}

/// What a file looks like to programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) attributes: String,
    pub(crate) content: Vec<u8>,
}

/// All paths, and what is there.
pub(crate) fn look(root: &Place) -> BTreeMap<String, Look> {
    let mut found = BTreeMap::new();
    look_into("", root, &mut found);
    found
}

fn look_into(path: &str, place: &Place, found: &mut BTreeMap<String, Look>) {
    let attributes = place.attributes().unwrap();
    let content = match attributes.kind {
        FileKind::Regular => place.open(OpenFlags::READ).unwrap().content().unwrap(),
        FileKind::Symlink => place.readlink().unwrap(),
        _ => Vec::new(),
    };
    let xattrs = place.xattrs("user.").unwrap_or_default();
    let told = format!(
        "{:?} {:o} links {} size {} xattrs {:?}",
        attributes.kind,
        attributes.permissions,
        attributes.links,
        content.len(),
        xattrs
    );
    if attributes.kind == FileKind::Regular {
        assert_eq!(
            usize::try_from(attributes.size),
            Ok(content.len()),
            "{path}"
        );
    }
    if attributes.kind == FileKind::Directory {
        for name in place.names().unwrap() {
            let entry = place.lookup(&name).unwrap();
            look_into(&format!("{path}/{name}"), &entry, found);
        }
    }
    let look = Look {
        attributes: told,
        content,
    };
    found.insert(path.to_owned(), look);
}
