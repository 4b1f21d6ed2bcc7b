//! A bucket's objects as files.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use vfsd_backend::{Errno, OpenFlags};
use vfsd_object_store::{DiskCache, FlatBucket, FlatOptions, RetryPolicy, Store, StoreUrl};
use vfsd_testkit::place::Place;
use vfsd_testkit::servers::{ACCESS_KEY, SECRET_KEY, StoreServer};

use crate::scene::{Scene, Servers, runtime};
use crate::{ALL, GOOD, RCLONE, Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("a_bucket_is_a_tree", ALL, tree),
    test("a_directory_of_several_pages_is_listed_whole", GOOD, pages),
    test("an_open_file_never_shows_another_version", ALL, versions),
    test(
        "a_large_object_is_read_in_sequence_and_by_jumps",
        ALL,
        large,
    ),
    test(
        "a_second_client_reads_what_the_first_left_on_the_disk",
        ALL,
        shared_disk,
    ),
    test(
        "keys_that_are_no_names_are_hidden_and_the_others_shown",
        &[StoreServer::Moto],
        odd_keys,
    ),
    test(
        "metadata_of_s3fs_and_rclone_is_shown",
        &[StoreServer::Moto],
        metadata,
    ),
    Test {
        tool: Some(RCLONE),
        ..test("what_rclone_wrote_is_read", GOOD, rclone_wrote)
    },
    test(
        "a_store_that_refuses_says_what_to_do",
        &[StoreServer::SeaweedFs],
        refusals,
    ),
    test("a_bucket_that_is_not_there_is_named", GOOD, no_bucket),
];

/// Bytes that are different everywhere.
fn content(length: usize) -> Vec<u8> {
    let words =
        (0..u64::MAX).flat_map(|word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(length).collect()
}

fn at_once() -> FlatOptions {
    FlatOptions {
        lifetime: Duration::ZERO,
        ..FlatOptions::default()
    }
}

fn tree(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    for key in [
        "a.txt",
        "d/e/f",
        "d/g",
        "spaces and \u{e4}\u{1f600}/100%",
        "~&<>'\"#?*[]{}|^`;=+,@$!",
    ] {
        scene.put(key, key.to_owned());
    }
    let (bucket, root) = scene.root();
    let names = root.names().unwrap();
    assert_eq!(names.len(), 4, "{names:?}");

    assert_eq!(root.lookup("a.txt").unwrap().content().unwrap(), b"a.txt");
    let deep = root
        .lookup("d")
        .unwrap()
        .lookup("e")
        .unwrap()
        .lookup("f")
        .unwrap();
    assert_eq!(deep.content().unwrap(), b"d/e/f");
    let odd = "~&<>'\"#?*[]{}|^`;=+,@$!";
    assert_eq!(root.lookup(odd).unwrap().content().unwrap(), odd.as_bytes());
    let folder = root.lookup("spaces and \u{e4}\u{1f600}").unwrap();
    assert_eq!(folder.names().unwrap(), ["100%"]);
    let inner = folder.lookup("100%").unwrap();
    assert_eq!(
        inner.content().unwrap().len(),
        "spaces and \u{e4}\u{1f600}/100%".len()
    );
    assert_eq!(root.lookup("nothing").err(), Some(Errno::NOENT));
    assert_eq!(root.lookup("a.tx").err(), Some(Errno::NOENT));
    assert_eq!(bucket.hidden(), 0);

    // Without a listing, by lookups alone.
    let root = place(&scene.flat("d/", at_once()));
    let before = bucket.store().counters().requests();
    assert_eq!(root.lookup("g").unwrap().content().unwrap(), b"d/g");
    assert_eq!(
        bucket.store().counters().requests(),
        before,
        "another client counts for itself"
    );
}

fn place(bucket: &FlatBucket) -> Place {
    use vfsd_backend::Backend;
    Place(bucket.root())
}

fn pages(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let store = scene.store();
    runtime().block_on(async {
        let keys: Vec<_> = (0..2300).map(|number| format!("d/{number}")).collect();
        for part in keys.chunks(50) {
            let puts = part.iter().map(|key| async {
                store
                    .objects()
                    .put(&Path::from(key.as_str()), "1".into())
                    .await
                    .unwrap();
            });
            join_all(puts).await;
        }
        for number in 0..30 {
            let key = Path::from(format!("d/sub{number}/x"));
            store.objects().put(&key, "1".into()).await.unwrap();
        }
    });
    let (bucket, root) = scene.root();
    let names = root.lookup("d").unwrap().names().unwrap();
    let mut expected: Vec<_> = (0..2300).map(|number| number.to_string()).collect();
    expected.extend((0..30).map(|number| format!("sub{number}")));
    expected.sort();
    assert!(names == expected, "{} of {}", names.len(), expected.len());
    let requests = bucket.store().counters().requests();
    // One to open it, one with a HEAD to find `d`, and the pages.
    assert_eq!((requests.heads, requests.lists), (1, 2 + 3));
}

fn versions(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let old = content(3 << 20);
    let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
    scene.put("f", old.clone());
    let root = place(&scene.flat("", at_once()));
    let file = root.lookup("f").unwrap().open(OpenFlags::READ).unwrap();
    assert!(file.read(0, 4096).unwrap() == old[..4096]);
    scene.put("f", new.clone());
    assert_eq!(file.read(2 << 20, 4096), Err(Errno::STALE));
    let file = root.lookup("f").unwrap().open(OpenFlags::READ).unwrap();
    assert!(file.content().unwrap() == new);
    let store = scene.store();
    runtime()
        .block_on(store.objects().delete(&Path::from("f")))
        .unwrap();
    assert_eq!(root.lookup("f").err(), Some(Errno::NOENT));
}

fn large(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let body = content((24 << 20) + 12_345);
    scene.put("large", body.clone());
    let (bucket, root) = scene.root();
    let file = root.lookup("large").unwrap().open(OpenFlags::READ).unwrap();
    assert!(file.content().unwrap() == body);
    let sequential = bucket.store().counters().requests();
    assert!(sequential.gets < 30, "{sequential:?}");
    assert_eq!(sequential.bytes_read, u64::try_from(body.len()).unwrap());

    let (bucket, root) = scene.root();
    let file = root.lookup("large").unwrap().open(OpenFlags::READ).unwrap();
    for number in (0..40_usize).rev() {
        let offset = number * 611_953 + 7;
        let got = file.read(u64::try_from(offset).unwrap(), 4096).unwrap();
        assert!(got == body[offset..(offset + 4096).min(body.len())]);
    }
    // At most all of it, and what came one by one before that.
    let jumps = bucket.store().counters().requests();
    assert!(jumps.gets < 40, "{jumps:?}");
    let single = 40 * (256 << 10);
    assert!(jumps.bytes_read <= (24 << 20) + single, "{jumps:?}");
}

fn shared_disk(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let body = content(5_000_000);
    scene.put("f", body.clone());
    let folder = tempfile::tempdir().unwrap();
    let gets = || {
        // As another daemon would.
        let bucket = scene.flat(
            "",
            FlatOptions {
                disk: Some(DiskCache::open(folder.path(), 64 << 20).unwrap()),
                ..FlatOptions::default()
            },
        );
        let file = place(&bucket).lookup("f").unwrap();
        assert!(file.content().unwrap() == body);
        bucket.store().counters().requests().gets
    };
    assert!(gets() > 0);
    // What came while the disk was busy is kept by the next one.
    let rounds = (0..50).take_while(|_| {
        std::thread::sleep(Duration::from_millis(20));
        gets() > 0
    });
    assert!(rounds.count() < 50);
}

fn odd_keys(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    for key in [
        "ok", "a//b", "/lead", "../up", "./dot", "dir/", "dir2/", "dir2/x", "z%00z", "x/y%01",
        "both", "both.txt", "both/in",
    ] {
        scene.put_raw(key, &[], b"body");
    }
    scene.put_raw(&"n".repeat(256), &[], b"body");
    let (bucket, root) = scene.root();
    assert_eq!(
        root.names().unwrap(),
        ["a", "both", "both.txt", "dir", "dir2", "ok", "x"]
    );
    // `/`, `..`, `.`, the NUL, the long one, and the object below a directory of its name.
    assert_eq!(bucket.hidden(), 6);
    assert_eq!(
        root.lookup("a").unwrap().names().unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        root.lookup("dir").unwrap().names().unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(root.lookup("dir2").unwrap().names().unwrap(), ["x"]);
    assert_eq!(root.lookup("both").unwrap().names().unwrap(), ["in"]);
    assert_eq!(root.lookup("ok").unwrap().content().unwrap(), b"body");

    // Found one by one, they are the same.
    let root = place(&scene.flat("", at_once()));
    assert_eq!(
        root.lookup("dir").unwrap().names().unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(root.lookup("both").unwrap().names().unwrap(), ["in"]);
    assert_eq!(root.lookup("z\u{1}z").err(), Some(Errno::NOENT));
}

fn metadata(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let s3fs = [
        ("x-amz-meta-mode", "33152"),
        ("x-amz-meta-uid", "1001"),
        ("x-amz-meta-gid", "1002"),
        ("x-amz-meta-mtime", "1500000000"),
    ];
    scene.put_raw("s3fs", &s3fs, b"1");
    scene.put_raw("rclone", &[("x-amz-meta-mtime", "1500000000.25")], b"1");
    let (_, root) = scene.root();
    let attributes = root.lookup("s3fs").unwrap().attributes().unwrap();
    assert_eq!(
        (attributes.permissions, attributes.uid, attributes.gid),
        (0o600, 1001, 1002)
    );
    assert_eq!(attributes.modified.seconds, 1_500_000_000);
    let attributes = root.lookup("rclone").unwrap().attributes().unwrap();
    assert_eq!(
        (attributes.permissions, attributes.modified.nanoseconds),
        (0o644, 250_000_000)
    );
}

fn rclone_wrote(servers: &Servers, kind: StoreServer) {
    let rclone = StoreServer::Rclone.find().unwrap();
    let scene = servers.bucket(kind);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("d/e")).unwrap();
    let body = content(9 << 20);
    std::fs::write(folder.path().join("d/e/large"), &body).unwrap();
    std::fs::write(folder.path().join("small"), "small").unwrap();
    let status = Command::new("timeout")
        .arg("120")
        .arg(rclone)
        .arg("copy")
        .args([
            "--s3-upload-cutoff",
            "5M",
            "--s3-chunk-size",
            "5M",
            "--s3-no-check-bucket",
        ])
        .arg(folder.path())
        .arg(format!("w:{}/copied", scene.bucket()))
        .env("HOME", folder.path())
        .env("RCLONE_CONFIG_W_TYPE", "s3")
        .env("RCLONE_CONFIG_W_PROVIDER", "Other")
        .env("RCLONE_CONFIG_W_ENDPOINT", scene.server().endpoint())
        .env("RCLONE_CONFIG_W_ACCESS_KEY_ID", ACCESS_KEY)
        .env("RCLONE_CONFIG_W_SECRET_ACCESS_KEY", SECRET_KEY)
        .status()
        .unwrap();
    assert!(status.success());
    let root = place(&scene.flat("copied/", FlatOptions::default()));
    let large = root
        .lookup("d")
        .unwrap()
        .lookup("e")
        .unwrap()
        .lookup("large")
        .unwrap();
    assert!(large.content().unwrap() == body);
    let written = std::fs::metadata(folder.path().join("d/e/large"))
        .unwrap()
        .modified()
        .unwrap();
    let written = written
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let shown = large.attributes().unwrap().modified.seconds;
    assert_eq!(shown, i64::try_from(written).unwrap());
    assert_eq!(root.lookup("small").unwrap().content().unwrap(), b"small");
}

fn refusal(scene: &Scene, url: &str, options: &[&str], policy: RetryPolicy) -> String {
    let url: StoreUrl = url.parse().unwrap();
    let mut given = scene.options();
    for option in options {
        given.set(option).unwrap();
    }
    let opened = Store::open(&url, &given, policy)
        .and_then(|store| runtime().block_on(FlatBucket::open(store, "", FlatOptions::default())));
    let refusal = opened.unwrap_err().to_string();
    assert!(!refusal.contains('\n'), "{refusal}");
    refusal
}

fn refusals(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let url = format!("s3://{}", scene.bucket());
    let told = |options: &[&str]| refusal(&scene, &url, options, RetryPolicy::default());
    let wrong = told(&["secret_access_key=wrong"]);
    assert!(wrong.contains("AWS_SECRET_ACCESS_KEY"), "{wrong}");
    let plain = told(&["allow_http=false"]);
    assert!(plain.contains("AWS_ALLOW_HTTP"), "{plain}");
    let brief = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1));
    let nobody = refusal(&scene, &url, &["endpoint=http://127.0.0.1:9"], brief);
    assert!(nobody.contains("cannot be reached"), "{nobody}");
}

fn no_bucket(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let told = refusal(&scene, "s3://not-there", &[], RetryPolicy::default());
    assert!(
        told.contains("s3://not-there") && told.contains("no such bucket"),
        "{told}"
    );
}
