//! What leads to a file of a lower layer again: before and after it is copied up, and after a restart.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::sync::Arc;

use stack::{Store, every_store};
use vfsd_backend::{Backend, Errno, Locator};
use vfsd_overlay::Overlay;
use vfsd_testkit::block_on;
use vfsd_testkit::place::{Outcome, Place, wait};

fn locator(place: &Place) -> Outcome<Locator> {
    wait(place.0.locator())
}

#[test]
fn a_lower_file_is_found_before_and_after_it_is_copied_up_and_not_once_it_is_moved() {
    every_store(|store: &Store| {
        let lowers = store.lowers(&[&|root, _| {
            let dir = root.mkdir("dir").unwrap();
            dir.put("file", b"content").unwrap();
            dir.put("gone", b"").unwrap();
            root.mkdir(&"n".repeat(120)).unwrap();
        }]);
        let tree = store.tree("writable");
        let open = || -> Arc<dyn Backend> {
            block_on(Overlay::open(store.options(lowers.clone(), &tree))).unwrap()
        };
        let find =
            |backend: &Arc<dyn Backend>, known: &Locator| wait(backend.resolve(known)).map(Place);
        let known = {
            let overlay = open();
            let root = Place(overlay.root());
            let dir = root.lookup("dir").unwrap();
            let long = root.lookup(&"n".repeat(120)).unwrap();
            assert_eq!(locator(&long), Err(Errno::OVERFLOW));
            let names = ["file", "gone"].map(|name| locator(&dir.lookup(name).unwrap()).unwrap());
            let file = find(&overlay, &names[0]).unwrap();
            file.open_both().unwrap().write_all(0, b"changed").unwrap();
            dir.unlink("gone").unwrap();
            dir.put("gone", b"another").unwrap();
            assert_eq!(locator(&file), Ok(names[0].clone()));
            names
        };
        let overlay = open();
        let root = Place(overlay.root());
        let found = find(&overlay, &known[0]).unwrap();
        assert_eq!(found.content().unwrap(), b"changed");
        assert_eq!(find(&overlay, &known[1]).map(drop), Err(Errno::STALE));
        let dir = root.lookup("dir").unwrap();
        dir.rename("file", &root, "file").unwrap();
        assert_eq!(find(&overlay, &known[0]).map(drop), Err(Errno::STALE));
        let moved = locator(&found).unwrap();
        let again = find(&overlay, &moved).unwrap();
        assert_eq!(again.identity(), found.identity());
    });
}
