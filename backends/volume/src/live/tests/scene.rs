//! A volume to which things happen one after the other, kills among them.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;
use parking_lot::Mutex;
use tempfile::TempDir;
use vfsd_backend::Backend;
use vfsd_object_store::store::{FaultStore, Faults};
use vfsd_object_store::{RetryPolicy, Store};
use vfsd_testkit::place::{Handle, Place, wait};

use super::kill::{Copy, Left};
use super::kills::{make_volume, scratch, store};
use crate::content::Idle;
use crate::failpoint::{Hook, with_hook};
use crate::live::Live;
use crate::{Durability, RemoteOptions, Volume};

pub(super) const SIZE: usize = 20_000;
const LONG: std::time::Duration = std::time::Duration::from_secs(3600);

type Then = Box<dyn FnOnce() + Send>;

/// Which places are looked at, and what kills there would leave.
#[derive(Default)]
struct Watch {
    at: Option<&'static str>,
    everywhere: bool,
    left: Vec<Left>,
    /// What is to happen at a place, once.
    then: Option<(&'static str, Then)>,
}

/// A volume that is killed now and then. Nothing gets into the bucket but by a sync.
pub(super) struct Scene {
    pub(super) volume: Volume,
    pub(super) copy: Copy,
    pub(super) faults: Arc<FaultStore>,
    watch: Arc<Mutex<Watch>>,
    options: RemoteOptions,
    dir: TempDir,
}

/// A volume that was ended.
pub(super) struct Ended {
    /// What kills on the way there would have left.
    pub(super) left: Vec<Left>,
    /// The bucket as the end left it.
    pub(super) bucket: InMemory,
    copy: Copy,
    options: RemoteOptions,
    dir: TempDir,
}

impl Ended {
    /// Where it cannot be opened so, it is once `help` was had.
    pub(super) fn start(self, help: impl FnOnce()) -> Scene {
        Scene::open_with(self.dir, self.copy, self.options, help)
    }
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::promising(Durability::Bucket)
    }

    pub(super) fn promising(durability: Durability) -> Self {
        Self::promising_at(durability, None)
    }

    /// With its local directory at a path.
    pub(super) fn promising_at(durability: Durability, host: Option<PathBuf>) -> Self {
        Self::made(host, |options| options.durability = durability)
    }

    /// With options that are changed so.
    pub(super) fn made(host: Option<PathBuf>, change: impl FnOnce(&mut RemoteOptions)) -> Self {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let objects = Arc::new(InMemory::new());
        make_volume(&objects);
        let copy = Copy {
            host: host.unwrap_or_else(|| dir.path().join("host")),
            objects,
            scratch: dir.path().to_owned(),
            made: Arc::default(),
        };
        let mut options = RemoteOptions {
            lag: LONG,
            boot: Some("first".to_owned()),
            ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
        };
        change(&mut options);
        Self::open(dir, copy, options)
    }

    fn open(dir: TempDir, copy: Copy, options: RemoteOptions) -> Self {
        Self::open_with(dir, copy, options, || ())
    }

    fn open_with(dir: TempDir, copy: Copy, options: RemoteOptions, help: impl FnOnce()) -> Self {
        let watch: Arc<Mutex<Watch>> = Arc::default();
        let hook: Hook = {
            let (watch, copy) = (watch.clone(), copy.clone());
            Arc::new(move |place| {
                // Nobody knows what others do meanwhile.
                if std::thread::current().name() == Some("volume-upkeep") {
                    return;
                }
                let mut watch = watch.lock();
                if watch.everywhere || watch.at == Some(place) {
                    watch.at = None;
                    watch.left.push(copy.make(place));
                }
                let then = watch.then.take_if(|(at, _)| *at == place);
                drop(watch);
                if let Some((_, then)) = then {
                    then();
                }
            })
        };
        let faults = Arc::new(FaultStore::new(copy.objects.clone(), Faults::default()));
        let policy = RetryPolicy::new(
            std::time::Duration::from_millis(400),
            std::time::Duration::from_millis(200),
        );
        let bucket = Store::over(faults.clone(), policy);
        let open = || Volume::open_remote(&bucket, "vol", &copy.host, &options);
        let volume = with_hook(hook, || {
            let opened = open().or_else(|error| {
                println!("opened again: {error}");
                help();
                open()
            });
            opened.unwrap()
        });
        Self {
            volume,
            copy,
            faults,
            watch,
            options,
            dir,
        }
    }

    /// With a file that is in the bucket.
    pub(super) fn with_file() -> Self {
        let scene = Self::new();
        scene.root().put("file", &[1; SIZE]).unwrap();
        scene.sync();
        scene
    }

    pub(super) fn root(&self) -> Place {
        Place(self.volume.root())
    }

    pub(super) fn live(&self) -> &Live {
        self.volume.core().live.as_deref().unwrap()
    }

    pub(super) fn file(&self) -> Handle {
        self.root().lookup("file").unwrap().open_both().unwrap()
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.root().lookup("file").unwrap().content().unwrap()
    }

    /// Brings everything into the bucket.
    pub(super) fn sync(&self) {
        wait(self.volume.root().syncfs()).unwrap();
    }

    /// A path where nothing is.
    pub(super) fn fresh(&self) -> PathBuf {
        let made = &self.copy.made;
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.dir.path().join(format!("fresh-{number}"))
    }

    /// What kills at all places leave that `work` reaches.
    pub(super) fn left_by(&self, work: impl FnOnce(&Self)) -> Vec<Left> {
        self.watch.lock().everywhere = true;
        work(self);
        let mut watch = self.watch.lock();
        watch.everywhere = false;
        std::mem::take(&mut watch.left)
    }

    /// Does something at the place when it is reached next.
    pub(super) fn then_at(&self, place: &'static str, then: impl FnOnce() + Send + 'static) {
        self.watch.lock().then = Some((place, Box::new(then)));
    }

    /// What comes after a kill at a place that `work` reaches.
    pub(super) fn killed_at(self, place: &'static str, work: impl FnOnce(&Self)) -> Self {
        self.watch.lock().at = Some(place);
        work(&self);
        let left = self.watch.lock().left.pop().unwrap();
        self.go_on(left)
    }

    /// Whether `work` reaches a place.
    pub(super) fn reaches(&self, place: &'static str, work: impl FnOnce(&Self)) -> bool {
        self.watch.lock().at = Some(place);
        work(self);
        let mut watch = self.watch.lock();
        watch.left.clear();
        watch.at.take().is_none()
    }

    /// What comes after a kill.
    pub(super) fn killed(self) -> Self {
        let left = self.copy.make("now");
        self.go_on(left)
    }

    /// After the power was cut, which left so much.
    pub(super) fn after_power_cut(mut self, left: Left) -> Self {
        self.options.boot = Some(format!("{:?} and another", self.options.boot));
        self.go_on(left)
    }

    fn go_on(self, left: Left) -> Self {
        let Self {
            volume,
            dir,
            copy,
            options,
            ..
        } = self;
        drop(volume);
        let copy = Copy {
            host: left.host,
            objects: Arc::new(left.objects),
            ..copy
        };
        Self::open(dir, copy, options)
    }

    /// What comes after it was ended. Where it cannot be opened so, it is once `help` was had.
    pub(super) fn restarted(self, help: impl FnOnce()) -> Self {
        self.ended().start(help)
    }

    /// Ends it.
    pub(super) fn ended(self) -> Ended {
        let Self {
            volume,
            watch,
            dir,
            copy,
            options,
            ..
        } = self;
        drop(volume);
        let left = std::mem::take(&mut watch.lock().left);
        Ended {
            left,
            bucket: copy.objects.fork(),
            copy,
            options,
            dir,
        }
    }

    /// From now on kills are looked at wherever one may come.
    pub(super) fn watch_everywhere(&self) {
        self.watch.lock().everywhere = true;
    }

    /// The volume as a kill left it, opened by nobody who looks at it further.
    pub(super) fn open_left(&self, left: &Left) -> Volume {
        let bucket = store(left.objects.clone());
        Volume::open_remote(&bucket, "vol", &left.host, &self.options).unwrap()
    }

    /// The volume as another host finds it that has the bucket alone.
    pub(super) fn elsewhere(&self, objects: &InMemory) -> Volume {
        let options = RemoteOptions {
            takeover: true,
            ..self.options.clone()
        };
        let bucket = store(objects.fork());
        Volume::open_remote(&bucket, "vol", &self.fresh(), &options).unwrap()
    }

    /// What is in the file after another host took the volume over, wrote to it, and gave it back.
    pub(super) fn taken_by_another(&self, left: &Left) -> Vec<u8> {
        let options = RemoteOptions {
            takeover: true,
            ..self.options.clone()
        };
        let bucket = store(left.objects.clone());
        let volume = Volume::open_remote(&bucket, "vol", &self.fresh(), &options).unwrap();
        let file = Place(volume.root()).lookup("file").unwrap();
        file.open_both().unwrap().write_all(0, &[4; SIZE]).unwrap();
        drop(file);
        drop(volume);
        content_in(&self.open_left(left)).unwrap()
    }

    /// Who waited for the bucket is woken before all is done.
    pub(super) fn wait_for_shipper(&self) {
        let number = self.root().lookup("file").unwrap().attributes().unwrap();
        while self.live().dirty.is_dirty(number.inode) {
            std::thread::yield_now();
        }
    }

    /// The data file makes room for others.
    pub(super) fn evict(&self) {
        let attributes = self.root().lookup("file").unwrap().attributes().unwrap();
        let inode = self.volume.core().inode(attributes.inode).unwrap();
        self.wait_for_shipper();
        assert!(inode.evict(Idle::Stays).unwrap());
    }
}

/// What the file has in some volume.
pub(super) fn content_in(volume: &Volume) -> Option<Vec<u8>> {
    let file = Place(volume.root()).lookup("file").ok()?;
    Some(file.content().unwrap())
}
