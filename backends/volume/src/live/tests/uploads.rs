//! Content of many segments on its way into a bucket that fails now and then.

use vfsd_backend::{Backend, Errno};
use vfsd_testkit::place::wait;

use super::scene::{Scene, content_in};

/// Five segments of what cannot be compressed.
fn content() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(10 << 20).flatten().collect()
}

#[test]
fn segments_that_failed_are_stored_again() {
    let scene = Scene::with_file();
    let content = content();
    scene.faults.outage(true);
    scene.file().write_all(0, &content).unwrap();
    assert_eq!(wait(scene.volume.root().syncfs()), Err(Errno::IO));
    scene.faults.outage(false);
    let synced = || wait(scene.volume.root().syncfs()).is_ok();
    assert!((0..100).any(|_| synced()));
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    assert!(content_in(&elsewhere).unwrap() == content);
}
