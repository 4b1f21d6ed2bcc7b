//! Content of files that are open, and makes room for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vfsd_object_store::store::Fault;

use super::scene::{SIZE, Scene};
use crate::content::Idle;

/// A scene in which the content of the file makes room when `place` is reached, and how often it did.
fn making_room_at(place: &'static str) -> (Scene, Arc<AtomicUsize>) {
    let scene = Scene::with_file();
    scene.evict();
    let attributes = scene.root().lookup("file").unwrap().attributes().unwrap();
    let inode = scene.volume.core().inode(attributes.inode).unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let count = gone.clone();
    scene.then_at(place, move || {
        let evicted = inode.evict(Idle::Goes).unwrap();
        count.fetch_add(evicted.into(), Ordering::Relaxed);
    });
    (scene, gone)
}

#[test]
fn content_that_goes_before_who_waited_for_it_has_read_it_comes_again() {
    for place in ["content asked for", "content had"] {
        let (scene, gone) = making_room_at(place);
        assert!(scene.content() == [1; SIZE], "{place}");
        assert_eq!(gone.load(Ordering::Relaxed), 1, "{place}");
    }
}

/// Whether it comes before anybody waits for it is chance.
#[test]
fn content_that_goes_while_it_is_waited_for_comes_again() {
    let (scene, _) = making_room_at("content waited for");
    // The request is made again after a moment.
    scene.faults.next([Fault::Unavailable]);
    assert!(scene.content() == [1; SIZE]);
}

#[test]
fn content_that_a_change_waits_for_stays_until_that_is_made() {
    let (scene, gone) = making_room_at("content waited for");
    let file = scene.file();
    file.write_all(5_000, &[2; 100]).unwrap();
    assert_eq!(gone.load(Ordering::Relaxed), 0);
    scene.sync();
    let expected = [[1; 5_000].as_slice(), &[2; 100], &[1; SIZE - 5_100]].concat();
    assert!(scene.killed().content() == expected);
}

#[test]
fn a_file_that_is_open_makes_room_only_where_idle_ones_go() {
    let scene = Scene::with_file();
    let file = scene.file();
    let attributes = file.attributes().unwrap();
    let inode = scene.volume.core().inode(attributes.inode).unwrap();
    scene.wait_for_shipper();
    assert!(!inode.evict(Idle::Stays).unwrap());
    let pin = inode.content.pin();
    assert!(!inode.evict(Idle::Goes).unwrap());
    drop(pin);
    assert!(inode.evict(Idle::Goes).unwrap());
    assert_eq!(file.attributes().unwrap().blocks, attributes.blocks);
    assert!(file.content().unwrap() == [1; SIZE]);
}
