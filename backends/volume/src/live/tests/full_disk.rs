//! The disk of the local directory has no room left: what fails then, what is kept, and that it goes on when there is room.
//!
//! `VFSD_SEED` says where it begins, `VFSD_SEEDS` how many seeds there are.

use vfsd_backend::Backend;
use vfsd_testkit::place::Place;

use super::disk::Disk;
use super::files::{Work, check, found_in, heals, seeds};
use super::scene::Scene;
use crate::Durability;

/// Works with room and without, and looks at what kills leave.
fn fill_and_go_on(seed: u64, durability: Durability) -> Option<u32> {
    let disk = Disk::mount()?;
    let scene = Scene::promising_at(durability, Some(disk.host()));
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
    let mut scene = Scene::promising_at(durability, Some(disk.host()));
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
        disk.make_room();
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
