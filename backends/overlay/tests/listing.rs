//! Listings that say what each name is.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::collections::BTreeMap;

use stack::every_store;
use vfsd_backend::{Backend, DirEntry, Directory, Entry, EntrySink};
use vfsd_overlay::Overlay;
use vfsd_testkit::block_on;
use vfsd_testkit::place::Place;

/// Takes all there is.
#[derive(Default)]
struct Found(BTreeMap<String, Option<Entry>>);

impl EntrySink for Found {
    fn has_room(&mut self, _: &[u8]) -> bool {
        true
    }

    fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>) {
        let name = String::from_utf8(listed.name.to_vec()).unwrap();
        if name != "." && name != ".." {
            self.0.insert(name, found);
        }
    }
}

fn listed(directory: &dyn Directory) -> BTreeMap<String, Entry> {
    let mut found = Found::default();
    block_on(directory.read_plus(0, &mut found)).unwrap();
    let entries = found.0.into_iter();
    entries
        .map(|(name, entry)| (name, entry.unwrap()))
        .collect()
}

/// Every name is what a lookup finds.
fn is_as_looked_up(place: &Place, directory: &dyn Directory, names: &[&str]) {
    let entries = listed(directory);
    let found: Vec<&str> = entries.keys().map(String::as_str).collect();
    assert_eq!(found, names);
    for (name, entry) in entries {
        let node = place.lookup(&name).unwrap();
        assert_eq!(entry.node.identity(), node.identity(), "{name}");
        let attributes = node.attributes().unwrap();
        assert_eq!(entry.attributes.inode, attributes.inode, "{name}");
        assert_eq!(entry.attributes.size, attributes.size, "{name}");
        assert_eq!(entry.attributes.links, attributes.links, "{name}");
    }
}

#[test]
fn a_listing_finds_what_a_lookup_finds_also_when_its_directory_is_copied_up_meanwhile() {
    every_store(|store| {
        let lowers = store.lowers(&[&|root, _| {
            let dir = root.mkdir("dir").unwrap();
            dir.put("a", b"content").unwrap();
            let linked = dir.put("b", b"more").unwrap();
            dir.link(&linked, "c").unwrap();
            dir.mkdir("sub").unwrap();
            dir.symlink("z", "a").unwrap();
        }]);
        let options = store.options(lowers, &store.tree("writable"));
        let overlay = block_on(Overlay::open(options)).unwrap();
        let root = Place(overlay.root());
        let dir = root.lookup("dir").unwrap();
        let open = block_on(dir.0.opendir()).unwrap();
        is_as_looked_up(&dir, open.as_ref(), &["a", "b", "c", "sub", "z"]);
        // From here on the directory has two layers, and a file of the lower one two names in them.
        let file = dir.lookup("c").unwrap().open_both().unwrap();
        file.write_all(0, b"longer content").unwrap();
        dir.unlink("a").unwrap();
        dir.put("new", b"").unwrap();
        is_as_looked_up(&dir, open.as_ref(), &["b", "c", "new", "sub", "z"]);
        // One that is the upper's alone.
        let own = root.mkdir("own").unwrap();
        let open = block_on(own.0.opendir()).unwrap();
        is_as_looked_up(&own, open.as_ref(), &[]);
        own.put("x", b"content").unwrap();
        is_as_looked_up(&own, open.as_ref(), &["x"]);
        own.unlink("x").unwrap();
        root.rename("dir", &own, "dir").unwrap();
        is_as_looked_up(&own, open.as_ref(), &["dir"]);
    });
}
