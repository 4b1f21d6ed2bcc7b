//! Which names there are, what they cost, and what is known of them.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStoreExt, PutOptions};
use tokio::time::advance;
use vfsd_backend::{Backend, Errno, FileKind};

use super::{Scene, list, list_plus, lookup, names, open, put, read};
use crate::flat::{FlatBucket, FlatOptions};
use crate::store::{RetryPolicy, Store};

#[tokio::test(start_paused = true)]
async fn a_bucket_is_a_tree_of_files() {
    let scene = Scene::new(&[("a.txt", "hello"), ("d/e/f", "12"), ("d/g", "")]).await;
    let root = scene.bucket.root();
    assert_eq!(names(root.as_ref()).await, [".", "..", "a.txt", "d"]);
    let d = scene.find("d").await.unwrap();
    assert_eq!(
        (d.attributes.kind, d.attributes.permissions),
        (FileKind::Directory, 0o755)
    );
    assert_eq!(names(d.node.as_ref()).await, [".", "..", "e", "g"]);
    let f = scene.find("d/e/f").await.unwrap();
    assert_eq!((f.attributes.size, f.attributes.permissions), (2, 0o644));
    let file = scene.open("a.txt").await.unwrap();
    assert_eq!(read(file.as_ref(), 1, 100).await.unwrap(), b"ello");
    assert_eq!(read(file.as_ref(), 5, 100).await.unwrap(), b"");
    assert_eq!(read(file.as_ref(), 1 << 40, 100).await.unwrap(), b"");
    let empty = scene.open("d/g").await.unwrap();
    assert_eq!(read(empty.as_ref(), 0, 100).await.unwrap(), b"");
    assert!(matches!(scene.find("a.txt/x").await, Err(Errno::NOTDIR)));
    assert!(matches!(
        lookup(root.as_ref(), b"\xff").await,
        Err(Errno::NOENT)
    ));
    assert!(matches!(
        lookup(root.as_ref(), b"a\nb").await,
        Err(Errno::NOENT)
    ));
}

#[tokio::test(start_paused = true)]
async fn what_was_just_listed_is_looked_up_without_a_request() {
    let mut scene = Scene::new(&[("d/a", "1"), ("d/b", "1"), ("d/c/x", "1")]).await;
    let d = scene.find("d").await.unwrap().node;
    assert_eq!(
        scene.requests(),
        (1, 1, 0),
        "a lookup is one HEAD and one LIST"
    );
    names(d.as_ref()).await;
    assert_eq!(scene.requests(), (0, 1, 0));
    names(d.as_ref()).await;
    for name in ["a", "b", "c"] {
        let entry = lookup(d.as_ref(), name.as_bytes()).await.unwrap();
        entry.node.getattr().await.unwrap();
        if entry.attributes.kind == FileKind::Regular {
            open(entry.node.as_ref()).await.unwrap();
        }
    }
    assert!(lookup(d.as_ref(), b"nothing").await.is_err());
    assert_eq!(scene.requests(), (0, 0, 0));

    advance(Duration::from_secs(1)).await;
    assert!(lookup(d.as_ref(), b"nothing").await.is_err());
    assert_eq!(scene.requests(), (1, 1, 0));
    assert!(lookup(d.as_ref(), b"nothing").await.is_err());
    lookup(d.as_ref(), b"a").await.unwrap();
    lookup(d.as_ref(), b"a").await.unwrap();
    assert_eq!(
        scene.requests(),
        (1, 1, 0),
        "what is not there is remembered, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_and_a_directory_of_the_same_name_are_the_directory() {
    let scene = Scene::new(&[("a", "file"), ("a.b", "1"), ("a/b", "1")]).await;
    assert_eq!(
        scene.find("a").await.unwrap().attributes.kind,
        FileKind::Directory
    );
    assert_eq!(scene.bucket.hidden(), 1);
    let root = scene.bucket.root();
    assert_eq!(names(root.as_ref()).await, [".", "..", "a", "a.b"]);
    assert_eq!(scene.bucket.hidden(), 2);
    assert_eq!(
        scene.find("a").await.unwrap().attributes.kind,
        FileKind::Directory
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_directory_is_listed_page_by_page_each_name_once() {
    let mut scene = Scene::new(&[]).await;
    for number in 0..12_345 {
        put(&scene.below, &format!("d/{number}"), "1".to_owned()).await;
    }
    let d = scene.find("d").await.unwrap().node;
    scene.requests();
    let directory = d.opendir().await.unwrap();
    let mut seen = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = list(directory.as_ref(), cookie, 900).await.unwrap();
        let Some(last) = entries.last() else { break };
        cookie = last.next;
        seen.extend(entries);
    }
    assert_eq!(scene.requests(), (0, 13, 0));
    let mut names: Vec<_> = seen.iter().map(|entry| &entry.name).collect();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), seen.len()), (12_347, 12_347));
    // Lookups of what was listed need no request, however large the directory is.
    lookup(d.as_ref(), b"77").await.unwrap();
    assert_eq!(scene.requests(), (0, 0, 0));

    // Cookies hold on a handle that knows nothing, forwards and backwards.
    let other = d.opendir().await.unwrap();
    for place in [11_000, 40, 12_000, 5] {
        let entries = list(other.as_ref(), seen[place].next, 3).await.unwrap();
        assert_eq!(entries[0], seen[place + 1]);
    }
    assert!(list(other.as_ref(), u64::MAX, 3).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_open_directories_keep_few_names_and_go_on_all_the_same() {
    let scene = Scene::new(&[]).await;
    for number in 0..900 {
        put(&scene.below, &format!("d/{number}"), "1".to_owned()).await;
    }
    let d = scene.find("d").await.unwrap().node;
    let mut open = Vec::new();
    for _ in 0..100 {
        let directory = d.opendir().await.unwrap();
        let first = list(directory.as_ref(), 0, 10).await.unwrap();
        open.push((directory, first));
    }
    for (directory, mut seen) in open {
        let rest = list(directory.as_ref(), seen[9].next, 1000).await.unwrap();
        seen.extend(rest);
        let mut names: Vec<_> = seen.into_iter().map(|entry| entry.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 902);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_with_attributes_needs_no_request_for_each_file() {
    let mut scene = Scene::new(&[("a", "123"), ("d/x", "1")]).await;
    let directory = scene.bucket.root().opendir().await.unwrap();
    let listed = list_plus(directory.as_ref()).await;
    assert_eq!(scene.requests(), (0, 1, 0));
    assert_eq!(listed.len(), 2);
    for (name, entry) in listed {
        let listed = entry.unwrap();
        let found = lookup(scene.bucket.root().as_ref(), &name).await.unwrap();
        assert_eq!(found.node.identity(), listed.node.identity());
        assert_eq!(found.attributes, listed.attributes);
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_of_other_tools_is_shown_once_the_object_was_looked_at() {
    let scene = Scene::new(&[]).await;
    let mut attributes = Attributes::new();
    for (name, value) in [
        ("mode", "33256"),
        ("uid", "7"),
        ("gid", "8"),
        ("mtime", "1600000000.5"),
    ] {
        attributes.insert(Attribute::Metadata(name.into()), value.into());
    }
    let options = PutOptions::from(attributes);
    scene
        .below
        .inner()
        .put_opts(&Path::from("f"), "1".into(), options)
        .await
        .unwrap();
    let check = |attributes: vfsd_backend::Attributes| {
        assert_eq!(
            (attributes.permissions, attributes.uid, attributes.gid),
            (0o750, 7, 8)
        );
        assert_eq!(attributes.modified.seconds, 1_600_000_000);
    };
    let found = scene.find("f").await.unwrap();
    check(found.attributes);
    // A listing knows nothing of it, but what is known stays known.
    names(scene.bucket.root().as_ref()).await;
    check(scene.find("f").await.unwrap().attributes);
    advance(Duration::from_secs(2)).await;
    names(scene.bucket.root().as_ref()).await;
    check(scene.find("f").await.unwrap().attributes);
}

#[tokio::test(start_paused = true)]
async fn files_that_nobody_knows_any_more_are_forgotten() {
    let scene = Scene::new(&[("d/a", "1"), ("d/b", "1")]).await;
    let numbers = |scene: &Scene| scene.bucket.bucket.numbers.len();
    let found = [
        scene.find("d/a").await.unwrap(),
        scene.find("d/b").await.unwrap(),
    ];
    assert_eq!(numbers(&scene), 3, "root and both");
    drop(found);
    assert_eq!(numbers(&scene), 1);
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_the_root() {
    let below = Arc::new(InMemory::new());
    for key in ["p/q/a", "p/q/d/x", "p/qq", "other"] {
        below.put(&Path::from(key), "1".into()).await.unwrap();
    }
    let store = Store::over(below, RetryPolicy::default());
    let bucket = FlatBucket::open(store, "p/q/", FlatOptions::default())
        .await
        .unwrap();
    let root = bucket.root();
    assert_eq!(names(root.as_ref()).await, [".", "..", "a", "d"]);
    let d = lookup(root.as_ref(), b"d").await.unwrap();
    assert_eq!(names(d.node.as_ref()).await, [".", "..", "x"]);
    let a = lookup(root.as_ref(), b"a").await.unwrap();
    let file = open(a.node.as_ref()).await.unwrap();
    assert_eq!(read(file.as_ref(), 0, 9).await.unwrap(), b"1");
}
