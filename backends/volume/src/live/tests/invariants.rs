//! What always holds, after a kill at every place of an operation or a round.

use vfsd_backend::{Backend, FallocateMode, OpenFlags};
use vfsd_testkit::place::{Place, wait};

use super::kill::Left;
use super::kills::store;
use super::scene::{SIZE, Scene, content_in};
use crate::bucket::{CheckLevel, Point, View};
use crate::check::{CheckReport, check_rows};
use crate::live::extents::frames;
use crate::live::shipped::Shipping;

/// The point of the chain that a local directory knows, and whether the bucket has all content that it names.
fn shipped(left: &Left) -> (Point, bool) {
    let shipping = Shipping::open(&left.host.join("shipped.sqlite")).unwrap();
    let named = shipping.look(frames).unwrap();
    let bucket = store(left.objects.clone());
    let report = vfsd_testkit::block_on(async {
        let view = View::open(&bucket, "vol").await.unwrap();
        view.check(named, CheckLevel::Content).await.unwrap()
    });
    (shipping.point(), report.is_clean())
}

/// A round that has a bit of everything: content in segments and in the log object, holes, and a file that becomes shorter.
fn change_much(scene: &Scene) {
    let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    let file = scene.file();
    file.write_all(5_000, &[2; 300_000]).unwrap();
    file.fallocate(mode, 9_000, 20_000).unwrap();
    let other = scene.root().lookup("other").unwrap().open_both().unwrap();
    other.truncate(3_000).unwrap();
    other.write_all(1_000, &[3; 10]).unwrap();
}

fn scene_of_two() -> Scene {
    let scene = Scene::with_file();
    scene.root().put("other", &[1; SIZE]).unwrap();
    scene.sync();
    scene
}

#[test]
fn i3_what_is_not_in_a_data_file_is_in_the_bucket() {
    let scene = scene_of_two();
    let before = content_in(&scene.volume).unwrap();
    let mut after = Vec::new();
    let left = scene.left_by(|scene| {
        change_much(scene);
        after = scene.content();
        scene.sync();
        scene.wait_for_shipper();
    });
    assert!(left.len() > 10, "{}", left.len());
    for left in left {
        let place = &left.place;
        assert!(shipped(&left).1, "{place}");
        let volume = scene.open_left(&left);
        let found = content_in(&volume).unwrap();
        let known = found.len() == before.len() || found.len() == after.len();
        assert!(known, "{place}: {} bytes", found.len());
        assert!(found[..5_000] == before[..5_000], "{place}");
        drop(volume);
        // All of it gets there.
        let then = content_in(&scene.elsewhere(&left.objects)).unwrap();
        assert!(then == found, "{place}");
    }
}

#[test]
fn i4_nothing_comes_back_that_is_older_than_an_acknowledged_sync() {
    let scene = scene_of_two();
    let acknowledged = shipped(&scene.copy.make("acknowledged")).0;
    let old = scene.content();
    let mut new = Vec::new();
    let mut last = acknowledged;
    let left = scene.left_by(|scene| {
        change_much(scene);
        new = scene.content();
        scene.file().fsync().unwrap();
        scene.wait_for_shipper();
    });
    let places = left.len();
    for (number, left) in left.into_iter().enumerate() {
        let place = left.place.clone();
        let point = shipped(&left).0;
        assert!(point.lsn >= last.lsn, "{place}: it goes back");
        last = point;
        let found = content_in(&scene.elsewhere(&left.objects)).unwrap();
        assert!(found == old || found == new, "{place}");
        // What was acknowledged last is last.
        assert!(number + 1 < places || found == new, "{place}");
    }
    assert!(last.lsn > acknowledged.lsn);
}

#[test]
fn i6_what_is_here_counts_unless_another_went_on_since() {
    let scene = Scene::with_file();
    scene.file().write_all(0, &[2; 100]).unwrap();
    let left = scene.copy.make("unsent");
    let expected = scene.content();
    // Nobody went on.
    let again = Left {
        place: String::new(),
        host: scene.fresh(),
        objects: left.objects.fork(),
    };
    super::kill::copy_host(&left.host, &again.host);
    assert!(content_in(&scene.open_left(&again)).unwrap() == expected);
    // Another one did.
    let taken = scene.taken_by_another(&left);
    assert!(taken == [4; SIZE], "what the bucket says counts");
    assert!(left.host.join("aside-1").exists(), "nothing is thrown away");
}

#[test]
fn i8_a_start_leaves_no_orphan_and_counts_as_a_scan_does() {
    let scene = scene_of_two();
    let root = scene.root();
    root.mkdir("dir").unwrap();
    root.put("third", &[5; 9_000]).unwrap();
    let left = scene.left_by(|scene| {
        let held = scene.file();
        scene.root().unlink("file").unwrap();
        held.write_all(3, &[6; 9_000]).unwrap();
        let dir = scene.root().lookup("dir").unwrap();
        scene.root().rmdir("dir").unwrap();
        let (nameless, tmp) = scene
            .root()
            .tmpfile(OpenFlags::READ | OpenFlags::WRITE)
            .unwrap();
        tmp.write_all(0, &[7; 5_000]).unwrap();
        scene
            .root()
            .rename("third", &scene.root(), "other")
            .unwrap();
        scene.sync();
        scene.root().link(&nameless, "linked").unwrap();
        scene.sync();
        drop((held, dir));
    });
    assert!(left.len() > 10, "{}", left.len());
    for left in left {
        let place = &left.place;
        let volume = scene.open_left(&left);
        let meta = &volume.core().meta;
        meta.catch_up().unwrap();
        let mut report = CheckReport::default();
        meta.read(|db| check_rows(db, &mut report, &[], true))
            .unwrap();
        assert!(report.is_clean(), "{place}: {report:#?}");
        let figures = wait(volume.root().statfs()).unwrap();
        assert_eq!(figures.files - figures.files_free, report.inodes, "{place}");
        let names = Place(volume.root()).names().unwrap();
        drop(volume);
        let there = Place(scene.elsewhere(&left.objects).root())
            .names()
            .unwrap();
        assert_eq!(there, names, "{place}");
    }
}
