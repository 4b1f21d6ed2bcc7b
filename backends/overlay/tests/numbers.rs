//! Inode numbers where all layers lie on one file system: those of the host.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use stack::{host_namespace, is_root, passthrough, upper_of};
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

/// Numbers of copies that say only by which handle the kernel would know the lower file.
#[test]
fn a_copy_has_the_number_of_the_file_that_its_origin_names() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for made in ["lower/dir", "both"] {
        std::fs::create_dir_all(dir.path().join(made)).unwrap();
    }
    let lower = dir.path().join("lower");
    for name in ["stays", "moves", "dir/inner"] {
        std::fs::write(lower.join(name), name).unwrap();
    }
    let layers = Layers {
        dir,
        one_file_system: true,
    };
    let before = layers.numbers();
    layers.run(|root| {
        for name in ["stays", "moves"] {
            root.lookup(name).unwrap().chmod(0o600).unwrap();
        }
        let dir = root.lookup("dir").unwrap();
        dir.lookup("inner").unwrap().chmod(0o600).unwrap();
        root.rename("moves", &dir, "moved").unwrap();
    });
    let upper = layers.dir.path().join("both/upper");
    let prefix = match host_namespace() {
        vfsd_overlay::Namespace::Trusted => "trusted.overlay.",
        vfsd_overlay::Namespace::User => "user.overlay.",
    };
    for name in ["stays", "dir/moved", "dir/inner"] {
        let path = upper.join(name);
        let origin = rustix::fs::lgetxattr(&path, format!("{prefix}origin"), &mut [0; 128]);
        if origin.is_err() {
            eprintln!("skipped: no file handles here");
            return;
        }
        rustix::fs::lremovexattr(&path, format!("{prefix}vfsd.inode")).unwrap();
    }
    let mut after = layers.numbers();
    let moved = after.remove("/dir/moved").unwrap();
    let own = host_number(&upper.join("dir/moved"));
    if moved != own {
        // Otherwise this process may not open files by handle.
        assert_eq!(Some(&moved), before.get("/moves"));
    } else {
        assert!(!is_root(), "root opens handles");
    }
    after.insert("/moves".into(), moved);
    for name in ["/stays", "/dir/inner"] {
        assert_eq!(after.get(name), before.get(name), "{name}");
    }
}
