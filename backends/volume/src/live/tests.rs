//! Volumes in a bucket in memory, opened again here and on hosts that never had them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vfsd_backend::{Backend, FallocateMode, FileKind, OpenFlags};
use vfsd_object_store::{RetryPolicy, Store};
use vfsd_testkit::place::{Place, wait};

mod complete;
mod disk;
mod end;
mod evicted;
mod fetch;
mod files;
mod full_disk;
mod invariants;
mod kill;
mod kills;
mod lag;
mod moving;
mod power;
mod scene;
mod state;
mod twice;
mod uploads;

use crate::{RemoteOptions, Volume, VolumeOptions};

const PREFIX: &str = "some/where";

/// A bucket with an empty volume, and hosts.
struct Bench {
    store: Store,
    dir: TempDir,
    runtime: Runtime,
    hosts: u32,
}

fn bench() -> Bench {
    bench_over(Arc::new(InMemory::new()))
}

fn bench_over(objects: Arc<dyn ObjectStore>) -> Bench {
    let policy = RetryPolicy::new(Duration::from_secs(2), Duration::from_millis(500));
    let store = Store::over(objects, policy);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let options = VolumeOptions::default();
    let created = Volume::create_remote(&store, PREFIX, &options);
    runtime.block_on(created).unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    Bench {
        store,
        dir,
        runtime,
        hosts: 0,
    }
}

impl Bench {
    fn options(&self) -> RemoteOptions {
        RemoteOptions {
            lag: Duration::from_millis(5),
            ..RemoteOptions::new(self.runtime.handle().clone())
        }
    }

    fn host(&mut self) -> PathBuf {
        self.hosts += 1;
        self.dir.path().join(format!("host{}", self.hosts))
    }

    fn open(&self, host: &Path) -> Volume {
        Volume::open_remote(&self.store, PREFIX, host, &self.options()).unwrap()
    }
}

/// What is found at a path: attributes, and content or target.
type Tree = BTreeMap<String, (String, Vec<u8>)>;

fn look(root: &Place) -> Tree {
    let mut tree = Tree::new();
    look_into("", root, &mut tree);
    tree
}

fn look_into(path: &str, place: &Place, tree: &mut Tree) {
    let mut attributes = place.attributes().unwrap();
    let content = match attributes.kind {
        FileKind::Regular => place
            .open(OpenFlags::READ | OpenFlags::NOATIME)
            .unwrap()
            .content()
            .unwrap(),
        FileKind::Symlink => place.readlink().unwrap(),
        _ => Vec::new(),
    };
    // Reading moves it.
    attributes.accessed = attributes.born.unwrap();
    let xattrs = place.xattrs("user.").unwrap_or_default();
    if attributes.kind == FileKind::Directory {
        for name in place.names().unwrap() {
            look_into(
                &format!("{path}/{name}"),
                &place.lookup(&name).unwrap(),
                tree,
            );
        }
    }
    tree.insert(
        path.to_owned(),
        (format!("{attributes:?} {xattrs:?}"), content),
    );
}

fn sync(volume: &Volume) {
    wait(volume.root().syncfs()).unwrap();
}

#[test]
fn what_was_synced_is_there_on_a_host_that_never_had_the_volume() {
    let mut bench = bench();
    let (first, second) = (bench.host(), bench.host());
    let before = {
        let volume = bench.open(&first);
        let root = Place(volume.root());
        let dir = root.mkdir("dir").unwrap();
        let (file, handle) = dir.create("file").unwrap();
        handle.write_all(5000, b"some content").unwrap();
        file.setxattr("user.name", b"value").unwrap();
        root.put("large", &[7; 3_000_000]).unwrap();
        root.symlink("link", "dir/file").unwrap();
        handle.fsync().unwrap();
        look(&root)
    };
    let volume = bench.open(&second);
    let root = Place(volume.root());
    assert_eq!(look(&root), before);
    let file = root.lookup("dir").unwrap().lookup("file").unwrap();
    file.open_both().unwrap().write_all(5000, b"more").unwrap();
    let large = root.lookup("large").unwrap().open_both().unwrap();
    large.write_all(1_000_001, b"x").unwrap();
    large
        .fallocate(
            FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE,
            5000,
            100_000,
        )
        .unwrap();
    sync(&volume);
    drop(large);
    let after = look(&root);
    drop((root, file, volume));
    let root = Place(bench.open(&first).root());
    assert!(
        look(&root) == after,
        "{:#?} {:#?}",
        look(&root).keys(),
        after.keys()
    );
}
