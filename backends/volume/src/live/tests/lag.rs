//! What is told of how far the bucket is behind, and of what is kept here.

use std::time::Duration;

use vfsd_backend::{Backend, Errno};
use vfsd_testkit::place::wait;

use super::scene::{SIZE, Scene, content_in};

#[test]
fn the_lag_is_what_the_bucket_does_not_have() {
    let scene = Scene::with_file();
    scene.wait_for_shipper();
    let watch = scene.volume.watch_lag();
    let before = watch.look().unwrap();
    assert_eq!((before.bytes, before.age), (0, Duration::ZERO));
    assert!(before.rounds > 0 && !before.fenced);

    scene.faults.outage(true);
    scene.file().write_all(0, &[2; SIZE]).unwrap();
    let behind = watch.look().unwrap();
    assert!(behind.bytes >= SIZE as u64 && behind.age > Duration::ZERO);
    assert_eq!(wait(scene.volume.root().syncfs()), Err(Errno::IO));
    let failed = watch.look().unwrap();
    assert!(failed.failures > before.failures);
    assert!(failed.bytes >= SIZE as u64 && failed.age >= behind.age);
    assert_eq!(failed.rounds, before.rounds);

    scene.faults.outage(false);
    assert!((0..50).any(|_| wait(scene.volume.root().syncfs()).is_ok()));
    scene.wait_for_shipper();
    let after = watch.look().unwrap();
    assert_eq!((after.bytes, after.age), (0, Duration::ZERO));
    assert!(after.rounds > before.rounds);

    drop(scene);
    assert_eq!(watch.look(), None, "nobody has it open");
}

#[test]
fn reads_of_what_is_here_and_of_what_the_bucket_alone_has_are_counted() {
    let scene = Scene::with_file();
    scene.wait_for_shipper();
    let watch = scene.volume.watch_cache();
    let seen = || {
        let seen = watch.look().unwrap();
        (seen.hits, seen.misses, seen.fetched)
    };
    let read = || assert!(content_in(&scene.volume).unwrap() == [1; SIZE]);
    read();
    let (here, 0, 0) = seen() else {
        panic!("{:?}", watch.look());
    };
    assert!(here > 0);
    scene.evict();
    read();
    let (hits, misses, fetched) = seen();
    assert_eq!(fetched, SIZE as u64);
    assert!(misses > 0 && hits >= here, "{:?}", watch.look());
    read();
    assert_eq!(seen(), (hits + here, misses, fetched));
    drop(scene);
    // What brought content ends after who waited for that goes on.
    let is_gone = (0..10_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        watch.look().is_none()
    });
    assert!(is_gone, "nobody has it open");
}
