//! Read-only trees over one another, whatever they are stored in.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::collections::BTreeMap;

use stack::{Store, every_store};
use vfsd_backend::{Capabilities, Device, Errno, FileKind, OpenFlags};
use vfsd_overlay::{Namespace, OpenError, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::{Outcome, Place, read_some};

fn refused<T>(outcome: Outcome<T>, errno: Errno) {
    assert_eq!(outcome.map(drop), Err(errno));
}

fn whiteout(directory: &Place, name: &str) {
    let device = Device::default();
    directory
        .mknod(name, FileKind::CharDevice, device)
        .expect("a whiteout");
}

fn content(root: &Place, path: &str) -> Outcome<String> {
    let bytes = walk(root, path)?.content()?;
    Ok(String::from_utf8(bytes).expect("text"))
}

fn walk(root: &Place, path: &str) -> Outcome<Place> {
    path.split('/')
        .try_fold(root.clone(), |place, name| place.lookup(name))
}

#[test]
fn directories_of_one_name_are_merged_and_each_name_is_listed_once() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, _| {
                let dir = top.mkdir("dir").unwrap();
                dir.put("both", b"top").unwrap();
                dir.put("above", b"above").unwrap();
            },
            &|middle, _| {
                let dir = middle.mkdir("dir").unwrap();
                dir.put("both", b"middle").unwrap();
                dir.put("between", b"between").unwrap();
            },
            &|bottom, _| {
                let dir = bottom.mkdir("dir").unwrap();
                dir.put("both", b"bottom").unwrap();
                dir.put("below", b"below").unwrap();
                bottom.symlink("link", "dir/below").unwrap();
            },
        ]);
        let dir = root.lookup("dir").unwrap();
        let names = ["above", "below", "between", "both"];
        assert_eq!(dir.names().unwrap(), names);
        assert_eq!(content(&root, "dir/both").unwrap(), "top");
        assert_eq!(content(&root, "dir/between").unwrap(), "between");
        assert_eq!(content(&root, "dir/below").unwrap(), "below");
        assert_eq!(
            root.lookup("link").unwrap().readlink().unwrap(),
            b"dir/below"
        );
        assert_eq!(root.names().unwrap(), ["dir", "link"]);
        refused(root.lookup("none"), Errno::NOENT);
        refused(walk(&root, "dir/both/x"), Errno::NOTDIR);
    });
}

#[test]
fn what_is_listed_has_the_inode_number_and_the_kind_that_its_attributes_show() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, _| {
                top.mkdir("dir").unwrap();
                top.put("one", b"").unwrap();
            },
            &|bottom, _| {
                bottom.mkdir("dir").unwrap();
                bottom.put("two", b"").unwrap();
            },
        ]);
        let mut numbers = BTreeMap::new();
        for entry in root.list().unwrap() {
            let name = String::from_utf8(entry.name).unwrap();
            let place = match name.as_str() {
                "." | ".." => root.clone(),
                name => root.lookup(name).unwrap(),
            };
            let attributes = place.attributes().unwrap();
            assert_eq!(entry.inode, attributes.inode, "{name}");
            assert_eq!(entry.kind, Some(attributes.kind), "{name}");
            numbers.insert(attributes.inode, name);
        }
        assert_eq!(numbers.len(), 4, "{numbers:?}");
    });
}

#[test]
fn a_whiteout_hides_what_is_below_and_itself() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, _| {
                whiteout(top, "file");
                whiteout(top, "dir");
                top.mkdir("kept")
                    .map(|kept| whiteout(&kept, "gone"))
                    .unwrap();
            },
            &|bottom, _| {
                bottom.put("file", b"").unwrap();
                bottom.mkdir("dir").unwrap().put("below", b"").unwrap();
                let kept = bottom.mkdir("kept").unwrap();
                kept.put("gone", b"").unwrap();
                kept.put("there", b"").unwrap();
                // Nothing is below this one.
                whiteout(&kept, "vain");
            },
        ]);
        assert_eq!(root.names().unwrap(), ["kept"]);
        for name in ["file", "dir"] {
            refused(root.lookup(name), Errno::NOENT);
        }
        let kept = root.lookup("kept").unwrap();
        assert_eq!(kept.names().unwrap(), ["there"]);
        refused(kept.lookup("gone"), Errno::NOENT);
        refused(kept.lookup("vain"), Errno::NOENT);
    });
}

#[test]
fn a_file_is_a_whiteout_where_its_mark_and_its_directory_say_so() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, store| {
                for (name, opaque) in [("marked", Some(&b"x"[..])), ("plain", None)] {
                    let dir = top.mkdir(name).unwrap();
                    if let Some(value) = opaque {
                        dir.setxattr(&store.own("opaque"), value).unwrap();
                    }
                    for (name, bytes) in [("empty", &b""[..]), ("full", b"x")] {
                        let file = dir.put(name, bytes).unwrap();
                        file.setxattr(&store.own("whiteout"), b"").unwrap();
                    }
                    dir.put("ordinary", b"").unwrap();
                }
            },
            &|bottom, _| {
                for name in ["marked", "plain"] {
                    let dir = bottom.mkdir(name).unwrap();
                    dir.put("empty", b"below").unwrap();
                    dir.put("other", b"").unwrap();
                }
            },
        ]);
        let marked = root.lookup("marked").unwrap();
        assert_eq!(marked.names().unwrap(), ["full", "ordinary", "other"]);
        refused(marked.lookup("empty"), Errno::NOENT);
        let plain = root.lookup("plain").unwrap();
        assert_eq!(
            plain.names().unwrap(),
            ["empty", "full", "ordinary", "other"]
        );
        assert_eq!(content(&plain, "empty").unwrap(), "");
    });
}

#[test]
fn an_opaque_directory_and_a_file_hide_the_directories_below() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, store| {
                let opaque = top.mkdir("opaque").unwrap();
                opaque.setxattr(&store.own("opaque"), b"y").unwrap();
                opaque.put("mine", b"").unwrap();
                top.mkdir("over-a-file").unwrap();
            },
            &|middle, _| {
                middle.put("over-a-file", b"").unwrap();
                middle.put("a-file", b"").unwrap();
            },
            &|bottom, _| {
                for name in ["opaque", "over-a-file", "a-file"] {
                    bottom.mkdir(name).unwrap().put("below", b"").unwrap();
                }
            },
        ]);
        assert_eq!(root.lookup("opaque").unwrap().names().unwrap(), ["mine"]);
        let over = root.lookup("over-a-file").unwrap();
        assert_eq!(over.names().unwrap(), [""; 0]);
        let file = root.lookup("a-file").unwrap();
        assert_eq!(file.attributes().unwrap().kind, FileKind::Regular);
    });
}

#[test]
fn redirects_are_followed_by_name_and_by_path() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, store| {
                let renamed = top.mkdir("renamed").unwrap();
                renamed.setxattr(&store.own("redirect"), b"old").unwrap();
                whiteout(top, "old");
                let moved = top.mkdir("other").unwrap().mkdir("moved").unwrap();
                moved
                    .setxattr(&store.own("redirect"), b"/old/inner")
                    .unwrap();
                // Inside of an opaque directory the path counts all the same.
                let opaque = top.mkdir("opaque").unwrap();
                opaque.setxattr(&store.own("opaque"), b"y").unwrap();
                let back = opaque.mkdir("back").unwrap();
                back.setxattr(&store.own("redirect"), b"/far").unwrap();
            },
            &|middle, store| {
                let old = middle.mkdir("old").unwrap();
                old.put("middle", b"").unwrap();
                old.setxattr(&store.own("redirect"), b"oldest").unwrap();
                middle.mkdir("far").unwrap().put("away", b"").unwrap();
            },
            &|bottom, _| {
                let oldest = bottom.mkdir("oldest").unwrap();
                oldest.put("bottom", b"").unwrap();
                oldest.mkdir("inner").unwrap().put("deep", b"").unwrap();
                bottom.mkdir("old").unwrap().put("wrong", b"").unwrap();
            },
        ]);
        let names = |path| walk(&root, path).and_then(|place| place.names()).unwrap();
        assert_eq!(names("renamed"), ["bottom", "inner", "middle"]);
        assert_eq!(names("other/moved"), ["deep"]);
        assert_eq!(names("opaque/back"), ["away"]);
        refused(root.lookup("old"), Errno::NOENT);
    });
}

#[test]
fn a_redirect_that_is_no_path_is_an_error_and_harms_nothing_else() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, store| {
                let bad = top.mkdir("bad").unwrap();
                bad.setxattr(&store.own("redirect"), b"/../etc").unwrap();
                top.mkdir("good").unwrap();
            },
            &|_, _| {},
        ]);
        refused(root.lookup("bad"), Errno::IO);
        assert!(root.has("good"));
    });
}

#[test]
fn the_overlays_own_attributes_are_hidden_and_those_of_programs_are_not() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, store| {
                let dir = top.mkdir("dir").unwrap();
                dir.setxattr(&store.own("opaque"), b"y").unwrap();
                dir.setxattr(&store.own("overlay.opaque"), b"mine").unwrap();
                dir.setxattr("user.x", b"value").unwrap();
            },
            &|_, _| {},
        ]);
        let dir = root.lookup("dir").unwrap();
        let names: Vec<_> = dir
            .xattr_names()
            .unwrap()
            .into_iter()
            .filter(|name| !name.starts_with("security."))
            .collect();
        assert_eq!(names, [store.own("opaque"), "user.x".to_owned()]);
        assert_eq!(dir.getxattr(&store.own("opaque")).unwrap(), b"mine");
        assert_eq!(dir.getxattr("user.x").unwrap(), b"value");
        refused(dir.getxattr(&store.own("redirect")), Errno::NODATA);
    });
}

#[test]
fn a_file_is_one_node_however_it_is_reached() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, _| {
                top.mkdir("dir").unwrap();
            },
            &|bottom, _| {
                let file = bottom.put("file", b"").unwrap();
                bottom.mkdir("dir").unwrap().link(&file, "again").unwrap();
            },
        ]);
        let file = root.lookup("file").unwrap();
        let dir = root.lookup("dir").unwrap();
        assert_eq!(root.lookup("file").unwrap().identity(), file.identity());
        assert_eq!(root.lookup("dir").unwrap().identity(), dir.identity());
        assert_eq!(dir.lookup("again").unwrap().identity(), file.identity());
        assert_ne!(dir.identity(), root.identity());
    });
}

#[test]
fn cookies_of_an_open_directory_stay() {
    every_store(|store| {
        let fill = |from: usize| {
            move |layer: &Place, _: &Store| {
                for number in from..from + 20 {
                    layer.put(&format!("file-{number:02}"), b"").unwrap();
                }
            }
        };
        let root = store.overlay(&[&fill(0), &fill(10)]);
        let open = root.opendir().unwrap();
        let all = read_some(open.as_ref(), 0, 100).unwrap();
        assert_eq!(all.len(), 32, "30 files and both dots");
        for (index, entry) in all.iter().enumerate() {
            let rest = read_some(open.as_ref(), entry.next, 100).unwrap();
            assert_eq!(rest, all[index + 1..]);
        }
        assert_eq!(read_some(open.as_ref(), u64::MAX, 100).unwrap(), []);
        for (index, entry) in all.iter().enumerate() {
            let anew = root.opendir().unwrap();
            let rest = read_some(anew.as_ref(), entry.next, 100).unwrap();
            assert_eq!(
                rest,
                all[index + 1..],
                "also in a directory that is opened anew"
            );
        }
    });
}

#[test]
fn nothing_can_be_changed() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, _| {
                top.put("file", b"").unwrap();
            },
            &|_, _| {},
        ]);
        let file = root.lookup("file").unwrap();
        refused(file.open(OpenFlags::READ | OpenFlags::WRITE), Errno::ROFS);
        refused(
            file.open(OpenFlags::READ | OpenFlags::TRUNCATE),
            Errno::ROFS,
        );
        refused(file.chmod(0o600), Errno::ROFS);
        refused(root.put("new", b""), Errno::ROFS);
    });
}

#[test]
fn an_overlay_needs_directories() {
    let none = block_on(Overlay::open(Options::new(Vec::new())));
    assert!(matches!(none, Err(OpenError::NoLower)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let file = vfsd_passthrough::Passthrough::open(&path, Default::default()).unwrap();
    let refused = block_on(Overlay::open(Options::new(vec![std::sync::Arc::new(file)])));
    let told = refused.unwrap_err().to_string();
    assert!(
        told.starts_with("lower layer 1 of the overlay is no directory:"),
        "{told}"
    );
}

#[test]
fn only_what_all_layers_can_do_is_offered() {
    use vfsd_backend::Backend;
    let store = Store::memory(Namespace::Trusted);
    let overlay = store.open(&[&|_, _| {}]);
    let offered = overlay.capabilities();
    assert!(offered.contains(Capabilities::XATTR));
    assert!(
        !offered.contains(Capabilities::IMMUTABLE),
        "memory can be changed"
    );
}

#[test]
fn a_file_whose_content_is_in_a_layer_below_is_an_error_and_never_zeros() {
    every_store(|store| {
        let root = store.overlay(&[
            &|top, store| {
                for name in ["metacopy", "attributes", "sparse"] {
                    let file = top.put(name, b"").unwrap();
                    file.truncate(7).unwrap();
                    if name != "sparse" {
                        file.setxattr(&store.own("metacopy"), b"").unwrap();
                    }
                    if name == "attributes" {
                        // They take a block of their own on ext4.
                        file.setxattr("user.large", &[b'x'; 600]).unwrap();
                    }
                }
                top.put("whole", b"content").unwrap();
            },
            &|bottom, _| {
                for name in ["metacopy", "attributes", "sparse", "whole"] {
                    bottom.put(name, b"below..").unwrap();
                }
            },
        ]);
        for name in ["metacopy", "attributes"] {
            refused(content(&root, name), Errno::IO);
        }
        assert_eq!(content(&root, "sparse").unwrap(), "\0\0\0\0\0\0\0");
        assert_eq!(content(&root, "whole").unwrap(), "content");
    });
}
