//! A daemon that is killed at any named place, or between two operations, thousands of times, without a process.
//!
//! `VFSD_SEED` says where it begins, `VFSD_SEEDS` how many seeds there are, `VFSD_STEPS` how many operations each has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use object_store::memory::InMemory;
use tempfile::TempDir;
use vfsd_backend::Backend;
use vfsd_memory::{Memory, Settings};
use vfsd_object_store::{RetryPolicy, Store};
use vfsd_testkit::place::Place;

use super::kill::{Control, Copy, Left};
use crate::bucket::CheckLevel;
use crate::failpoint::with_hook;
use crate::live::extents::live_bytes;
use crate::{Bucket, RemoteOptions, Volume, VolumeKey, VolumeOptions};

#[path = "../../../tests/crash/work.rs"]
mod work;

use work::{Look, Work, look};

const PREFIX: &str = "vol";
/// Where a shipper may stand still.
const STANDS: [&str; 7] = [
    "cut made",
    "some content read",
    "all content read",
    "segments in the bucket",
    "in the bucket",
    "shipped image forward",
    "content no longer dirty",
];

type Tree = BTreeMap<String, Look>;

pub(super) fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(super) fn store(objects: InMemory) -> Store {
    let policy = RetryPolicy::new(Duration::from_secs(5), Duration::from_secs(2));
    Store::over(Arc::new(objects), policy)
}

pub(super) fn make_volume(objects: &InMemory) {
    make_volume_in(&Bucket::from(&store(objects.clone())));
}

fn make_volume_in(bucket: &Bucket) {
    let made = VolumeOptions::default();
    vfsd_testkit::block_on(Volume::create_remote(bucket, PREFIX, &made)).unwrap();
}

/// Every other volume is encrypted.
fn bucket(objects: &InMemory, seed: u64) -> Bucket {
    let key = VolumeKey::from([u8::try_from(seed % 256).unwrap(); 32]);
    let key = Some(key).filter(|_| seed % 2 == 1);
    Bucket::new(store(objects.clone()), key)
}

fn options(random: &mut Random) -> RemoteOptions {
    RemoteOptions {
        lag: Duration::from_secs(3600),
        takeover: true,
        checkpoint_after: [3_000, 1 << 20][usize::try_from(random.below(2)).unwrap()],
        cache_size: [None, Some(1), Some(100_000)][usize::try_from(random.below(3)).unwrap()],
        ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
    }
}

fn open(objects: &InMemory, seed: u64, host: &Path, options: &RemoteOptions) -> Volume {
    Volume::open_remote(bucket(objects, seed), PREFIX, host, options).unwrap()
}

fn root(volume: &Volume) -> Place {
    Place(volume.root())
}

/// An operation that was done.
#[derive(Clone, Copy)]
struct Done {
    /// Or it was left out.
    known: bool,
    /// The daemon was killed after it.
    killed: bool,
}

fn memory() -> Place {
    Place(Memory::new(Settings::default()).unwrap().root())
}

/// A volume that is worked on, and what it should be.
struct Model {
    dir: TempDir,
    copies: Arc<AtomicU64>,
    hosts: u64,
    random: Random,
    options: RemoteOptions,
    control: Arc<Control>,
    host: PathBuf,
    objects: Arc<InMemory>,
    volume: Option<Volume>,
    work: Work,
    oracle: Place,
    expected: Work,
    /// The state of the last round that is in the bucket.
    shipped: Tree,
    /// That of a round that is not over.
    on_its_way: Option<Tree>,
    now: Tree,
    kills: u64,
    reached: BTreeMap<&'static str, u64>,
    /// All operations so far.
    history: Vec<Done>,
    seed: u64,
    told: String,
}

impl Drop for Model {
    fn drop(&mut self) {
        self.control.let_go();
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        let objects = Arc::new(InMemory::new());
        make_volume_in(&bucket(&objects, seed));
        let mut random = Random(!seed);
        let oracle = memory();
        let now = look(&oracle);
        let mut model = Self {
            dir: tempfile::tempdir_in(scratch()).unwrap(),
            copies: Arc::default(),
            hosts: 0,
            options: options(&mut random),
            random,
            control: Arc::default(),
            host: PathBuf::new(),
            objects,
            volume: None,
            work: Work::crowded(memory(), seed),
            expected: Work::crowded(oracle.clone(), seed),
            oracle,
            shipped: now.clone(),
            on_its_way: None,
            now,
            kills: 0,
            reached: BTreeMap::new(),
            history: Vec::new(),
            seed,
            told: String::new(),
        };
        model.host = model.fresh();
        model.start();
        model
    }

    fn fresh(&mut self) -> PathBuf {
        self.hosts += 1;
        self.dir.path().join(format!("host-{}", self.hosts))
    }

    fn start(&mut self) {
        self.control = Arc::default();
        self.control.state.lock().copy = Some(Copy {
            host: self.host.clone(),
            objects: self.objects.clone(),
            scratch: self.dir.path().to_owned(),
            made: self.copies.clone(),
        });
        if self.random.below(2) == 0 {
            self.arm(8);
        }
        let volume = with_hook(self.control.hook(), || {
            open(&self.objects, self.seed, &self.host, &self.options)
        });
        self.control.wait();
        self.work.go_on_in(root(&volume));
        self.volume = Some(volume);
    }

    /// Ends a volume that is of no interest any more.
    fn abandon(&mut self) {
        for (place, count) in std::mem::take(&mut self.control.state.lock().reached) {
            *self.reached.entry(place).or_default() += count;
        }
        self.control.let_go();
        self.work.go_on_in(self.oracle.clone());
        self.volume = None;
        std::fs::remove_dir_all(&self.host).unwrap();
    }

    fn hurry(&self) {
        if let Some(live) = &self.volume.as_ref().unwrap().core().live {
            live.rounds.hurry();
        }
    }

    /// Lets the shipper work.
    fn ship(&mut self) {
        let stop_at = match self.random.below(3) {
            0 => None,
            _ => {
                let place = self.random.below(STANDS.len() as u64);
                Some(STANDS[usize::try_from(place).unwrap()])
            }
        };
        match self.on_its_way.is_some() {
            true => self.control.go_on(stop_at),
            false => {
                self.on_its_way = Some(self.now.clone());
                if self.random.below(3) == 0 {
                    self.move_content();
                }
                self.control.begin(stop_at);
                self.hurry();
            }
        }
        self.come_to_a_stand();
    }

    /// After the next round all content that the bucket has is moved into other objects.
    fn move_content(&self) {
        let objects = live_bytes(&self.host.join("shipped.sqlite")).unwrap();
        if let Some(live) = &self.volume.as_ref().unwrap().core().live {
            live.sparse.lock().extend(objects.into_keys());
        }
    }

    fn come_to_a_stand(&mut self) {
        let at = self.control.wait();
        if matches!(at, "idle" | "round due")
            && let Some(tree) = self.on_its_way.take()
        {
            self.shipped = tree;
        }
    }

    fn step(&mut self) {
        if self.random.below(5) == 0 {
            self.arm(12);
            let before = self.in_bucket();
            self.told = format!("a round, {}", self.on_its_way.is_some());
            self.ship();
            self.verify(before, None);
        }
        let syncs = self.work.next_syncs();
        if syncs && self.on_its_way.is_some() {
            self.control.go_on(None);
            self.come_to_a_stand();
        }
        let (before, bucket) = (self.now.clone(), self.in_bucket());
        let next = self.work.next();
        if self.random.below(2) == 0 {
            self.arm(5);
        }
        if syncs {
            self.on_its_way = Some(self.now.clone());
            self.control.begin(None);
        }
        let known = self.work.step_is_known();
        self.expected.step_if(known);
        self.history.push(Done {
            known,
            killed: false,
        });
        self.now = look(&self.oracle);
        if syncs {
            let mut state = self.control.state.lock();
            if state.rounds > 0 {
                // There was nothing to be synced.
                state.rounds = 0;
                state.at.get_or_insert("idle");
                self.on_its_way = None;
            }
            drop(state);
            self.come_to_a_stand();
        }
        self.told = next;
        self.verify(bucket, Some(&before));
        match self.random.below(40) {
            0 => self.look_at_all(),
            1..=3 => {
                let copy = self.control.state.lock().copy.clone().unwrap();
                let left = copy.make("between operations");
                self.look_at(left, &self.in_bucket(), None);
            }
            _ => {}
        }
    }

    fn arm(&mut self, most: u64) {
        let after = self.random.below(most);
        self.control.state.lock().after = Some(after);
    }

    /// Looks at what kills during an operation would have left.
    fn verify(&mut self, mut bucket: Vec<Tree>, before: Option<&Tree>) {
        bucket.extend(self.in_bucket());
        let left = {
            let mut state = self.control.state.lock();
            state.after = None;
            std::mem::take(&mut state.left)
        };
        for left in left {
            self.look_at(left, &bucket, before);
        }
    }

    fn look_at_all(&self) {
        let found = look(&root(self.volume.as_ref().unwrap()));
        self.compare(&found, &[&self.now], "without a kill");
    }

    fn compare(&self, found: &Tree, expected: &[&Tree], what: &str) {
        if expected.contains(&found) {
            return;
        }
        let mut told = String::new();
        for tree in expected {
            for path in found.keys().chain(tree.keys()) {
                let (is, was) = (found.get(path), tree.get(path));
                if is != was {
                    let differs = is.zip(was).and_then(|(is, was)| {
                        let mut pairs = is.content.iter().zip(&was.content);
                        pairs.position(|(is, was)| is != was)
                    });
                    told += &format!(
                        "\n  {path}: {:?} instead of {:?}, differs at {differs:?}",
                        is.map(|look| &look.attributes),
                        was.map(|look| &look.attributes)
                    );
                }
            }
            told += "\n or";
        }
        self.fail(&format!("{what}: {told}"));
    }

    fn fail(&self, what: &str) -> ! {
        let Self { seed, told, .. } = self;
        let step = self.history.len();
        panic!("VFSD_SEED={seed}, operation {step}, {told}: {what}");
    }

    /// What the bucket alone says.
    fn elsewhere(&mut self, objects: &InMemory) -> Tree {
        let host = self.fresh();
        let options = self.options.clone();
        let volume = open(&objects.fork(), self.seed, &host, &options);
        let found = look(&root(&volume));
        drop(volume);
        std::fs::remove_dir_all(&host).unwrap();
        found
    }

    /// What the bucket may have.
    fn in_bucket(&self) -> Vec<Tree> {
        let shipped = std::iter::once(self.shipped.clone());
        shipped.chain(self.on_its_way.clone()).collect()
    }

    fn look_at(&mut self, left: Left, bucket: &[Tree], before: Option<&Tree>) {
        if self.random.below(6) == 0 {
            return self.go_on_from(left, bucket, before);
        }
        self.kills += 1;
        let Left {
            place,
            host,
            objects,
        } = left;
        if self.random.below(3) == 0 {
            let found = self.elsewhere(&objects);
            let bucket: Vec<&Tree> = bucket.iter().collect();
            self.compare(&found, &bucket, &format!("bucket, {place}"));
        }
        let options = self.options.clone();
        let volume = open(&objects, self.seed, &host, &options);
        let found = look(&root(&volume));
        let expected: Vec<&Tree> = before.into_iter().chain([&self.now]).collect();
        self.compare(&found, &expected, &format!("same host, {place}"));
        drop(volume);
        let then = self.elsewhere(&objects);
        self.compare(&then, &[&found], &format!("shipped later, {place}"));
        if self.random.below(3) == 0 {
            self.check(&objects);
        }
        std::fs::remove_dir_all(&host).unwrap();
    }

    fn check(&mut self, objects: &InMemory) {
        let scratch = self.fresh();
        std::fs::create_dir(&scratch).unwrap();
        let runtime = vfsd_testkit::runtime().handle();
        let bucket = bucket(objects, self.seed);
        let report =
            Volume::check_remote(&bucket, PREFIX, &scratch, CheckLevel::Content, runtime).unwrap();
        if !report.is_clean() {
            self.fail(&format!("{report:#?}"));
        }
        std::fs::remove_dir_all(&scratch).unwrap();
    }

    /// The daemon is killed, and another one goes on.
    fn go_on_from(&mut self, left: Left, bucket: &[Tree], before: Option<&Tree>) {
        self.kills += 1;
        let place = left.place;
        let found = self.elsewhere(&left.objects);
        let bucket: Vec<&Tree> = bucket.iter().collect();
        self.compare(&found, &bucket, &format!("bucket, then a start, {place}"));
        self.abandon();
        self.host = self.fresh();
        std::fs::rename(&left.host, &self.host).unwrap();
        self.objects = Arc::new(left.objects);
        (self.shipped, self.on_its_way) = (found, None);
        self.options = options(&mut self.random);
        self.expected.go_on_in(self.oracle.clone());
        if let Some(last) = self.history.last_mut() {
            last.killed = true;
        }
        self.start();
        let found = look(&root(self.volume.as_ref().unwrap()));
        if before == Some(&found) {
            self.undo();
        }
        self.compare(&found, &[&self.now], &format!("the next, {place}"));
        let bucket = self.in_bucket();
        self.verify(bucket, None);
    }

    /// The last operation was not done.
    fn undo(&mut self) {
        if let Some(last) = self.history.last_mut() {
            last.known = false;
        }
        self.oracle = memory();
        self.expected = Work::crowded(self.oracle.clone(), self.seed);
        for done in &self.history {
            self.expected.step_if(done.known);
            if done.killed {
                self.expected.go_on_in(self.oracle.clone());
            }
        }
        self.now = look(&self.oracle);
    }
}

/// Where local directories are.
pub(super) fn scratch() -> PathBuf {
    let told = std::env::var_os("VFSD_SCRATCH").map(PathBuf::from);
    // Everything is synced all the time.
    let memory = Some(PathBuf::from("/dev/shm")).filter(|path| path.exists());
    told.or(memory).unwrap_or_else(|| "/var/tmp".into())
}

#[test]
fn a_kill_at_any_place_loses_nothing_that_was_acknowledged() {
    let first = number("VFSD_SEED", 1);
    let mut kills = 0;
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + number("VFSD_SEEDS", 3) {
        println!("VFSD_SEED={seed}");
        let mut model = Model::new(seed);
        for _ in 0..number("VFSD_STEPS", 80) {
            model.step();
        }
        model.abandon();
        kills += model.kills;
        for (place, count) in &model.reached {
            *reached.entry(place).or_default() += count;
        }
    }
    println!("{kills} kills, {reached:#?}");
}
