//! Names that a layer's directory lacks cost it no call, and what comes is found.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::sync::Arc;

use stack::{Store, upper_of};
use vfsd_backend::{Backend, Errno, RenameFlags};
use vfsd_overlay::{Namespace, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::faults::{Faults, Faulty};
use vfsd_testkit::place::Place;

/// Files in the lower directory.
const FILES: u64 = 40;

fn file(number: u64) -> String {
    format!("file-{number}")
}

fn fill(lower: &Place) {
    let dir = lower.mkdir("dir").unwrap();
    for number in 0..FILES {
        dir.put(&file(number), b"content").unwrap();
    }
}

/// What has to be waited for, and is counted.
fn counted(tree: Arc<dyn Backend>) -> (Arc<dyn Backend>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    (Arc::new(Faulty::new(tree, faults.clone())), faults)
}

fn open(options: Options) -> Place {
    Place(block_on(Overlay::open(options)).expect("an overlay").root())
}

/// A directory with a name of its own in the upper, over [`FILES`] files; and the calls of the upper.
fn merged(names_memory: usize) -> (Place, Arc<Faults>) {
    let store = Store::memory(Namespace::Trusted);
    let lowers = store.lowers(&[&|lower, _| fill(lower)]);
    let tree = stack::memory();
    let upper = Place(upper_of(&tree).root);
    upper.mkdir("dir").unwrap().put("upper", b"").unwrap();
    let (tree, faults) = counted(tree);
    let root = open(Options {
        names_memory,
        ..store.options(lowers, &tree)
    });
    (root.lookup("dir").unwrap(), faults)
}

/// The calls that it takes to look each file up.
fn calls(dir: &Place, faults: &Faults) -> u64 {
    let before = faults.calls();
    for number in 0..FILES {
        dir.lookup(&file(number)).unwrap();
    }
    faults.calls() - before
}

#[test]
fn an_upper_is_asked_for_one_of_the_names_that_it_lacks() {
    let (dir, faults) = merged(1 << 20);
    let first = calls(&dir, &faults);
    assert!((1..=5).contains(&first), "one and a listing: {first}");
    assert_eq!(calls(&dir, &faults), 0);
    let before = faults.calls();
    assert_eq!(dir.lookup("missing").map(drop), Err(Errno::NOENT));
    assert_eq!(faults.calls(), before);
    assert!(dir.lookup("upper").is_ok());
    assert!(faults.calls() > before);
}

#[test]
fn an_upper_is_asked_each_time_where_there_is_no_memory_for_names() {
    let (dir, faults) = merged(0);
    for _ in 0..2 {
        assert!(calls(&dir, &faults) >= FILES);
    }
}

#[test]
fn a_listing_tells_which_names_an_upper_lacks() {
    let (dir, faults) = merged(1 << 20);
    dir.names().unwrap();
    assert_eq!(calls(&dir, &faults), 0);
}

#[test]
fn a_directory_that_was_copied_up_or_made_is_known_to_be_empty() {
    let store = Store::memory(Namespace::Trusted);
    let lowers = store.lowers(&[&|lower, _| fill(lower)]);
    let (tree, faults) = counted(stack::memory());
    let root = open(store.options(lowers, &tree));
    let dir = root.lookup("dir").unwrap();
    dir.setxattr("user.one", b"value").unwrap();
    assert_eq!(calls(&dir, &faults), 0);
    let made = dir.mkdir("made").unwrap();
    let before = faults.calls();
    assert_eq!(made.lookup("missing").map(drop), Err(Errno::NOENT));
    assert_eq!(faults.calls(), before);
}

#[test]
fn a_lower_layer_is_not_asked_for_names_that_are_further_below() {
    let top = stack::memory();
    Place(top.root()).mkdir("dir").unwrap();
    let (top, faults) = counted(top);
    let bottom = stack::memory();
    fill(&Place(bottom.root()));
    let root = open(Options::new(vec![top, bottom]));
    let dir = root.lookup("dir").unwrap();
    calls(&dir, &faults);
    assert_eq!(calls(&dir, &faults), 0);
}

#[test]
fn what_comes_into_an_upper_is_found_there() {
    let (dir, faults) = merged(1 << 20);
    calls(&dir, &faults);
    let gone = |name: &str| assert_eq!(dir.lookup(name).map(drop), Err(Errno::NOENT), "{name}");
    let there = |name: &str| dir.lookup(name).unwrap();
    // Each of these makes a name in the upper in a way of its own.
    there("file-0").open_both().unwrap();
    let number = there("file-0").attributes().unwrap().inode;
    dir.unlink("file-1").unwrap();
    gone("file-1");
    dir.put("file-1", b"new").unwrap();
    assert_eq!(there("file-1").content().unwrap(), b"new");
    dir.put("created", b"").unwrap();
    dir.mkdir("directory").unwrap();
    dir.symlink("symlink", "created").unwrap();
    dir.link(&there("created"), "linked").unwrap();
    dir.unlink("file-2").unwrap();
    dir.link(&there("created"), "file-2").unwrap();
    dir.rename("file-0", &dir, "renamed").unwrap();
    gone("file-0");
    assert_eq!(there("renamed").attributes().unwrap().inode, number);
    let other = dir.mkdir("other").unwrap();
    dir.rename("file-3", &other, "moved").unwrap();
    gone("file-3");
    other.lookup("moved").unwrap();
    other.put("exchanged", b"one").unwrap();
    dir.rename_with("file-4", &other, "exchanged", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(there("file-4").content().unwrap(), b"one");
    assert_eq!(
        other.lookup("exchanged").unwrap().content().unwrap(),
        b"content"
    );
    dir.rename_with("file-5", &other, "left", RenameFlags::WHITEOUT)
        .unwrap();
    there("file-5");
    other.lookup("left").unwrap();
    for name in ["created", "directory", "symlink", "linked", "file-2"] {
        there(name);
    }
}
