//! Kills at places that random work reaches seldom.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use object_store::memory::InMemory;
use parking_lot::Mutex;
use tempfile::TempDir;
use vfsd_backend::{Backend, FallocateMode};
use vfsd_testkit::place::{Handle, Place, wait};

use super::kill::{Copy, Left};
use super::kills::{make_volume, scratch, store};
use crate::bucket::CheckLevel;
use crate::failpoint::{Hook, with_hook};
use crate::{RemoteOptions, Volume};

const SIZE: usize = 20_000;

/// A volume that is killed now and then.
struct Scene {
    volume: Volume,
    copy: Copy,
    /// Where it is killed next, and what that leaves.
    next: Arc<Mutex<(Option<&'static str>, Option<Left>)>>,
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let objects = Arc::new(InMemory::new());
        make_volume(&objects);
        let host = dir.path().join("host");
        Self::open(dir, host, objects, Arc::default())
    }

    fn open(dir: TempDir, host: PathBuf, objects: Arc<InMemory>, made: Arc<AtomicU64>) -> Self {
        let copy = Copy {
            host,
            objects,
            scratch: dir.path().to_owned(),
            made,
        };
        let next: Arc<Mutex<(Option<&'static str>, Option<Left>)>> = Arc::default();
        let hook: Hook = {
            let (next, copy) = (next.clone(), copy.clone());
            Arc::new(move |place| {
                let mut next = next.lock();
                if next.0 == Some(place) {
                    *next = (None, Some(copy.make(place)));
                }
            })
        };
        let options = RemoteOptions {
            lag: Duration::from_secs(3600),
            ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
        };
        let bucket = store((*copy.objects).clone());
        let volume = with_hook(hook, || {
            Volume::open_remote(&bucket, "vol", &copy.host, &options).unwrap()
        });
        Self {
            volume,
            copy,
            next,
            dir,
        }
    }

    fn root(&self) -> Place {
        Place(self.volume.root())
    }

    fn file(&self) -> Handle {
        self.root().lookup("file").unwrap().open_both().unwrap()
    }

    fn content(&self) -> Vec<u8> {
        self.root().lookup("file").unwrap().content().unwrap()
    }

    fn sync(&self) {
        wait(self.volume.root().syncfs()).unwrap();
    }

    /// A file that is in the bucket.
    fn with_file() -> Self {
        let scene = Self::new();
        scene.root().put("file", &[1; SIZE]).unwrap();
        scene.sync();
        scene
    }

    /// What comes after a kill at a place that `work` reaches.
    fn killed_at(self, place: &'static str, work: impl FnOnce(&Self)) -> Self {
        self.next.lock().0 = Some(place);
        work(&self);
        let left = self.next.lock().1.take().unwrap();
        self.go_on(left)
    }

    /// What comes after a kill.
    fn killed(self) -> Self {
        let left = self.copy.make("now");
        self.go_on(left)
    }

    fn go_on(self, left: Left) -> Self {
        let Self {
            volume, dir, copy, ..
        } = self;
        drop(volume);
        Self::open(dir, left.host, Arc::new(left.objects), copy.made)
    }

    /// The data file makes room for others.
    fn evict(&self) {
        let attributes = self.root().lookup("file").unwrap().attributes().unwrap();
        let core = self.volume.core();
        let inode = core.inode(attributes.inode).unwrap();
        // Who waited for the bucket is woken before.
        while core.live.as_ref().unwrap().dirty.is_dirty(inode.ino) {
            std::thread::yield_now();
        }
        assert!(inode.evict().unwrap());
    }
}

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
    let scratch = scene.dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let runtime = vfsd_testkit::runtime().handle();
    let bucket = store((*scene.copy.objects).clone());
    let report =
        Volume::check_remote(&bucket, "vol", &scratch, CheckLevel::Content, runtime).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    drop(held);
}
