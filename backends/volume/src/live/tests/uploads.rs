//! Content on its way into a bucket that fails now and then.

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use vfsd_backend::{Backend, Errno};
use vfsd_testkit::place::{Place, wait};

use super::scene::{SIZE, Scene, content_in};

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
fn what_a_round_had_is_in_the_bucket_though_the_volume_is_ended_while_it_fails() {
    let scene = Scene::with_file();
    scene.faults.outage(true);
    scene.file().write_all(0, &[2; SIZE]).unwrap();
    scene.root().put("other", b"other").unwrap();
    assert_eq!(wait(scene.volume.root().syncfs()), Err(Errno::IO));
    // Of the next round.
    scene.file().write_all(8192, &[3; 4096]).unwrap();
    scene.root().mkdir("more").unwrap();
    assert_eq!(wait(scene.volume.root().syncfs()), Err(Errno::IO));
    scene.faults.outage(false);
    let scene = scene.restarted(|| ());
    let expected = [[2; 8192].as_slice(), &[3; 4096], &[2; SIZE - 12_288]].concat();
    assert!(scene.content() == expected, "here");
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    assert!(content_in(&elsewhere).unwrap() == expected, "elsewhere");
    let root = Place(elsewhere.root());
    assert_eq!(root.names().unwrap(), ["file", "more", "other"]);
    assert_eq!(root.lookup("other").unwrap().content().unwrap(), b"other");
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

/// One connection to a store is slower than several.
#[test]
fn what_a_round_has_is_stored_in_several_segments_at_a_time() {
    let scene = Scene::new();
    let content = &content()[..20 << 20];
    scene.root().put("file", content).unwrap();
    scene.sync();
    let listed = scene.copy.objects.list(Some(&"vol/seg".into()));
    let sizes = listed.map_ok(|object| object.size).try_collect();
    let sizes: Vec<u64> = vfsd_testkit::block_on(sizes).unwrap();
    // A round begins with 16 MiB, the next one with what was written meanwhile.
    assert!(sizes.len() >= 4, "{sizes:?}");
    let longest = (20 << 20) / 4 + (1 << 19);
    assert!(sizes.iter().all(|&size| size < longest), "{sizes:?}");
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    assert!(content_in(&elsewhere).unwrap() == content);
}
