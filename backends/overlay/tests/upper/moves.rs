//! Directories that are moved, exchanged and replaced.

use vfsd_backend::{Backend, Errno, RenameFlags};
use vfsd_overlay::{Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::Place;

use crate::stack::every_store;
use crate::{Stack, refused};

#[test]
fn a_lower_directory_is_moved_away_and_back() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let dir = lower.mkdir("dir").unwrap();
            dir.put("file", b"content").unwrap();
            dir.mkdir("sub").unwrap().put("deep", b"").unwrap();
            lower.mkdir("other").unwrap();
        });
        let names = |root: &Place, path: &[&str]| {
            path.iter()
                .try_fold(root.clone(), |place, name| place.lookup(name))
                .and_then(|place| place.names())
        };
        stack.run(|root| {
            let dir = root.lookup("dir").unwrap();
            root.rename("dir", &root, "renamed").unwrap();
            let other = root.lookup("other").unwrap();
            dir.rename("sub", &other, "moved").unwrap();
            refused(
                other.rename("moved", &root, "x").and(root.lookup("sub")),
                Errno::NOENT,
            );
            root.rename("x", &other, "moved").unwrap();
        });
        stack.run(|root| {
            refused(root.lookup("dir"), Errno::NOENT);
            assert_eq!(names(&root, &["renamed"]).unwrap(), ["file"]);
            assert_eq!(names(&root, &["other", "moved"]).unwrap(), ["deep"]);
            root.rename("renamed", &root, "dir").unwrap();
            let dir = root.lookup("dir").unwrap();
            let other = root.lookup("other").unwrap();
            other.rename("moved", &dir, "sub").unwrap();
        });
        stack.run(|root| {
            assert_eq!(root.names().unwrap(), ["dir", "other"]);
            assert_eq!(names(&root, &["dir"]).unwrap(), ["file", "sub"]);
            assert_eq!(names(&root, &["dir", "sub"]).unwrap(), ["deep"]);
            assert_eq!(names(&root, &["other"]).unwrap(), [""; 0]);
        });
    });
}

#[test]
fn directories_of_both_layers_change_places() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("low").unwrap().put("below", b"").unwrap();
            lower.put("file", b"lower").unwrap();
        });
        stack.run(|root| {
            root.mkdir("up").unwrap().put("above", b"").unwrap();
            let exchange = RenameFlags::EXCHANGE;
            root.rename_with("low", &root, "up", exchange).unwrap();
            root.put("new", b"upper").unwrap();
            root.rename_with("file", &root, "new", exchange).unwrap();
        });
        stack.run(|root| {
            let names = |name| root.lookup(name).unwrap().names().unwrap();
            assert_eq!(
                (names("low"), names("up")),
                (vec!["above".into()], vec!["below".into()])
            );
            let content = |name| root.lookup(name).unwrap().content().unwrap();
            assert_eq!(content("new"), b"lower");
            assert_eq!(content("file"), b"upper");
        });
    });
}

#[test]
fn a_directory_with_whiteouts_in_it_is_replaced() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("target").unwrap().put("gone", b"").unwrap();
            lower.mkdir("moved").unwrap().put("kept", b"").unwrap();
        });
        stack.run(|root| {
            root.lookup("target").unwrap().unlink("gone").unwrap();
            root.rename("moved", &root, "target").unwrap();
        });
        stack.run(|root| {
            assert_eq!(root.names().unwrap(), ["target"]);
            assert_eq!(root.lookup("target").unwrap().names().unwrap(), ["kept"]);
        });
    });
}

#[test]
fn without_redirects_a_lower_directory_stays_where_it_is() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.mkdir("low").unwrap();
        });
        let options = Options {
            redirects: false,
            ..stack.options()
        };
        let overlay = block_on(Overlay::open(options)).unwrap();
        let root = Place(overlay.root());
        refused(root.rename("low", &root, "new"), Errno::XDEV);
        root.mkdir("up").unwrap();
        root.rename("up", &root, "new").unwrap();
    });
}
