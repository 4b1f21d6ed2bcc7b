//! A volume that is ended while something fails, at each step of that: what was acknowledged is there after the next start, what
//! the bucket has is a state in between, and nothing in it is damaged.
//!
//! `VFSD_SEED` says where it begins, `VFSD_SEEDS` how many seeds there are.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::memory::InMemory;
use vfsd_backend::Backend;
use vfsd_object_store::store::{Fault, FaultStore};
use vfsd_testkit::place::Place;

use super::disk::{Disk, fill};
use super::files::{Files, Work, check, found_in, heals, is_synced, seeds};
use super::scene::Scene;
use crate::Durability;

/// The steps of an end, one after the other.
const STEPS: [&str; 9] = [
    "cut made",
    "some content read",
    "all content read",
    "segments in the bucket",
    "in the bucket",
    "shipped image forward",
    "content no longer dirty",
    "everything in the bucket",
    "given back",
];
const OPERATIONS: usize = 12;

/// What happens from a step on.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// No request to the bucket is applied.
    Outage,
    /// One is, but its reply is lost; those that follow are not.
    LostReply,
    /// The disk of the local directory has no room.
    FullDisk,
}

impl Trouble {
    fn begin(self, faults: &FaultStore, ballast: &std::path::Path) {
        match self {
            Self::Outage => faults.outage(true),
            // More than are sent until it is given up.
            Self::LostReply => {
                faults.next(std::iter::once(Fault::LostReply).chain(vec![Fault::Unavailable; 1000]))
            }
            Self::FullDisk => fill(ballast),
        }
    }
}

/// A volume that was worked on, partly synced.
struct Run {
    scene: Scene,
    work: Work,
    /// From the last that was synced on.
    states: Vec<Files>,
    what: String,
}

impl Run {
    fn new(seed: u64, durability: Durability, host: Option<PathBuf>, what: String) -> Self {
        let scene = Scene::made(host, |options| {
            options.durability = durability;
            // A checkpoint is under way, too.
            options.checkpoint_after = 1;
        });
        let mut work = Work::new(seed);
        for _ in 0..OPERATIONS {
            work.step(&scene.root());
        }
        assert!(is_synced(&scene), "{what}");
        let mut states = vec![work.files.clone()];
        for _ in 0..OPERATIONS {
            work.step(&scene.root());
            states.push(work.files.clone());
        }
        Self {
            scene,
            work,
            states,
            what,
        }
    }

    /// What the bucket has is whole, and what the volume was at some time since it was synced.
    fn verify_bucket(scene: &Scene, states: &[Files], bucket: &InMemory, what: &str) {
        check(scene, bucket);
        let elsewhere = scene.elsewhere(bucket);
        let found = found_in(&Place(elsewhere.root()));
        assert!(states.contains(&found), "{what}: on another host");
    }
}

fn end_in_trouble(run: Run, at: &'static str, trouble: Trouble, disk: Option<&Disk>) {
    let Run {
        scene,
        work,
        states,
        what,
    } = run;
    let reached = Arc::new(AtomicBool::new(false));
    let (told, faults) = (reached.clone(), scene.faults.clone());
    let ballast = disk.map(Disk::ballast).unwrap_or_default();
    scene.then_at(at, move || {
        trouble.begin(&faults, &ballast);
        told.store(true, Ordering::SeqCst);
    });
    let ended = scene.ended();
    assert!(reached.load(Ordering::SeqCst), "{what}: it comes there");
    let bucket = ended.bucket.fork();
    let make_room = || disk.into_iter().for_each(Disk::make_room);
    let scene = ended.start(make_room);
    work.compare(&found_in(&scene.root()), &format!("{what}: after a start"));
    make_room();
    Run::verify_bucket(&scene, &states, &bucket, &what);
    heals(&scene, &work, &what);
    check(&scene, &scene.copy.objects);
}

/// Each step, once with a seed of either kind.
fn rows(first: u64) -> impl Iterator<Item = ((u64, Durability), &'static str)> {
    STEPS
        .into_iter()
        .flat_map(move |at| seeds(first).take(2).map(move |seed| (seed, at)))
}

#[test]
fn an_end_during_an_outage_that_begins_at_any_step_loses_nothing() {
    for ((seed, durability), at) in rows(71) {
        let trouble = match seed % 2 {
            0 => Trouble::Outage,
            _ => Trouble::LostReply,
        };
        let what = format!("VFSD_SEED={seed}, {trouble:?} at '{at}'");
        let run = Run::new(seed, durability, None, what);
        end_in_trouble(run, at, trouble, None);
    }
}

#[test]
fn an_end_on_a_disk_that_is_full_from_any_step_on_loses_nothing() {
    for ((seed, durability), at) in rows(90) {
        let Some(disk) = Disk::mount() else {
            return;
        };
        let what = format!("VFSD_SEED={seed}, a full disk at '{at}'");
        let run = Run::new(seed, durability, Some(disk.host()), what);
        end_in_trouble(run, at, Trouble::FullDisk, Some(&disk));
    }
}

#[test]
fn an_end_that_is_cut_off_by_a_kill_at_any_step_loses_nothing() {
    for (seed, durability) in seeds(113).take(2) {
        let what = format!("VFSD_SEED={seed}");
        let Run {
            scene,
            work,
            states,
            what,
        } = Run::new(seed, durability, None, what);
        scene.watch_everywhere();
        let mut ended = scene.ended();
        let left = std::mem::take(&mut ended.left);
        let scene = ended.start(|| ());
        for step in STEPS {
            assert!(left.iter().any(|left| left.place == step), "{what}: {step}");
        }
        for left in left {
            let what = format!("{what}, killed at '{}'", left.place);
            Run::verify_bucket(&scene, &states, &left.objects, &what);
            let volume = scene.open_left(&left);
            work.compare(&found_in(&Place(volume.root())), &what);
            drop(volume);
            work.compare(
                &found_in(&Place(scene.elsewhere(&left.objects).root())),
                &format!("{what}, then ended"),
            );
        }
        work.compare(&found_in(&scene.root()), &what);
    }
}
