//! What is there when the daemon is cut off in the middle of a change: the state before it, or after.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::collections::BTreeMap;
use std::sync::Arc;

use stack::{Store, upper_of};
use vfsd_backend::{Backend, Errno, FileKind, OpenFlags, RenameFlags};
use vfsd_overlay::{Namespace, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::faults::{Fault, Faults, Faulty};
use vfsd_testkit::place::{Outcome, Place};

/// Cut off after so many calls of the upper at most: no change takes more.
const MOST_CALLS: u64 = 400;

fn fill(lower: &Place, _: &Store) {
    let dir = lower.mkdir("dir").unwrap();
    let file = dir.put("file", b"content").unwrap();
    file.setxattr("user.x", b"value").unwrap();
    file.chmod(0o640).unwrap();
    dir.mkdir("sub").unwrap().put("deep", b"deep").unwrap();
    lower.mkdir("empty").unwrap();
    lower.mkdir("other").unwrap().put("there", b"").unwrap();
    lower.put("top", b"top").unwrap();
}

/// All that programs see.
fn tree(place: &Place, path: &str, seen: &mut BTreeMap<String, String>) {
    let attributes = place.attributes().unwrap();
    let content = match attributes.kind {
        FileKind::Regular => place.content().unwrap(),
        FileKind::Directory => Vec::new(),
        _ => place.readlink().unwrap_or_default(),
    };
    let shown = format!(
        "{:o} {} {:?} {}",
        attributes.mode(),
        attributes.inode,
        place.xattrs("").unwrap(),
        content.escape_ascii()
    );
    seen.insert(path.to_owned(), shown);
    if attributes.kind == FileKind::Directory {
        for name in place.names().unwrap() {
            let inner = place.lookup(&name).unwrap();
            tree(&inner, &format!("{path}/{name}"), seen);
        }
    }
}

fn seen(lowers: &[Arc<dyn Backend>], upper: &Arc<dyn Backend>) -> BTreeMap<String, String> {
    let options = Options {
        upper: Some(upper_of(upper)),
        ..Options::new(lowers.to_vec())
    };
    let overlay =
        block_on(Overlay::open(options)).expect("an upper that was cut off can be served");
    let mut all = BTreeMap::new();
    tree(&Place(overlay.root()), "", &mut all);
    all
}

/// Cuts `change` off at each call of the upper in turn.
fn cut_off(name: &str, prepare: fn(&Place) -> Outcome<()>, change: fn(&Place) -> Outcome<()>) {
    let store = Store::memory(Namespace::Trusted);
    let lowers = store.lowers(&[&fill]);
    for skip in 0..MOST_CALLS {
        let upper = stack::memory();
        // Made before, so that it is not the test that is cut off.
        upper_of(&upper);
        let faults = Arc::new(Faults::default());
        let faulty: Arc<dyn Backend> = Arc::new(Faulty::new(upper.clone(), faults.clone()));
        let options = Options {
            upper: Some(upper_of(&faulty)),
            ..Options::new(lowers.clone())
        };
        let overlay = block_on(Overlay::open(options)).expect("an overlay");
        let root = Place(overlay.root());
        prepare(&root).unwrap();
        let mut before = BTreeMap::new();
        tree(&root, "", &mut before);
        faults.after(skip, Fault::Fail(Errno::IO));
        let calls = faults.calls();
        let done = change(&root);
        let made = faults.calls().saturating_sub(calls);
        faults.clear();
        drop((root, overlay));
        let after = seen(&lowers, &upper);
        if skip >= made {
            // Not cut off at all.
            assert_eq!(done, Ok(()), "{name}");
            assert_ne!(after, before, "{name} changes something");
            return;
        }
        if after != before {
            let whole = whole(&lowers, prepare, change);
            assert_eq!(after, whole, "{name}, cut off after {skip} calls");
        }
    }
    unreachable!("{name} takes more than {MOST_CALLS} calls");
}

/// The state after the change.
fn whole(
    lowers: &[Arc<dyn Backend>],
    prepare: fn(&Place) -> Outcome<()>,
    change: fn(&Place) -> Outcome<()>,
) -> BTreeMap<String, String> {
    let upper = stack::memory();
    let options = Options {
        upper: Some(upper_of(&upper)),
        ..Options::new(lowers.to_vec())
    };
    let overlay = block_on(Overlay::open(options)).expect("an overlay");
    let root = Place(overlay.root());
    prepare(&root).unwrap();
    change(&root).unwrap();
    drop((root, overlay));
    seen(lowers, &upper)
}

fn nothing(_: &Place) -> Outcome<()> {
    Ok(())
}

#[test]
fn a_file_is_copied_up_whole_or_not_at_all() {
    cut_off("chmod", nothing, |root| {
        let dir = root.lookup("dir")?;
        dir.lookup("file")?.chmod(0o600).map(drop)
    });
    cut_off("truncate", nothing, |root| {
        let dir = root.lookup("dir")?;
        let flags = OpenFlags::WRITE | OpenFlags::TRUNCATE;
        dir.lookup("file")?.open(flags).map(drop)
    });
}

#[test]
fn the_content_of_a_copy_is_durable_before_it_has_its_name() {
    let store = Store::memory(Namespace::Trusted);
    let lowers = store.lowers(&[&fill]);
    let upper = stack::memory();
    let faults = Arc::new(Faults::default());
    let faulty: Arc<dyn Backend> = Arc::new(Faulty::new(upper.clone(), faults.clone()));
    let options = Options {
        upper: Some(upper_of(&faulty)),
        ..Options::new(lowers)
    };
    let overlay = block_on(Overlay::open(options)).expect("an overlay");
    let root = Place(overlay.root());
    root.lookup("dir").unwrap().chmod(0o750).unwrap();
    let top = root.lookup("top").unwrap();
    let flags = OpenFlags::WRITE | OpenFlags::TRUNCATE;
    top.open(flags).unwrap();
    assert_eq!(faults.syncs(), 0, "nothing was copied");
    let file = root.lookup("dir").unwrap().lookup("file").unwrap();
    let named = || {
        let dir = Place(upper.root()).lookup("upper")?.lookup("dir")?;
        dir.lookup("file")
    };
    // Cut off after each call, until the name is there.
    for skip in 0..MOST_CALLS {
        faults.after(skip, Fault::Fail(Errno::IO));
        let done = file.chmod(0o600);
        if named().is_ok() {
            break;
        }
        assert!(done.is_err(), "changed without a name in the upper");
    }
    assert!(named().is_ok(), "it takes more than {MOST_CALLS} calls");
    assert!(faults.syncs() > 0, "a name before the content");
}

#[test]
fn a_directory_is_removed_or_not() {
    cut_off("rmdir of a lower directory", nothing, |root| {
        root.rmdir("empty")
    });
    let emptied = |root: &Place| {
        let other = root.lookup("other")?;
        other.unlink("there")
    };
    cut_off("rmdir of a merged directory", emptied, |root| {
        root.rmdir("other")
    });
}

#[test]
fn a_name_is_removed_or_not() {
    cut_off("unlink", nothing, |root| root.lookup("dir")?.unlink("file"));
    let copied = |root: &Place| root.lookup("top")?.chmod(0o600).map(drop);
    cut_off("unlink of a copy", copied, |root| root.unlink("top"));
}

#[test]
fn a_new_directory_never_shows_what_was_removed() {
    let removed = |root: &Place| {
        root.lookup("other")?.unlink("there")?;
        root.rmdir("other")
    };
    cut_off("mkdir over a whiteout", removed, |root| {
        root.mkdir("other").map(drop)
    });
}

#[test]
fn a_rename_is_made_or_not() {
    cut_off("rename of a file", nothing, |root| {
        root.rename("top", root, "new")
    });
    cut_off("rename over a file", nothing, |root| {
        root.lookup("dir")?.rename("file", root, "top")
    });
    cut_off("rename of a directory", nothing, |root| {
        let other = root.lookup("other")?;
        root.lookup("dir")?.rename("sub", &other, "moved")
    });
    let emptied = |root: &Place| root.lookup("other")?.unlink("there");
    cut_off("rename over a directory", emptied, |root| {
        root.rename("dir", root, "other")
    });
    cut_off("exchange", nothing, |root| {
        root.rename_with("dir", root, "top", RenameFlags::EXCHANGE)
    });
}

#[test]
fn hard_links_stay_one_file_wherever_a_copy_is_cut_off() {
    let names = ["one", "two", "three"];
    let fill = |lower: &Place, _: &Store| {
        let file = lower.put("one", b"content").unwrap();
        lower.link(&file, "two").unwrap();
        lower.link(&file, "three").unwrap();
    };
    // Known by number in memory, by handle on the host.
    let namespace = stack::host_namespace();
    for store in [Store::memory(namespace), Store::host(namespace)] {
        let lowers = store.lowers(&[&fill]);
        let mut skip = 0;
        loop {
            let upper = stack::memory();
            upper_of(&upper);
            let faults = Arc::new(Faults::default());
            let faulty: Arc<dyn Backend> = Arc::new(Faulty::new(upper.clone(), faults.clone()));
            let options = |upper: &Arc<dyn Backend>| Options {
                namespace,
                upper: Some(upper_of(upper)),
                ..Options::new(lowers.clone())
            };
            let overlay = block_on(Overlay::open(options(&faulty))).expect("an overlay");
            let root = Place(overlay.root());
            let file = root.lookup("one").unwrap();
            let number = file.attributes().unwrap().inode;
            faults.after(skip, Fault::Fail(Errno::IO));
            let done = file.chmod(0o600);
            faults.clear();
            drop((file, root, overlay));
            let overlay = block_on(Overlay::open(options(&upper))).expect("an overlay");
            let root = Place(overlay.root());
            for order in [[0, 1, 2], [2, 1, 0]] {
                let mut seen = Vec::new();
                for name in order.map(|at| names[at]) {
                    let place = root.lookup(name).unwrap();
                    let attributes = place.attributes().unwrap();
                    assert_eq!(attributes.links, 3, "{name}, after {skip} calls");
                    assert_eq!(attributes.inode, number, "{name}, after {skip} calls");
                    assert_eq!(place.content().unwrap(), b"content");
                    seen.push(attributes.permissions);
                }
                seen.dedup();
                assert_eq!(seen.len(), 1, "one file, after {skip} calls");
            }
            if done.is_ok() {
                break;
            }
            skip += 1;
            assert!(skip < MOST_CALLS);
        }
    }
}
