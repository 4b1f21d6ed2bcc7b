//! What layers are asked: no more than is needed.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::sync::Arc;

use stack::{Store, upper_of};
use vfsd_backend::{Backend, Errno, OpenFlags};
use vfsd_overlay::{Namespace, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::faults::{Faults, Faulty};
use vfsd_testkit::place::{Place, read_some};

#[test]
fn a_directory_of_a_lower_layer_costs_no_calls_of_the_upper() {
    let store = Store::memory(Namespace::Trusted);
    let lowers = store.lowers(&[&|lower, _| {
        let dir = lower.mkdir("dir").unwrap();
        let inner = dir.mkdir("inner").unwrap();
        for number in 0..20 {
            inner.put(&format!("file-{number}"), b"content").unwrap();
        }
    }]);
    let faults = Arc::new(Faults::default());
    let upper: Arc<dyn Backend> = Arc::new(Faulty::new(stack::memory(), faults.clone()));
    let options = Options {
        upper: Some(upper_of(&upper)),
        ..Options::new(lowers)
    };
    let overlay = block_on(Overlay::open(options)).expect("an overlay");
    let root = Place(overlay.root());
    // The root is merged, so that the upper is asked for the first name.
    let dir = root.lookup("dir").unwrap();
    let before = faults.calls();
    for _ in 0..2 {
        let inner = dir.lookup("inner").unwrap();
        assert_eq!(inner.names().unwrap().len(), 20);
        for number in 0..20 {
            let file = inner.lookup(&format!("file-{number}")).unwrap();
            assert_eq!(file.attributes().unwrap().size, 7);
            let open = file.open(OpenFlags::READ).unwrap();
            assert_eq!(open.content().unwrap(), b"content");
        }
        assert_eq!(inner.lookup("missing").map(drop), Err(Errno::NOENT));
    }
    assert_eq!(faults.calls(), before);
    // Whose calls are counted: those of the upper.
    dir.lookup("inner").unwrap().put("new", b"").unwrap();
    assert!(faults.calls() > before);
}

#[test]
fn two_uppers_over_one_lower_know_nothing_of_each_other() {
    for store in [
        Store::memory(Namespace::Trusted),
        Store::host(stack::host_namespace()),
    ] {
        let lowers = store.lowers(&[&|lower, _| {
            let dir = lower.mkdir("dir").unwrap();
            dir.put("file", b"content").unwrap();
            dir.put("other", b"other").unwrap();
        }]);
        let (left, right) = (store.tree("left"), store.tree("right"));
        let open = |tree| block_on(Overlay::open(store.options(lowers.clone(), tree))).unwrap();
        let (left, right) = (Place(open(&left).root()), Place(open(&right).root()));
        let dir = |root: &Place| root.lookup("dir").unwrap();
        let file = dir(&left).lookup("file").unwrap();
        let reader = dir(&right).lookup("file").unwrap();
        let reader = reader.open(OpenFlags::READ).unwrap();
        file.open_both().unwrap().write_all(0, b"changed").unwrap();
        dir(&left).unlink("other").unwrap();
        left.rename("dir", &left, "moved").unwrap();
        assert_eq!(reader.content().unwrap(), b"content");
        assert_eq!(dir(&right).names().unwrap(), ["file", "other"]);
        dir(&right).rename("other", &right, "mine").unwrap();
        assert_eq!(left.names().unwrap(), ["moved"]);
        let below = Place(lowers.first().unwrap().root());
        assert_eq!(dir(&below).names().unwrap(), ["file", "other"]);
        let content = dir(&below).lookup("file").unwrap().content();
        assert_eq!(content.unwrap(), b"content");
    }
}

#[test]
fn a_listing_goes_on_in_a_directory_that_is_opened_anew_and_has_changed() {
    let store = Store::memory(Namespace::Trusted);
    let lowers = store.lowers(&[&|lower, _| {
        let dir = lower.mkdir("dir").unwrap();
        for number in 0..100 {
            dir.put(&format!("file-{number}"), b"").unwrap();
        }
    }]);
    let tree = store.tree("writable");
    let overlay = block_on(Overlay::open(store.options(lowers, &tree))).expect("an overlay");
    let dir = Place(overlay.root()).lookup("dir").unwrap();
    let mut seen = Vec::new();
    let mut cookie = 0;
    loop {
        // Each time anew, as when the list was not kept. What was listed is removed.
        let open = dir.opendir().unwrap();
        let some = read_some(open.as_ref(), cookie, 7).unwrap();
        let Some(last) = some.last() else {
            break;
        };
        cookie = last.next;
        for entry in some {
            let name = String::from_utf8(entry.name).unwrap();
            if name != "." && name != ".." {
                dir.unlink(&name).unwrap();
                seen.push(name);
            }
        }
    }
    assert_eq!(seen.len(), 100);
    assert_eq!(dir.names().unwrap(), [""; 0]);
}
