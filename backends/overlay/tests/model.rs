//! An overlay does what the memory backend does, whatever is done, and wherever the files are at first.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::sync::Arc;

use stack::{Store, Writable, is_root, memory, upper_of};
use vfsd_backend::Backend;
use vfsd_overlay::{Namespace, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::conformance::{Features, Fixture};
use vfsd_testkit::faults::Faulty;
use vfsd_testkit::model;
use vfsd_testkit::place::Place;

/// A tree under the names that the operations use.
fn fill(root: &Place) {
    for name in ["a", "b"] {
        let dir = root.mkdir(name).unwrap();
        dir.put("c", b"content").unwrap();
        dir.symlink("d", "../c").unwrap();
        let inner = dir.mkdir("e").unwrap();
        inner.put("a", &[7; 9000]).unwrap();
        inner.mkdir("b").unwrap();
    }
    let file = root.put("c", b"at the top").unwrap();
    file.setxattr("user.one", b"value").unwrap();
    // Several names of one file.
    root.lookup("a").unwrap().link(&file, "a").unwrap();
    root.link(&file, "d").unwrap();
    root.put("e", b"").unwrap();
}

fn oracle() -> Fixture {
    let memory = memory();
    fill(&Place(memory.root()));
    Fixture::new(memory, Features::all() - Features::WHITEOUT)
}

/// Directories that are merged do not count their subdirectories, and a copy has other holes, and is born
/// later, than what it is a copy of.
fn comparable(fixture: Writable) -> Fixture {
    let host = fixture.host;
    let features = Features::all()
        - (Features::WHITEOUT
            | Features::DIRECTORY_LINKS
            | Features::HOLES
            | Features::BIRTH_TIME
            | Features::RELATIME);
    Fixture::new(fixture.overlay, features).holding(host)
}

#[test]
fn an_overlay_over_nothing_and_memory_do_the_same() {
    let plain = || Fixture::new(memory(), Features::all());
    model::run(4_000, plain, || {
        comparable(Store::memory(Namespace::Trusted).writable(&[&|_, _| {}]))
    });
}

#[test]
fn an_overlay_over_files_in_memory_and_memory_do_the_same() {
    model::run(6_000, oracle, || {
        let store = Store::memory(Namespace::User);
        comparable(store.writable(&[&|lower, _| fill(lower)]))
    });
}

#[test]
fn an_overlay_of_directories_of_the_host_and_memory_do_the_same() {
    if !is_root() {
        eprintln!("skipped: only root does on the host what a guest's root does");
        return;
    }
    model::run(4_000, oracle, || {
        let store = Store::host(Namespace::Trusted);
        comparable(store.writable(&[&|lower, _| fill(lower)]))
    });
}

/// Layers whose every call has to be waited for: what their directories have is then kept in memory. The upper has a
/// part of each directory.
fn awaited(names_memory: usize) -> Writable {
    let tree = || -> Arc<dyn Backend> { Arc::new(Faulty::new(memory(), Arc::default())) };
    let (upper, top, bottom) = (tree(), tree(), tree());
    let parts = upper_of(&upper);
    for root in [Place(parts.root.clone()), Place(top.root())] {
        for name in ["a", "b"] {
            root.mkdir(name).unwrap().mkdir("e").unwrap();
        }
    }
    fill(&Place(bottom.root()));
    let options = Options {
        upper: Some(parts),
        names_memory,
        ..Options::new(vec![top, bottom])
    };
    Writable {
        overlay: block_on(Overlay::open(options)).expect("an overlay"),
        host: None,
    }
}

#[test]
fn names_in_memory_are_those_of_the_layers() {
    for names_memory in [1 << 20, 300] {
        model::run(4_000, oracle, || comparable(awaited(names_memory)));
    }
}
