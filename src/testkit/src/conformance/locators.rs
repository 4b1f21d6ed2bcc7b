//! What leads to a file again: in the same process, and after a restart.

use std::sync::Arc;

use vfsd_backend::{Backend, Errno, Locator};

use super::{Features, Fixture, Row, Run};
use crate::place::{Outcome, Place, wait};

pub(super) const ROWS: &[Row] = &[
    row(
        "a_file_is_found_by_its_locator",
        a_file_is_found_by_its_locator,
    ),
    row(
        "a_file_is_found_after_a_restart",
        a_file_is_found_after_a_restart,
    ),
    row("a_removed_file_is_not_found", a_removed_file_is_not_found),
    row(
        "a_foreign_locator_leads_nowhere",
        a_foreign_locator_leads_nowhere,
    ),
];

const fn row(name: &'static str, run: fn(Fixture)) -> Row {
    Row {
        name,
        needs: Features::LOCATORS,
        run: Run::Fixture(run),
    }
}

fn locator(place: &Place) -> Locator {
    wait(place.0.locator()).unwrap()
}

fn resolve(backend: &Arc<dyn Backend>, locator: &Locator) -> Outcome<Place> {
    wait(backend.resolve(locator)).map(Place)
}

fn a_file_is_found_by_its_locator(fixture: Fixture) {
    let root = Place(fixture.backend().root());
    let dir = root.mkdir("dir").unwrap();
    let file = dir.put("file", b"content").unwrap();
    let link = dir.symlink("link", "target").unwrap();
    let mut seen = Vec::new();
    for place in [root, dir, file, link] {
        let own = locator(&place);
        let kept = Locator::new(own.as_bytes()).unwrap();
        let found = resolve(fixture.backend(), &kept).unwrap();
        assert_eq!(found.identity(), place.identity(), "{own:?}");
        assert_eq!(found.0.kind(), place.0.kind());
        assert!(!seen.contains(&own), "{own:?}");
        seen.push(own);
    }
}

fn a_file_is_found_after_a_restart(mut fixture: Fixture) {
    let known = {
        let root = Place(fixture.backend().root());
        let dir = root.mkdir("dir").unwrap();
        let file = dir.put("file", b"content").unwrap();
        [root, dir, file].map(|place| (locator(&place), place.attributes().unwrap().inode))
    };
    fixture.reopen();
    let [root, dir, file] = known.map(|(locator, number)| {
        let found = resolve(fixture.backend(), &locator).unwrap();
        assert_eq!(found.attributes().unwrap().inode, number, "{locator:?}");
        found
    });
    assert_eq!(root.identity(), fixture.backend().root().identity());
    assert_eq!(root.lookup("dir").unwrap().identity(), dir.identity());
    assert_eq!(dir.lookup("file").unwrap().identity(), file.identity());
    assert_eq!(file.content().unwrap(), b"content");
}

fn a_removed_file_is_not_found(mut fixture: Fixture) {
    let gone = {
        let root = Place(fixture.backend().root());
        let gone = locator(&root.put("file", b"before").unwrap());
        root.unlink("file").unwrap();
        root.put("file", b"after").unwrap();
        gone
    };
    for _ in 0..2 {
        let found = resolve(fixture.backend(), &gone);
        assert_eq!(found.map(drop), Err(Errno::STALE));
        fixture.reopen();
    }
}

fn a_foreign_locator_leads_nowhere(fixture: Fixture) {
    let foreign = [
        Locator::of_inode(u64::MAX),
        Locator::of_inode(0),
        Locator::of_file_handle([7; 16], 1, &[7; 8], b"/file").unwrap(),
        Locator::of_file_handle([0; 16], 1, &[7; 8], b"/file").unwrap(),
        Locator::new(b"\x02").unwrap(),
        Locator::new(&[&[2; 17][..], b"/../x"].concat()).unwrap(),
        Locator::new(&[0xff; 128]).unwrap(),
    ];
    for locator in foreign {
        let found = resolve(fixture.backend(), &locator);
        assert_eq!(found.map(drop), Err(Errno::STALE), "{locator:?}");
    }
}
