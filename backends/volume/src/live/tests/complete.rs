//! A shipper with a defect: what it leaves out is noticed before it is missed.

use vfsd_backend::{Backend, Errno};
use vfsd_testkit::place::{Outcome, wait};

use super::scene::{SIZE, Scene, content_in};

fn try_to_sync(scene: &Scene) -> Outcome<()> {
    wait(scene.volume.root().syncfs())
}

/// The file has new content, and something else is new.
fn change(scene: &Scene) {
    scene.wait_for_shipper();
    scene.file().write_all(0, &[2; SIZE]).unwrap();
    scene.root().put("other", b"other").unwrap();
}

/// Nothing of it is in the bucket, all of it is here, and a new start brings it into the bucket.
fn is_kept(scene: Scene) {
    assert_eq!(try_to_sync(&scene), Err(Errno::IO), "for good");
    assert_eq!(scene.file().fsync(), Err(Errno::IO));
    assert_eq!(scene.root().mkdir("more").err(), Some(Errno::ROFS));
    assert!(scene.content() == [2; SIZE], "what is here can be read");
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    assert!(content_in(&elsewhere).unwrap() == [1; SIZE], "elsewhere");
    drop(elsewhere);
    let scene = scene.restarted(|| ());
    scene.sync();
    assert!(scene.content() == [2; SIZE], "after a start");
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    assert!(
        content_in(&elsewhere).unwrap() == [2; SIZE],
        "in the bucket"
    );
}

#[test]
fn a_round_that_lost_content_is_not_shipped_and_what_is_here_is_kept() {
    let scene = Scene::with_file();
    change(&scene);
    let ino = scene.root().lookup("file").unwrap().attributes().unwrap();
    let map = scene.live().dirty.map(ino.inode);
    scene.then_at("cut made", move || map.lose_frozen());
    assert_eq!(try_to_sync(&scene), Err(Errno::IO));
    is_kept(scene);
}

#[test]
fn a_round_after_one_that_was_dropped_is_not_shipped_and_what_is_here_is_kept() {
    let scene = Scene::with_file();
    change(&scene);
    let ino = scene.root().lookup("file").unwrap().attributes().unwrap();
    // As a cut does of which nothing is known any more.
    assert!(scene.live().dirty.map(ino.inode).freeze());
    assert_eq!(try_to_sync(&scene), Err(Errno::IO));
    is_kept(scene);
}
