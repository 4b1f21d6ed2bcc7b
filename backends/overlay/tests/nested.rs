//! An overlay whose upper lies on this one: whiteouts that a program makes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::sync::Arc;

use stack::every_store;
use vfsd_backend::{Backend, Capabilities, Device, Errno, FileKind, Node, OpenFlags, RenameFlags};
use vfsd_overlay::{Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::{Outcome, Place};

fn serve<T>(options: Options, work: impl FnOnce(Place) -> T) -> T {
    let overlay = block_on(Overlay::open(options)).expect("an overlay");
    work(Place(overlay.root()))
}

fn whiteout(directory: &Place, name: &str) -> Place {
    let none = Device::default();
    directory.mknod(name, FileKind::CharDevice, none).unwrap()
}

/// Looks whether a name is a whiteout, for a lookup and in a listing.
fn check_whiteout(directory: &Place, name: &str) {
    let attributes = directory.lookup(name).unwrap().attributes().unwrap();
    assert_eq!(attributes.kind, FileKind::CharDevice, "{name}");
    assert_eq!(attributes.device, Device::default(), "{name}");
    let listed = directory.list().unwrap();
    let listed = listed.iter().find(|entry| entry.name == name.as_bytes());
    assert_eq!(listed.unwrap().kind, Some(FileKind::CharDevice), "{name}");
}

fn refused<T>(outcome: Outcome<T>, errno: Errno) {
    assert_eq!(outcome.map(drop), Err(errno));
}

#[test]
fn a_whiteout_of_a_program_is_a_device_for_it_and_escaped_in_the_upper() {
    every_store(|store| {
        let lowers = store.lowers(&[&|lower, _| {
            lower.mkdir("diff").unwrap().put("below", b"").unwrap();
        }]);
        let tree = store.tree("writable");
        serve(store.options(lowers.clone(), &tree), |root| {
            let diff = root.lookup("diff").unwrap();
            let made = whiteout(&diff, "gone");
            assert_eq!(made.attributes().unwrap().kind, FileKind::CharDevice);
            refused(made.open(OpenFlags::READ), Errno::BADF);
            refused(made.truncate(0), Errno::INVAL);
            assert_eq!(made.xattr_names().unwrap(), [""; 0]);
            refused(made.getxattr(&store.own("whiteout")), Errno::NODATA);
            // As one that was removed before by this overlay.
            diff.unlink("below").unwrap();
            whiteout(&diff, "below");
            made.chmod(0o600).unwrap();
        });
        serve(store.options(lowers, &tree), |root| {
            let diff = root.lookup("diff").unwrap();
            check_whiteout(&diff, "gone");
            check_whiteout(&diff, "below");
            let gone = diff.lookup("gone").unwrap().attributes().unwrap();
            assert_eq!(gone.permissions, 0o600);
            diff.unlink("below").unwrap();
            assert_eq!(diff.names().unwrap(), ["gone"]);
            refused(root.rmdir("diff"), Errno::NOTEMPTY);
        });
        let diff = Place(tree.root()).lookup("upper").unwrap();
        let diff = diff.lookup("diff").unwrap();
        let gone = diff.lookup("gone").unwrap();
        assert_eq!(gone.content().unwrap(), b"");
        assert_eq!(gone.getxattr(&store.own("overlay.whiteout")).unwrap(), b"y");
        assert_eq!(diff.getxattr(&store.own("overlay.opaque")).unwrap(), b"x");
    });
}

#[test]
fn a_whiteout_of_a_program_goes_where_files_go() {
    every_store(|store| {
        let lowers = store.lowers(&[&|lower, _| {
            lower.put("file", b"content").unwrap();
            let dir = lower.mkdir("dir").unwrap();
            dir.mkdir("sub").unwrap().put("deep", b"deep").unwrap();
            lower.mkdir("other").unwrap();
        }]);
        let tree = store.tree("writable");
        let leave = RenameFlags::WHITEOUT;
        serve(store.options(lowers.clone(), &tree), |root| {
            let (dir, other) = (root.lookup("dir").unwrap(), root.lookup("other").unwrap());
            root.rename_with("file", &other, "moved", leave).unwrap();
            dir.rename_with("sub", &other, "sub", leave).unwrap();
            let made = whiteout(&root, "made");
            dir.link(&made, "linked").unwrap();
            other.put("replaced", b"").unwrap();
            root.rename("made", &other, "replaced").unwrap();
            let both = leave | RenameFlags::EXCHANGE;
            refused(root.rename_with("dir", &root, "other", both), Errno::INVAL);
            let both = leave | RenameFlags::NOREPLACE;
            refused(
                other.rename_with("moved", &other, "sub", both),
                Errno::EXIST,
            );
        });
        let look = |root: &Place| {
            let (dir, other) = (root.lookup("dir").unwrap(), root.lookup("other").unwrap());
            check_whiteout(root, "file");
            check_whiteout(&dir, "sub");
            check_whiteout(&dir, "linked");
            check_whiteout(&other, "replaced");
            assert_eq!(
                other.lookup("moved").unwrap().content().unwrap(),
                b"content"
            );
            assert_eq!(other.lookup("sub").unwrap().names().unwrap(), ["deep"]);
            let linked = dir.lookup("linked").unwrap().attributes().unwrap();
            assert_eq!(linked.links, 2);
        };
        serve(store.options(lowers.clone(), &tree), |root| look(&root));
        // What one overlay has written is a layer of another.
        let written = Place(tree.root()).lookup("upper").unwrap();
        let mut below: Vec<Arc<dyn Backend>> = vec![Arc::new(At(tree, written.0))];
        below.extend(lowers);
        let again = store.tree("again");
        serve(store.options(below.clone(), &again), |root| {
            look(&root);
            let (dir, other) = (root.lookup("dir").unwrap(), root.lookup("other").unwrap());
            root.lookup("file").unwrap().chmod(0o600).unwrap();
            other.lookup("replaced").unwrap().chmod(0o640).unwrap();
            look(&root);
            dir.rename("linked", &root, "linked").unwrap();
            root.rename("linked", &dir, "linked").unwrap();
        });
        serve(store.options(below, &again), |root| {
            look(&root);
            let file = root.lookup("file").unwrap().attributes().unwrap();
            assert_eq!(file.permissions, 0o600);
        });
    });
}

#[test]
fn an_overlay_over_this_one_finds_its_whiteouts() {
    every_store(|store| {
        let lowers = store.lowers(&[&|lower, _| {
            let base = lower.mkdir("base").unwrap();
            base.put("kept", b"").unwrap();
            base.put("gone", b"").unwrap();
            base.put("moved", b"content").unwrap();
            base.mkdir("sub").unwrap().put("deep", b"deep").unwrap();
        }]);
        let tree = store.tree("writable");
        let outer = || block_on(Overlay::open(store.options(lowers.clone(), &tree))).unwrap();
        // The other overlay's layers are directories of this one.
        let inner = || {
            let outer: Arc<dyn Backend> = outer();
            let root = Place(outer.root());
            let base = Arc::new(At(outer.clone(), root.lookup("base").unwrap().0));
            store.options(vec![base], &outer)
        };
        let look = |root: &Place| {
            assert_eq!(root.names().unwrap(), ["elsewhere", "kept", "sub"]);
            let moved = root.lookup("elsewhere").unwrap();
            assert_eq!(moved.content().unwrap(), b"content");
            assert_eq!(root.lookup("sub").unwrap().names().unwrap(), [""; 0]);
        };
        serve(inner(), |root| {
            root.unlink("gone").unwrap();
            root.rename("moved", &root, "elsewhere").unwrap();
            root.lookup("sub").unwrap().unlink("deep").unwrap();
            root.rmdir("sub").unwrap();
            root.mkdir("sub").unwrap();
            look(&root);
        });
        serve(inner(), |root| look(&root));
        let root = Place(outer().root());
        let upper = root.lookup("upper").unwrap();
        check_whiteout(&upper, "gone");
        check_whiteout(&upper, "moved");
    });
}

/// A directory of a backend, as a layer.
struct At(Arc<dyn Backend>, Arc<dyn Node>);

impl Backend for At {
    fn root(&self) -> Arc<dyn Node> {
        self.1.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}
