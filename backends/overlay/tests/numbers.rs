//! Inode numbers where all layers lie on one file system: those of the host.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use stack::{host_namespace, passthrough, upper_of};
use vfsd_backend::{Backend, FileKind};
use vfsd_overlay::{Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::Place;

/// The numbers of all files, as lookups and listings tell them alike.
fn numbers(place: &Place, path: &str, seen: &mut BTreeMap<String, u64>) {
    for listed in place.list().unwrap() {
        let name = String::from_utf8(listed.name).unwrap();
        if name == "." || name == ".." {
            continue;
        }
        let inner = place.lookup(&name).unwrap();
        let attributes = inner.attributes().unwrap();
        assert_eq!(listed.inode, attributes.inode, "{path}/{name}");
        seen.insert(format!("{path}/{name}"), attributes.inode);
        if attributes.kind == FileKind::Directory {
            numbers(&inner, &format!("{path}/{name}"), seen);
        }
    }
}

struct Layers {
    dir: tempfile::TempDir,
    one_file_system: bool,
}

impl Layers {
    fn run<T>(&self, work: impl FnOnce(Place) -> T) -> T {
        let tree = passthrough(&self.dir.path().join("both"));
        let options = Options {
            namespace: host_namespace(),
            upper: Some(upper_of(&tree)),
            one_file_system: self.one_file_system,
            ..Options::new(vec![passthrough(&self.dir.path().join("lower"))])
        };
        let overlay: Arc<dyn Backend> = block_on(Overlay::open(options)).expect("an overlay");
        work(Place(overlay.root()))
    }

    fn numbers(&self) -> BTreeMap<String, u64> {
        self.run(|root| {
            let mut seen = BTreeMap::new();
            numbers(&root, "", &mut seen);
            seen
        })
    }
}

fn host_number(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(path).unwrap())
}

#[test]
fn numbers_are_the_hosts_and_stay_when_files_are_copied_up() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for made in ["lower/dir/sub", "both"] {
        std::fs::create_dir_all(dir.path().join(made)).unwrap();
    }
    let lower = dir.path().join("lower");
    std::fs::write(lower.join("file"), b"content").unwrap();
    std::fs::write(lower.join("dir/linked"), b"before").unwrap();
    std::fs::hard_link(lower.join("dir/linked"), lower.join("dir/twice")).unwrap();
    let mut layers = Layers {
        dir,
        one_file_system: true,
    };
    let before = layers.numbers();
    for (path, number) in &before {
        let path = path.trim_start_matches('/');
        assert_eq!(*number, host_number(&lower.join(path)), "{path}");
    }
    layers.run(|root| {
        root.lookup("file").unwrap().chmod(0o600).unwrap();
        let dir = root.lookup("dir").unwrap();
        let linked = dir.lookup("linked").unwrap().open_both().unwrap();
        linked.write_all(0, b"after!").unwrap();
        let sub = dir.lookup("sub").unwrap();
        root.rename("file", &sub, "moved").unwrap();
    });
    let mut after = layers.numbers();
    let moved = after.remove("/dir/sub/moved").unwrap();
    after.insert("/file".into(), moved);
    assert_eq!(after, before);
    // Layers that are moved apart, and together again: the copies are still those of the same files.
    for one_file_system in [false, true] {
        layers.one_file_system = one_file_system;
        layers.run(|root| {
            let dir = root.lookup("dir").unwrap();
            let twice = dir.lookup("twice").unwrap();
            assert_eq!(twice.content().unwrap(), b"after!");
            assert_eq!(twice.identity(), dir.lookup("linked").unwrap().identity());
        });
    }
}
