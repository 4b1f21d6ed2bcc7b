//! What is written, as other clients read it.

use std::process::Command;
use std::time::Duration;

use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt, PutOptions};
use vfsd_backend::{AttributeChanges, Backend, Errno, LockOwner, SetTime, Timestamp};
use vfsd_object_store::{FlatBucket, FlatOptions, Overwrite, Staging, WriteOptions};
use vfsd_testkit::place::{Handle, Place, wait};
use vfsd_testkit::servers::{ACCESS_KEY, SECRET_KEY, StoreServer};

use crate::scene::{Scene, Servers, runtime};
use crate::{GOOD, RCLONE, Test, WRITABLE, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "what_is_written_is_there_under_its_condition",
        WRITABLE,
        conditions,
    ),
    test(
        "a_server_that_ignores_conditions_is_not_written",
        &[StoreServer::Rclone],
        refused,
    ),
    test("attributes_change_without_an_upload", GOOD, attributes),
    test("directories_are_marker_objects", GOOD, markers),
    test("files_and_directories_are_moved", WRITABLE, moves),
    Test {
        tool: Some(RCLONE),
        ..test("what_was_written_is_read_by_rclone", GOOD, rclone_reads)
    },
];

pub(crate) fn writable(scene: &Scene, folder: &std::path::Path) -> (FlatBucket, Place) {
    let options = FlatOptions {
        lifetime: Duration::ZERO,
        write: Some(WriteOptions {
            staging: Staging::open(folder, 1 << 30).unwrap(),
            overwrite: Overwrite::Refuse,
        }),
        ..FlatOptions::default()
    };
    let bucket = scene.flat("", options);
    let root = Place(bucket.root());
    (bucket, root)
}

fn refused(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let folder = tempfile::tempdir().unwrap();
    let options = FlatOptions {
        write: Some(WriteOptions {
            staging: Staging::open(folder.path(), 1 << 30).unwrap(),
            overwrite: Overwrite::Refuse,
        }),
        ..FlatOptions::default()
    };
    let store = scene.store();
    let opened = runtime().block_on(FlatBucket::open(store.clone(), "", options));
    let refused = opened.unwrap_err().to_string();
    assert!(refused.contains("last-wins"), "{refused}");
    // This service goes on listing an object of a race that was removed.
    let left = runtime().block_on(store.list(&Default::default())).unwrap();
    let raced = |key: &str| key.starts_with(".vfsd-probe-") && key.ends_with("-race");
    assert!(
        left.objects.iter().all(|object| raced(&object.key)),
        "{left:?}"
    );
}

fn close(handle: &Handle) -> Result<(), Errno> {
    wait(handle.0.flush(LockOwner(1)))
}

pub(crate) fn put_file(root: &Place, name: &str, body: &[u8]) {
    let (_, handle) = root.create(name).unwrap();
    handle.write_all(0, body).unwrap();
    close(&handle).unwrap();
}

fn names(place: &Place) -> Vec<String> {
    let mut names = place.names().unwrap();
    names.sort();
    names
}

/// What another client reads.
pub(crate) fn object(scene: &Scene, key: &str) -> Option<Vec<u8>> {
    let store = scene.store();
    runtime().block_on(async {
        let got = store.objects().get(&Path::parse(key).unwrap()).await.ok()?;
        Some(got.bytes().await.unwrap().to_vec())
    })
}

fn conditions(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let (_bucket, root) = writable(&scene, folder.path());
    put_file(&root, "f", b"hello");
    assert_eq!(object(&scene, "f").unwrap(), b"hello");
    let large = b"0123456789abcdefg".repeat(1_200_000);
    put_file(&root, "large", &large);
    assert!(object(&scene, "large").unwrap() == large);
    assert!(root.lookup("large").unwrap().content().unwrap() == large);

    let (_, handle) = root.create("g").unwrap();
    handle.write_all(0, b"ours").unwrap();
    scene.put("g", "theirs");
    assert_eq!(close(&handle), Err(Errno::IO));
    assert_eq!(object(&scene, "g").unwrap(), b"theirs");
    drop(handle);
    let names = names(&root);
    let copy = names
        .iter()
        .find(|name| name.starts_with("g.vfsd-conflict-"));
    assert_eq!(object(&scene, copy.unwrap()).unwrap(), b"ours");
    assert_eq!(root.lookup("g").unwrap().content().unwrap(), b"theirs");

    let f = root.lookup("f").unwrap();
    f.chmod(0o4750).unwrap();
    f.chown(7, 8).unwrap();
    wait(f.0.syncfs()).unwrap();
    let said = said(&scene, "f");
    assert_eq!(
        [said("mode"), said("uid"), said("gid")],
        ["35304", "7", "8"]
    );
    assert_eq!(object(&scene, "f").unwrap(), b"hello");
}

/// What the object's metadata says to another client.
fn said(scene: &Scene, key: &str) -> impl Fn(&'static str) -> String {
    let options = GetOptions {
        head: true,
        ..GetOptions::default()
    };
    let (store, path) = (scene.store(), Path::parse(key).unwrap());
    let seen = store.objects().get_opts(&path, options);
    let seen = runtime().block_on(seen).unwrap();
    move |name| {
        let name = match name {
            "content-type" => Attribute::ContentType,
            name => Attribute::Metadata(name.into()),
        };
        let value = seen.attributes.get(&name);
        value.map_or_else(String::new, |value| value.as_ref().to_owned())
    }
}

fn attributes(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let (bucket, root) = writable(&scene, folder.path());
    let (key, large) = ("a b/\u{e4}+%41&=", vec![b'x'; 20 << 20]);
    let options = PutOptions::from(Attributes::from_iter([
        (Attribute::ContentType, "text/x-test"),
        (Attribute::Metadata("team".into()), "blue, green"),
    ]));
    let path = Path::parse(key).unwrap();
    let store = scene.store();
    let put = store.objects().put_opts(&path, "small".into(), options);
    runtime().block_on(put).unwrap();
    put_file(&root, "large", &large);
    let before = bucket.store().counters().requests();
    for (mode, uid) in [(0o4711, 7), (0o600, 8)] {
        for name in [key, "large"] {
            let file = name.split('/').fold(Place(bucket.root()), |place, name| {
                place.lookup(name).unwrap()
            });
            file.chmod(mode).unwrap();
            file.chown(uid, 9).unwrap();
            file.setxattr("user.colour", &[0, 255, 7]).unwrap();
            wait(file.0.syncfs()).unwrap();
            assert_eq!(file.getxattr("user.colour").unwrap(), [0, 255, 7]);
            let said = said(&scene, name);
            assert_eq!(said("mode"), (0o100_000 | mode).to_string(), "{name}");
            assert_eq!(
                (said("uid"), said("gid")),
                (uid.to_string(), "9".to_owned())
            );
            if name == key {
                assert_eq!(said("team"), "blue, green");
                let names = file.xattr_names().unwrap();
                assert_eq!(names, ["user.colour", "user.team"]);
                assert_eq!(said("content-type"), "text/x-test");
                assert_eq!(object(&scene, name).unwrap(), b"small");
                assert_eq!(file.content().unwrap(), b"small");
            } else {
                assert!(object(&scene, name).unwrap() == large);
                assert!(file.content().unwrap() == large);
            }
        }
    }
    let after = bucket.store().counters().requests();
    let sent = (after.puts - before.puts, after.copies - before.copies);
    match kind {
        // Moto ignores the condition of a copy, which is found out once.
        StoreServer::Moto => assert_eq!(sent, (3, 1)),
        _ => assert_eq!(sent, (0, 5), "nothing is sent again"),
    }

    // Nobody else's object gets our attributes.
    let f = root.lookup("large").unwrap();
    f.chmod(0o640).unwrap();
    scene.put("large", "theirs");
    assert_eq!(wait(f.0.syncfs()), Err(Errno::IO));
    assert_eq!(object(&scene, "large").unwrap(), b"theirs");
    assert_eq!(said(&scene, "large")("mode"), "");
}

fn markers(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let (bucket, root) = writable(&scene, folder.path());
    let d = root.mkdir("d").unwrap();
    // SeaweedFS keeps what a marker said first.
    let permissions = match kind {
        StoreServer::SeaweedFs => 0o755,
        _ => d.chmod(0o700).unwrap().permissions,
    };
    let page = runtime()
        .block_on(scene.store().list(&Default::default()))
        .unwrap();
    let keys: Vec<_> = page
        .objects
        .iter()
        .map(|object| object.key.as_str())
        .collect();
    assert_eq!(keys, ["d/"]);
    drop(bucket);
    let (_bucket, root) = writable(&scene, folder.path());
    let d = root.lookup("d").unwrap();
    assert_eq!(d.attributes().unwrap().permissions, permissions);
    put_file(&d, "f", b"1");
    assert_eq!(root.rmdir("d").err(), Some(Errno::NOTEMPTY));
    d.unlink("f").unwrap();
    assert!(root.has("d"));
    root.rmdir("d").unwrap();
    assert!(!root.has("d"));
}

fn moves(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let (_bucket, root) = writable(&scene, folder.path());
    let d = root.mkdir("d").unwrap();
    put_file(&d.mkdir("e").unwrap(), "deep", b"deep");
    put_file(&d, "f", b"moved");
    d.symlink("l", "f").unwrap();
    root.rename("d", &root, "n").unwrap();
    assert!(!root.has("d"));
    let n = root.lookup("n").unwrap();
    let inside: Vec<_> = names(&n)
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(inside, ["e", "f", "l"]);
    assert_eq!(n.lookup("l").unwrap().readlink().unwrap(), b"f");
    n.rename("f", &root, "g").unwrap();
    assert_eq!(object(&scene, "g").unwrap(), b"moved");
    assert_eq!(object(&scene, "n/f"), None);
    assert_eq!(object(&scene, "n/e/deep").unwrap(), b"deep");
    assert_eq!(names(&root).iter().filter(|name| *name == "d").count(), 0);
}

fn rclone_reads(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let (_bucket, root) = writable(&scene, folder.path());
    let d = root.mkdir("d").unwrap();
    put_file(&d, "f", b"read by another");
    let f = d.lookup("f").unwrap();
    f.set(AttributeChanges {
        modified: Some(SetTime::At(Timestamp {
            seconds: 981_173_106,
            nanoseconds: 250_000_000,
        })),
        ..AttributeChanges::default()
    })
    .unwrap();
    wait(f.0.syncfs()).unwrap();
    let copied = folder.path().join("copied");
    let status = Command::new("timeout")
        .arg("120")
        .arg(StoreServer::Rclone.find().unwrap())
        .arg("copy")
        .arg(format!("w:{}", scene.bucket()))
        .arg(&copied)
        .env("HOME", folder.path())
        .env("RCLONE_CONFIG_W_TYPE", "s3")
        .env("RCLONE_CONFIG_W_PROVIDER", "Other")
        .env("RCLONE_CONFIG_W_ENDPOINT", scene.server().endpoint())
        .env("RCLONE_CONFIG_W_ACCESS_KEY_ID", ACCESS_KEY)
        .env("RCLONE_CONFIG_W_SECRET_ACCESS_KEY", SECRET_KEY)
        .status()
        .unwrap();
    assert!(status.success());
    let file = copied.join("d/f");
    assert_eq!(std::fs::read(&file).unwrap(), b"read by another");
    let modified = file.metadata().unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!((since.as_secs(), since.subsec_millis()), (981_173_106, 250));
}
