//! Content that is moved out of objects of which little is needed.

use std::collections::BTreeSet;

use super::kill::Left;
use super::kills::store;
use super::scene::{SIZE, Scene, content_in};
use crate::bucket::{CheckLevel, ObjectId, View};
use crate::live::extents::{frames, live_bytes};
use crate::live::shipped::Shipping;

const OTHERS: u8 = 9;

/// Objects that hold content that is needed.
fn objects(scene: &Scene) -> BTreeSet<ObjectId> {
    let live = live_bytes(&scene.copy.host.join("shipped.sqlite")).unwrap();
    live.into_keys().collect()
}

fn content(file: u8) -> Vec<u8> {
    let mut state = u32::from(file) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        u8::try_from(state & 0xff).unwrap()
    };
    (0..SIZE).map(|_| next()).collect()
}

/// A segment with files of which two are left, and a log object with a small one.
fn sparse() -> Scene {
    let scene = Scene::new();
    scene.root().put("file", &content(0)).unwrap();
    for other in 1..=OTHERS {
        let name = format!("other{other}");
        scene.root().put(&name, &content(other)).unwrap();
    }
    scene.sync();
    scene.root().put("small", b"small").unwrap();
    for other in 2..=OTHERS {
        scene.root().unlink(&format!("other{other}")).unwrap();
    }
    scene.sync();
    // Who waited is woken before the image is there.
    while objects(&scene).len() != 2 {
        std::thread::yield_now();
    }
    scene
}

/// Asks for it, and waits until nothing that is needed is where it was.
fn move_all(scene: &Scene, meanwhile: impl FnOnce()) -> BTreeSet<ObjectId> {
    let before = objects(scene);
    scene.live().sparse.lock().extend(before.clone());
    meanwhile();
    // It happens after a round.
    scene.root().put("new", b"new").unwrap();
    scene.sync();
    while !objects(scene).is_disjoint(&before) {
        // A round that was under way may have taken the first request for its own.
        scene.live().sparse.lock().extend(before.clone());
        scene.live().rounds.hurry();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    before
}

fn is_whole(left: &Left) -> bool {
    let shipping = Shipping::open(&left.host.join("shipped.sqlite")).unwrap();
    let named = shipping.look(frames).unwrap();
    let bucket = store(left.objects.clone());
    let report = vfsd_testkit::block_on(async {
        let view = View::open(&bucket, "vol").await.unwrap();
        view.check(named, CheckLevel::Content).await.unwrap()
    });
    report.is_clean()
}

#[test]
fn a_kill_while_content_is_moved_loses_nothing() {
    let scene = sparse();
    let left = scene.left_by(|scene| {
        move_all(scene, || ());
    });
    let places: BTreeSet<&str> = left.iter().map(|left| left.place.as_str()).collect();
    for place in [
        "content to move read",
        "moved content in the bucket",
        "move in the bucket",
        "shipped image knows the move",
    ] {
        assert!(places.contains(place), "{place} {places:?}");
    }
    for left in left {
        assert!(is_whole(&left), "{}", left.place);
        let there = scene.elsewhere(&left.objects);
        assert!(content_in(&there) == Some(content(0)), "{}", left.place);
        drop(there);
        let here = scene.open_left(&left);
        assert!(content_in(&here) == Some(content(0)), "{}", left.place);
        drop(here);
        assert!(!left.host.join("aside-1").exists(), "{}", left.place);
    }
}

#[test]
fn content_that_was_moved_is_read_where_it_is_now() {
    let scene = sparse();
    let before = move_all(&scene, || ());
    let now = objects(&scene);
    // A part each, should it have begun before the removed files were gone.
    assert!(now.is_disjoint(&before) && now.len() <= 4, "{now:?}");
    scene.evict();
    assert!(scene.content() == content(0));
    // The objects of before are no longer needed.
    let there = scene.elsewhere(&scene.copy.objects);
    let root = vfsd_testkit::place::Place(vfsd_backend::Backend::root(&there));
    assert!(root.lookup("other1").unwrap().content().unwrap() == content(1));
    assert_eq!(root.lookup("small").unwrap().content().unwrap(), b"small");
}

#[test]
fn what_is_written_over_meanwhile_stays_as_it_was_written() {
    let scene = sparse();
    let new = [7; SIZE / 2];
    move_all(&scene, || scene.file().write_all(4_000, &new).unwrap());
    let expected = [&content(0)[..4_000], &new, &content(0)[4_000 + SIZE / 2..]].concat();
    assert!(scene.content() == expected);
    let there = content_in(&scene.elsewhere(&scene.copy.objects)).unwrap();
    assert!(there == expected);
}
