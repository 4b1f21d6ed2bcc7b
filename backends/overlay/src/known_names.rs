//! Names that a layer's directory has, in memory: one that it does not have then costs no call. The host's kernel
//! seldom knows of such a name without a disk, and each lookup in a merged directory asks for it before it asks the
//! next layer.
//!
//! Only that a name is missing is concluded from it; what may be there is looked up. So hashes are enough, and a name
//! that goes may stay. What comes must be noted before it is there: the upper is this overlay's alone, the lower layers
//! never change.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use vfsd_backend::{DirEntry, DirSink, Name, Node, Result};

use crate::listing_budget::{ListingBudget, Share};

/// Entries of a directory that are listed the first time, at most.
const FIRST: u32 = 256;
/// Names that may come before it is listed anew, because others may have gone.
const COMING: u32 = 1024;

/// What the names of all directories have in common.
pub(crate) struct NamesMemory {
    budget: Arc<ListingBudget>,
    /// Keyed at random: which names share a hash is not for the guest to choose.
    hasher: RandomState,
}

/// What a lookup has cost that might have been spared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cost {
    /// A call, which was answered at once: there is no such name.
    Miss,
    /// It has to be waited for.
    Wait,
}

impl Cost {
    /// Entries that cost about as much, when they are listed.
    fn entries(self) -> u32 {
        match self {
            Self::Miss => 32,
            Self::Wait => 64,
        }
    }
}

/// The hash of a name that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameHash(u64);

impl NamesMemory {
    /// With room for so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            budget: ListingBudget::new(most),
            hasher: RandomState::new(),
        }
    }

    /// The hash of a name that is asked for. `None` for one that a file system may find though it does not list it so:
    /// an alias of another name (`LONGNA~1`, `name.`), a hidden directory (`.zfs`).
    pub(crate) fn of_asked(&self, name: Name<'_>) -> Option<NameHash> {
        let name = name.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"~:\\".contains(byte);
        let plain = name.iter().all(is_plain) && !name.starts_with(b".") && !name.ends_with(b".");
        plain.then(|| self.folded(name))
    }

    /// The hash of a name that is there. `None` for one that may be found by ASCII names in a way that is not known
    /// here: some file systems fold or compose characters.
    fn of_listed(&self, name: &[u8]) -> Option<NameHash> {
        name.is_ascii().then(|| self.folded(name))
    }

    /// Upper and lower case are one: to some file systems, or directories, they are.
    fn folded(&self, name: &[u8]) -> NameHash {
        let mut hasher = self.hasher.build_hasher();
        let mut piece = [0; 32];
        for part in name.chunks(piece.len()) {
            for (to, from) in piece.iter_mut().zip(part) {
                *to = from.to_ascii_lowercase();
            }
            hasher.write(piece.get(..part.len()).unwrap_or_default());
        }
        NameHash(hasher.finish())
    }
}

/// Names that one directory of a layer has.
#[derive(Default)]
pub(crate) struct KnownNames {
    state: Mutex<State>,
    /// Held while it is listed for this.
    listing: tokio::sync::Mutex<()>,
}

enum State {
    Unknown(Patience),
    Known(Names),
    /// It has names of which too little is known.
    Unknowable,
}

impl Default for State {
    fn default() -> Self {
        Self::Unknown(Patience {
            entries: FIRST.saturating_sub(Cost::Wait.entries()),
            least: FIRST,
        })
    }
}

/// How much may be spent on a listing.
struct Patience {
    /// Entries that the lookups so far are worth.
    entries: u32,
    /// A listing of fewer is not begun: so many were not all.
    least: u32,
}

struct Names {
    hashes: HashSet<u64, BuildHasherDefault<AsItIs>>,
    /// Names that may still come.
    coming: u32,
    room: Option<Share>,
}

/// Takes hashes for what they are.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Names {
    fn new() -> Self {
        Self {
            hashes: HashSet::default(),
            coming: 0,
            room: None,
        }
    }

    /// Whether there was room.
    fn insert(&mut self, hash: NameHash, budget: &Arc<ListingBudget>) -> bool {
        let before = self.hashes.capacity();
        self.hashes.insert(hash.0);
        let capacity = self.hashes.capacity();
        if capacity == before {
            return true;
        }
        // A hash, a byte beside it, and what is left free.
        let bytes = capacity.saturating_mul(size_of::<u64>().saturating_add(2));
        drop(self.room.take());
        self.room = budget.take_within(bytes);
        self.room.is_some()
    }

    fn listed(mut self) -> State {
        let count = u32::try_from(self.hashes.len()).unwrap_or(u32::MAX);
        self.coming = count.max(COMING);
        State::Known(self)
    }
}

/// Takes names until they are too many.
struct Collect<'m> {
    memory: &'m NamesMemory,
    names: Names,
    left: u32,
    last: u64,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    All,
    TooMany,
    Unknowable,
}

impl Collect<'_> {
    fn take(&mut self, name: &[u8]) -> Outcome {
        let Some(hash) = self.memory.of_listed(name) else {
            return Outcome::Unknowable;
        };
        let Some(left) = self.left.checked_sub(1) else {
            return Outcome::TooMany;
        };
        self.left = left;
        match self.names.insert(hash, &self.memory.budget) {
            true => Outcome::All,
            false => Outcome::TooMany,
        }
    }
}

impl DirSink for Collect<'_> {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        self.last = entry.next;
        if matches!(entry.name, b"." | b"..") {
            return ControlFlow::Continue(());
        }
        self.outcome = self.take(entry.name);
        match self.outcome {
            Outcome::All => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

impl KnownNames {
    /// Those of a directory that was just made.
    pub(crate) fn none() -> Self {
        Self {
            state: Mutex::new(Names::new().listed()),
            ..Self::default()
        }
    }

    /// Whether the directory surely lacks a name.
    pub(crate) fn lacks(&self, name: NameHash) -> bool {
        match &*self.state.lock() {
            State::Known(names) => !names.hashes.contains(&name.0),
            _ => false,
        }
    }

    /// Whether a lookup in vain is worth to be told.
    pub(crate) fn may_learn(&self) -> bool {
        matches!(&*self.state.lock(), State::Unknown(_))
    }

    /// Notes that the directory gets a name, before it has it.
    pub(crate) fn gains(&self, name: Name<'_>, memory: &NamesMemory) {
        let mut state = self.state.lock();
        let State::Known(names) = &mut *state else {
            return;
        };
        let Some(hash) = memory.of_listed(name.as_bytes()) else {
            *state = State::Unknowable;
            return;
        };
        let coming = names.coming.checked_sub(1);
        names.coming = coming.unwrap_or(0);
        if coming.is_none() || !names.insert(hash, &memory.budget) {
            let count = u32::try_from(names.hashes.len()).unwrap_or(u32::MAX);
            *state = State::Unknown(Patience {
                entries: count.saturating_add(FIRST),
                least: 0,
            });
        }
    }

    /// Lists the directory, if the lookups so far, of which one has just cost so much, are worth it. The names must not
    /// change meanwhile.
    pub(crate) async fn learn(&self, directory: &Arc<dyn Node>, cost: Cost, memory: &NamesMemory) {
        let Ok(_listing) = self.listing.try_lock() else {
            return;
        };
        let most = match &mut *self.state.lock() {
            State::Unknown(patience) => {
                patience.entries = patience.entries.saturating_add(cost.entries());
                if patience.entries < patience.least {
                    return;
                }
                patience.entries
            }
            _ => return,
        };
        let mut all = Collect {
            memory,
            names: Names::new(),
            left: most,
            last: 0,
            outcome: Outcome::All,
        };
        let listed = read(directory, &mut all).await;
        *self.state.lock() = match (listed, all.outcome) {
            (Ok(()), Outcome::All) => all.names.listed(),
            (_, Outcome::Unknowable) => State::Unknowable,
            // There may be more room, or a right to read it, later.
            (Err(_), _) | (_, Outcome::TooMany) => State::Unknown(Patience {
                entries: most,
                least: most.saturating_mul(4),
            }),
        };
    }

    /// Takes note of all names of the directory, which was listed for another reason. They must not have changed since.
    pub(crate) fn are<'a>(&self, names: impl Iterator<Item = &'a [u8]>, memory: &NamesMemory) {
        let mut state = self.state.lock();
        if !matches!(*state, State::Unknown(_)) {
            return;
        }
        let mut all = Names::new();
        for name in names {
            match memory.of_listed(name) {
                Some(hash) if all.insert(hash, &memory.budget) => {}
                _ => return,
            }
        }
        *state = all.listed();
    }
}

/// Reads a directory to its end, or until the names are too many.
async fn read(directory: &Arc<dyn Node>, all: &mut Collect<'_>) -> Result<()> {
    let open = directory.opendir().await?;
    loop {
        let from = all.last;
        open.read(from, all).await?;
        if all.last == from || all.outcome != Outcome::All {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_backend::Backend;
    use vfsd_memory::{Memory, Settings};
    use vfsd_testkit::block_on;
    use vfsd_testkit::place::Place;

    fn name(name: &str) -> Name<'_> {
        Name::new(name.as_bytes()).unwrap()
    }

    fn directory(names: impl Iterator<Item = String>) -> Place {
        let root = Place(Memory::new(Settings::default()).unwrap().root());
        for name in names {
            root.put(&name, b"").unwrap();
        }
        root
    }

    fn lacks(known: &KnownNames, memory: &NamesMemory, asked: &str) -> bool {
        memory
            .of_asked(name(asked))
            .is_some_and(|asked| known.lacks(asked))
    }

    #[test]
    fn a_long_directory_is_listed_once_enough_was_waited_for() {
        let memory = NamesMemory::new(1 << 20);
        for (cost, count, most) in [
            (Cost::Wait, 0, 1),
            (Cost::Wait, FIRST, 1),
            (Cost::Wait, FIRST + 1, 13),
            (Cost::Wait, 10_000, 260),
            (Cost::Miss, FIRST, 2),
            (Cost::Miss, 10_000, 520),
        ] {
            let dir = directory((0..count).map(|number| format!("name-{number}")));
            let known = KnownNames::default();
            let mut waits = 0;
            while !lacks(&known, &memory, "other") {
                block_on(known.learn(&dir.0, cost, &memory));
                waits += 1;
                assert!(waits <= most, "{count} names");
            }
            assert!(count <= FIRST + waits * cost.entries());
            assert!((0..count).all(|number| !lacks(&known, &memory, &format!("name-{number}"))));
        }
    }

    #[test]
    fn a_name_that_comes_is_never_missing_however_many_came_and_went() {
        let memory = NamesMemory::new(1 << 16);
        let dir = directory(std::iter::empty());
        let known = KnownNames::none();
        let mut learned = 0;
        for number in 0..20_000_u32 {
            let made = format!("name-{number}");
            known.gains(name(&made), &memory);
            assert!(!lacks(&known, &memory, &made));
            dir.put(&made, b"").unwrap();
            if number % 3 != 0 {
                dir.unlink(&made).unwrap();
            }
            if !lacks(&known, &memory, "other") {
                block_on(known.learn(&dir.0, Cost::Wait, &memory));
                learned += 1;
            }
            let earlier = format!("name-{}", number / 7 * 3);
            assert!(!lacks(&known, &memory, &earlier));
        }
        assert!(learned > 3);
        // It outgrew the room.
        assert!(memory.budget.take_within(1 << 15).is_some());
    }

    #[test]
    fn what_a_file_system_may_find_under_another_name_is_always_asked_for() {
        let memory = NamesMemory::new(1 << 20);
        let known = KnownNames::none();
        known.gains(name("Name"), &memory);
        for maybe in [
            "Name", "nAME", "NAME~1", "other.", ".zfs", "a:b", "\u{e9}", "a b",
        ] {
            assert!(!lacks(&known, &memory, maybe), "{maybe}");
        }
        assert!(lacks(&known, &memory, "other.txt"));
        // An ASCII name may find it, composed or folded.
        known.gains(name("\u{212a}ey"), &memory);
        assert!(!lacks(&known, &memory, "key") && !lacks(&known, &memory, "other.txt"));
        let dir = directory(["\u{212a}ey".to_owned()].into_iter());
        let known = KnownNames::default();
        for _ in 0..3 {
            block_on(known.learn(&dir.0, Cost::Wait, &memory));
            assert!(!lacks(&known, &memory, "other.txt"));
        }
    }

    #[test]
    fn names_that_have_no_room_are_not_known_until_others_are_forgotten() {
        let memory = NamesMemory::new(1 << 10);
        let dir = directory((0..50).map(|number| format!("name-{number}")));
        let (first, second) = (KnownNames::default(), KnownNames::default());
        block_on(first.learn(&dir.0, Cost::Wait, &memory));
        assert!(lacks(&first, &memory, "other"));
        let listed = [b"one".as_slice()];
        for _ in 0..3 {
            block_on(second.learn(&dir.0, Cost::Wait, &memory));
            assert!(!lacks(&second, &memory, "other"));
        }
        drop(first);
        second.are(listed.into_iter(), &memory);
        assert!(lacks(&second, &memory, "other") && !lacks(&second, &memory, "one"));
    }
}
