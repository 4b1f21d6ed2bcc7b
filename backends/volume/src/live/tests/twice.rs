//! Kills at places that random work reaches seldom.

use vfsd_backend::FallocateMode;

use super::scene::{SIZE, Scene};
use crate::Volume;
use crate::bucket::CheckLevel;
use crate::live::tests::kills::store;

#[test]
fn what_one_kill_cut_off_does_not_come_back_after_another() {
    let scene = Scene::with_file().killed_at("cut off", |scene| {
        scene.file().truncate(5_000).unwrap();
    });
    assert_eq!(scene.content(), [1; 5_000]);
    scene.file().truncate(SIZE as u64).unwrap();
    let expected = [[1; 5_000].as_slice(), &[0; SIZE - 5_000]].concat();
    assert_eq!(scene.content(), expected);
    let scene = scene.killed();
    assert!(scene.content() == expected, "after the second kill");
}

#[test]
fn a_data_file_that_was_evicted_and_not_yet_given_its_size_tells_no_size() {
    let scene = Scene::with_file();
    // Marked as changed, with nothing that has to go into the bucket.
    let mode = FallocateMode::KEEP_SIZE;
    scene.file().fallocate(mode, 0, 4096).unwrap();
    scene.evict();
    let scene = scene.killed_at("data file open", |scene| drop(scene.file()));
    assert!(scene.content() == [1; SIZE]);
    let scene = scene.killed();
    assert!(scene.content() == [1; SIZE], "after the second kill");
}

#[test]
fn content_of_a_file_without_a_name_takes_no_room_for_what_goes_into_the_bucket() {
    let scene = Scene::new();
    let (_, handle) = scene.root().create("file").unwrap();
    scene.root().unlink("file").unwrap();
    handle.write_all(0, &[1; SIZE]).unwrap();
    scene.sync();
    let live = scene.volume.core().live.as_deref().unwrap();
    assert_eq!(live.dirty.bytes(), 0);
    handle.write_all(0, &[2; SIZE]).unwrap();
    handle.write_all(8192, &[3; SIZE]).unwrap();
    scene.sync();
    assert_eq!(live.dirty.bytes(), 0);
    let content = handle.content().unwrap();
    assert!(content[..8192] == [2; 8192] && content[8192..] == [3; SIZE]);
    drop(handle);
    scene.sync();
    assert_eq!(live.dirty.bytes(), 0);
}

#[test]
fn a_marked_file_whose_data_file_was_evicted_is_read_after_a_kill() {
    let scene = Scene::with_file();
    let mode = FallocateMode::KEEP_SIZE;
    scene.file().fallocate(mode, 0, 4096).unwrap();
    scene.evict();
    let scene = scene.killed();
    assert!(scene.content() == [1; SIZE]);
    scene.file().write_all(5_000, &[2; 100]).unwrap();
    scene.sync();
    let expected = [[1; 5_000].as_slice(), &[2; 100], &[1; SIZE - 5_100]].concat();
    assert!(scene.killed().content() == expected);
}

#[test]
fn a_removed_directory_that_is_still_in_use_is_no_fault_of_the_volume() {
    let scene = Scene::new();
    let held = scene.root().mkdir("dir").unwrap();
    scene.root().rmdir("dir").unwrap();
    scene.sync();
    let scratch = scene.fresh();
    std::fs::create_dir(&scratch).unwrap();
    let runtime = vfsd_testkit::runtime().handle();
    let bucket = store((*scene.copy.objects).clone());
    let report =
        Volume::check_remote(&bucket, "vol", &scratch, CheckLevel::Content, runtime).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    drop(held);
}
