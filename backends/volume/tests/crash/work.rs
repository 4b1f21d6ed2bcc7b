//! Random operations that follow from a seed, and what a tree looks like after them.

use std::collections::BTreeMap;

use vfsd_backend::{Errno, FallocateMode, FileKind, OpenFlags, RenameFlags};
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
    Read(Spot, u64, usize),
    Allocate(Spot, FallocateMode, u64, u64),
    Copy(Spot, u64, Spot, u64, u64),
    Unlink(Spot),
    Rename(Spot, Spot, RenameFlags),
    Link(Spot, Spot),
    Symlink(Spot),
    Chmod(Spot, u32),
    SetXattr(Spot, u64, usize),
    RemoveXattr(Spot, u64),
    Sync(Spot),
}

fn step(random: &mut Random, (directories, names): (u64, u64)) -> Step {
    let spot = |random: &mut Random| {
        let directory = random.below(directories);
        Spot(directory.checked_sub(1), random.below(names))
    };
    let at = spot(random);
    let length = usize::try_from(random.below(9000)).unwrap();
    let fill = u8::try_from(random.below(256)).unwrap();
    let offset = offset(random);
    let crowded = names < 12;
    let kind = match random.below(48) {
        // Fewer names go, more happens to content.
        24..=26 if crowded => 11,
        33..=35 if crowded => 3,
        36..=38 if crowded => 40,
        39 if crowded => 42,
        kind => kind,
    };
    match kind {
        0 | 1 => Step::Mkdir(random.below(directories)),
        2 => Step::Rmdir(random.below(directories)),
        3..=7 => Step::Create(at),
        8 | 9 => Step::Hold(at),
        10 => Step::Release,
        11..=16 => Step::Write(at, offset, length, fill),
        17 | 18 => Step::WriteHeld(offset, length, fill),
        19 | 20 => Step::Truncate(at, offset),
        21 | 40 | 41 => allocation(random, at, offset),
        22 | 42 => {
            let to = spot(random);
            Step::Copy(at, offset, to, self::offset(random), random.below(20_000))
        }
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
        43..=46 => Step::Read(at, offset, length),
        _ => Step::Sync(at),
    }
}

/// Often near the edge of a block.
fn offset(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => random.below(30_000),
        1 => random.below(8) * 4096,
        _ => (random.below(8) * 4096 + random.below(5)).saturating_sub(2),
    }
}

fn allocation(random: &mut Random, at: Spot, offset: u64) -> Step {
    let length = random.below(20_000) + 1;
    let blocks = |bytes: u64| bytes / 4096 * 4096;
    let keep = FallocateMode::KEEP_SIZE;
    match random.below(10) {
        0..=3 => Step::Allocate(at, FallocateMode::PUNCH_HOLE | keep, offset, length),
        4 => Step::Allocate(at, FallocateMode::ZERO_RANGE, offset, length),
        5 => Step::Allocate(at, FallocateMode::ZERO_RANGE | keep, offset, length),
        6 => Step::Allocate(at, FallocateMode::empty(), offset, length),
        kind => {
            let mode = match kind {
                7 => FallocateMode::INSERT_RANGE,
                _ => FallocateMode::COLLAPSE_RANGE,
            };
            Step::Allocate(at, mode, blocks(offset) / 2, 4096 + blocks(length) / 2)
        }
    }
}

/// A tree that is worked on.
pub(crate) struct Work {
    root: Place,
    random: Random,
    /// How many directories there are, and names in each.
    spots: (u64, u64),
    held: Vec<Handle>,
}

impl Work {
    pub(crate) fn new(root: Place, seed: u64) -> Self {
        Self {
            root,
            random: Random(seed),
            spots: (4, 12),
            held: Vec::new(),
        }
    }

    /// With few files, to which more happens.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn crowded(root: Place, seed: u64) -> Self {
        Self {
            spots: (2, 4),
            ..Self::new(root, seed)
        }
    }

    fn peek(&self) -> Step {
        step(&mut Random(self.random.0), self.spots)
    }

    /// As [`step`](Self::step), and says whether the host's file system knows of such an operation.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn step_is_known(&mut self) -> bool {
        let step = step(&mut self.random, self.spots);
        self.take(step) != Err(Errno::OPNOTSUPP)
    }

    /// Does the next operation, or leaves it out.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn step_if(&mut self, known: bool) {
        let step = step(&mut self.random, self.spots);
        if known {
            let _ = self.take(step);
        }
    }

    #[allow(dead_code, reason = "one of the tests asks for more")]
    /// Does the next operation. What is refused is refused, as it will be on another tree.
    pub(crate) fn step(&mut self) {
        let step = step(&mut self.random, self.spots);
        let _ = self.take(step);
    }

    /// As [`step`](Self::step), and says whether everything is synced then.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn step_is_synced(&mut self) -> bool {
        let step = step(&mut self.random, self.spots);
        let syncs = matches!(step, Step::Sync(_));
        self.take(step).is_ok() && syncs
    }

    /// Whether the next operation changes content, which a kill can leave half done.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn next_changes_content(&self) -> bool {
        matches!(
            self.peek(),
            Step::Write(..) | Step::WriteHeld(..) | Step::Copy(..) | Step::Allocate(..)
        )
    }

    /// What the next operation is.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn next(&self) -> String {
        format!("{:?}", self.peek())
    }

    /// Whether the next operation waits until everything is synced.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn next_syncs(&self) -> bool {
        matches!(self.peek(), Step::Sync(_))
    }

    /// The process that has files open ends, and the work goes on in another tree.
    #[allow(dead_code, reason = "one of the tests asks")]
    pub(crate) fn go_on_in(&mut self, root: Place) {
        self.held.clear();
        self.root = root;
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
            Step::Read(at, offset, length) => drop(at.handle(root)?.read(offset, length)?),
            Step::Allocate(at, mode, offset, length) => {
                at.handle(root)?.fallocate(mode, offset, length)?;
            }
            Step::Copy(from, offset, to, to_offset, length) => {
                let (from, to) = (from.handle(root)?, to.handle(root)?);
                from.copy_range(offset, &to, to_offset, length)?;
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
