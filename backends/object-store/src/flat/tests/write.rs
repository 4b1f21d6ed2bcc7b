//! What is written, by the requests that it costs and the objects that it makes.

use std::time::Duration;

use object_store::{Attribute, Attributes, ObjectStore, PutOptions};
use tokio::time::advance;
use vfsd_backend::{AttributeChanges, LinkTarget, SetTime, Timestamp};

use super::writable::*;
use super::*;
use crate::flat::{Overwrite, Staging, WriteOptions};

#[tokio::test(start_paused = true)]
async fn a_new_file_is_one_put_when_it_is_closed_and_there_before() {
    let mut scene = Writable::new(&[("a", "1")]).await;
    let file = scene.create("b").await.unwrap();
    scene.cost();
    write(file.as_ref(), 0, b"hello ").await.unwrap();
    write(file.as_ref(), 6, b"world").await.unwrap();
    assert_eq!(scene.object("b").await, None);
    assert_eq!(scene.scene.find("b").await.unwrap().attributes.size, 11);
    assert_eq!(names(scene.root().as_ref()).await, [".", "..", "a", "b"]);
    scene.cost();
    close(file.clone()).await.unwrap();
    assert_eq!(scene.cost(), (1, 0, 0, 0));
    assert_eq!(scene.object("b").await.unwrap(), "hello world");
    close(file.clone()).await.unwrap();
    file.fsync(false).await.unwrap();
    assert_eq!(scene.cost(), (0, 0, 0, 0), "nothing changed since");
    assert_eq!(scene.metadata("b", "mode").await.unwrap(), "33184");
    assert_eq!(scene.metadata("b", "uid").await.unwrap(), "1000");
    assert_eq!(read(file.as_ref(), 6, 100).await.unwrap(), b"world");
    drop(file);
    assert_eq!(scene.staging.used(), 0);
    let entry = scene.scene.find("b").await.unwrap();
    assert_eq!(entry.attributes.size, 11);
    assert_eq!(scene.cost(), (0, 0, 0, 0), "what was written is known");
    advance(Duration::from_secs(2)).await;
    let again = scene.scene.find("b").await.unwrap();
    assert_eq!(
        again.node.identity(),
        entry.node.identity(),
        "it is the same file"
    );
    assert_eq!(again.attributes.modified, entry.attributes.modified);
    assert_eq!(again.attributes.mode(), 0o100_640);
    assert_eq!(names(scene.root().as_ref()).await, [".", "..", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_changed_in_place_and_replaced_under_its_condition() {
    let mut scene = Writable::new(&[("d/f", "0123456789")]).await;
    let file = scene.open_to_write("d/f").await.unwrap();
    scene.cost();
    write(file.as_ref(), 3, b"xyz").await.unwrap();
    write(file.as_ref(), 12, b"end").await.unwrap();
    close(file.clone()).await.unwrap();
    assert_eq!(
        scene.cost(),
        (1, 0, 0, 1),
        "one GET of the old, one PUT of the new"
    );
    assert_eq!(scene.object("d/f").await.unwrap(), "012xyz6789\0\0end");

    // Truncated to nothing: the old content is not fetched.
    let node = scene.scene.find("d/f").await.unwrap().node;
    let changes = AttributeChanges {
        size: Some(0),
        ..AttributeChanges::default()
    };
    node.setattr(changes).await.unwrap();
    write(file.as_ref(), 0, b"new").await.unwrap();
    file.fsync(true).await.unwrap();
    assert_eq!(scene.object("d/f").await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn who_loses_a_race_gets_eio_and_the_bytes_another_name() {
    let scene = Writable::new(&[("f", "old")]).await;
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "f", "theirs".to_owned()).await;
    assert_eq!(close(file.clone()).await, Err(Errno::IO));
    assert_eq!(scene.object("f").await.unwrap(), "theirs");
    let keys = scene.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys[1].starts_with("f.vfsd-conflict-"), "{keys:?}");
    assert_eq!(scene.object(&keys[1]).await.unwrap(), "our");
    let now = scene.scene.open("f").await.unwrap();
    assert_eq!(read(now.as_ref(), 0, 10).await.unwrap(), b"theirs");

    // The same for a file that was new.
    let file = scene.create("g").await.unwrap();
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "g", "theirs".to_owned()).await;
    assert_eq!(close(file).await, Err(Errno::IO));
    assert_eq!(scene.object("g").await.unwrap(), "theirs");
    assert_eq!(scene.keys().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_wins_where_that_is_wanted() {
    let scene = Writable::with(&[("f", "old")], Overwrite::LastWins, Vec::new()).await;
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "f", "theirs".to_owned()).await;
    close(file).await.unwrap();
    assert_eq!(scene.object("f").await.unwrap(), "our");
    assert_eq!(scene.keys().await, ["f"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_is_told_kept_and_done_later() {
    let scene = Writable::new(&[("a", "1")]).await;
    let file = scene.create("f").await.unwrap();
    write(file.as_ref(), 0, b"precious").await.unwrap();
    scene.scene.below.outage(true);
    assert_eq!(close(file.clone()).await, Err(Errno::IO));
    assert!(file.fsync(false).await.is_err());
    assert_eq!(read(file.as_ref(), 0, 10).await.unwrap(), b"precious");
    drop(file);
    assert_eq!(scene.staging.used(), 8, "it is not dropped");
    scene.scene.below.outage(false);
    // Nobody waits for it, and it comes all the same.
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(scene.object("f").await.unwrap(), "precious");
    assert_eq!(scene.staging.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_every_fault_what_close_acknowledged_is_there() {
    let faults = vec![
        (Fault::LostReply, 150),
        (Fault::Unavailable, 100),
        (Fault::Conflict, 80),
        (Fault::Delay(Duration::from_secs(1)), 40),
        (Fault::Stall, 20),
    ];
    let scene = Writable::with(&[("x", "1")], Overwrite::Refuse, faults).await;
    for round in 0..40 {
        let name = format!("f{}", round % 7);
        let body = format!("content of round {round}");
        let file = match scene.create(&name).await {
            Ok(file) => file,
            Err(errno) => panic!("{errno}"),
        };
        write(file.as_ref(), 0, body.as_bytes()).await.unwrap();
        close(file).await.unwrap();
        let there = scene.object(&name).await.unwrap();
        assert!(there.starts_with(&body), "{there}");
    }
    assert_eq!(scene.keys().await.len(), 8, "no copies of conflicts");
    assert!(scene.scene.below.met() > 15);
}

#[tokio::test(start_paused = true)]
async fn links_modes_owners_and_times_are_in_the_metadata_of_s3fs() {
    let scene = Writable::new(&[("f", "1")]).await;
    let target = LinkTarget::new(b"../some/where").unwrap();
    let root = scene.root();
    let name = Name::new(b"l").unwrap();
    root.symlink(user(), name, target, inode(0o777))
        .await
        .unwrap();
    assert_eq!(scene.object("l").await.unwrap(), "../some/where");
    assert_eq!(scene.metadata("l", "mode").await.unwrap(), "41471");
    advance(Duration::from_secs(5)).await;
    names(root.as_ref()).await;
    let link = scene.scene.find("l").await.unwrap();
    assert_eq!(link.attributes.kind, vfsd_backend::FileKind::Symlink);
    assert_eq!(link.node.readlink().await.unwrap(), b"../some/where");

    let f = scene.scene.find("f").await.unwrap().node;
    let changes = AttributeChanges {
        permissions: Some(0o4711),
        uid: Some(7),
        gid: Some(8),
        modified: Some(SetTime::At(Timestamp {
            seconds: 981_173_106,
            nanoseconds: 5,
        })),
        ..AttributeChanges::default()
    };
    let now = f.setattr(changes).await.unwrap();
    assert_eq!(
        (now.permissions, now.uid, now.modified.seconds),
        (0o4711, 7, 981_173_106)
    );
    f.syncfs().await.unwrap();
    assert_eq!(scene.object("f").await.unwrap(), "1");
    assert_eq!(scene.metadata("f", "mode").await.unwrap(), "35273");
    assert_eq!(
        scene.metadata("f", "mtime").await.unwrap(),
        "981173106.000000005"
    );
    drop(f);
    advance(Duration::from_secs(5)).await;
    let f = scene.scene.find("f").await.unwrap().attributes;
    assert_eq!((f.permissions, f.uid, f.gid), (0o4711, 7, 8));
    assert_eq!(f.modified.nanoseconds, 5);
}

#[tokio::test(start_paused = true)]
async fn a_listing_tells_no_attributes_that_only_the_metadata_has() {
    let mut scene = Writable::new(&[]).await;
    let attributes = [("mode", "35273"), ("uid", "7")]
        .map(|(name, value)| (Attribute::Metadata(name.into()), value));
    let options = PutOptions::from(Attributes::from_iter(attributes));
    let body = "x".repeat(70_000);
    let below = scene.scene.below.clone();
    below.age(Duration::from_secs(60));
    let path = Path::from("program");
    below
        .inner()
        .put_opts(&path, body.into(), options)
        .await
        .unwrap();

    let directory = scene.root().opendir().await.unwrap();
    let (name, found) = list_plus(directory.as_ref()).await.remove(0);
    assert!(name == b"program" && found.is_none());
    assert_eq!(scene.cost().3, 1, "a listing is one LIST");
    let program = scene.scene.find("program").await.unwrap();
    let seen = &program.attributes;
    assert_eq!((seen.permissions, seen.uid), (0o4711, 7));
    assert_eq!(scene.cost().3, 1, "a lookup of what is listed is one HEAD");

    advance(Duration::from_secs(5)).await;
    let (_, found) = list_plus(directory.as_ref()).await.remove(0);
    assert_eq!(found.unwrap().attributes, program.attributes);
    assert_eq!(scene.cost().3, 1, "what the guest knows is not asked again");

    // Who changes the metadata alone changes the time of the object. That has seconds.
    for older in [30, 0] {
        below.age(Duration::from_secs(older));
        advance(Duration::from_secs(5)).await;
        let (_, found) = list_plus(directory.as_ref()).await.remove(0);
        assert!(found.is_none(), "the listing tells of another time");
        let _known = scene.scene.find("program").await.unwrap();
        assert_eq!(scene.cost().3, 2);
        advance(Duration::from_secs(5)).await;
        let (_, found) = list_plus(directory.as_ref()).await.remove(0);
        assert_eq!(found.is_some(), older > 0, "the last second is not over");
        assert_eq!(scene.cost().3, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_the_guest_knows_cost_a_listing_where_their_objects_are_old() {
    let mut scene = Writable::new(&[("d/a", "1"), ("d/b", "2"), ("d/c", "3")]).await;
    let below = scene.scene.below.clone();
    let files = ["d/a", "d/b", "d/c"];
    for (age, heads) in [(3600, 0), (60, 3)] {
        below.age(Duration::from_secs(age));
        let mut known = Vec::new();
        for file in files {
            known.push(scene.scene.find(file).await.unwrap());
        }
        let directory = scene.scene.find("d").await.unwrap();
        advance(Duration::from_secs(2)).await;
        names(directory.node.as_ref()).await;
        scene.cost();
        for (file, known) in files.into_iter().zip(&known) {
            let name = file.trim_start_matches("d/").as_bytes();
            let found = lookup(directory.node.as_ref(), name).await.unwrap();
            assert_eq!(found.attributes, known.attributes);
        }
        assert_eq!(scene.cost().3, heads, "{age} seconds old");
        advance(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_client_makes_of_a_directory_is_seen_after_ten_seconds() {
    let mut scene = Writable::new(&[]).await;
    let _known = scene.mkdir("d").await.unwrap();
    let attributes = [("mode", "16832"), ("uid", "7")]
        .map(|(name, value)| (Attribute::Metadata(name.into()), value));
    let options = PutOptions::from(Attributes::from_iter(attributes));
    let below = scene.scene.below.inner().clone();
    let marker = Path::from("d/.vfsd-directory");
    below.put_opts(&marker, "".into(), options).await.unwrap();
    advance(Duration::from_secs(9)).await;
    assert_eq!(
        scene.scene.find("d").await.unwrap().attributes.permissions,
        0o750
    );
    advance(Duration::from_secs(2)).await;
    scene.cost();
    let seen = scene.scene.find("d").await.unwrap().attributes;
    assert_eq!((seen.permissions, seen.uid), (0o700, 7));
}

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_up_in_parts_and_is_not_put_over_anothers() {
    let scene = Writable::new(&[("f", "old")]).await;
    // Different in each part.
    let letters = (b'a'..=b'z').flat_map(|letter| std::iter::repeat_n(letter, 2_000_003));
    let body: Vec<u8> = letters.collect();
    let file = scene.create("g").await.unwrap();
    write(file.as_ref(), 0, &body).await.unwrap();
    close(file.clone()).await.unwrap();
    assert!(scene.object("g").await.unwrap().as_bytes() == body);
    write(file.as_ref(), 0, b"y").await.unwrap();
    put(&scene.scene.below, "g", "theirs".to_owned()).await;
    assert_eq!(close(file).await, Err(Errno::IO));
    assert_eq!(scene.object("g").await.unwrap(), "theirs");
    assert_eq!(scene.keys().await.len(), 3);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_unless_the_last_one_wins() {
    use object_store::local::LocalFileSystem;
    let folder = tempfile::tempdir().unwrap();
    let staging = Staging::open(&folder.path().join("staging"), 1 << 20).unwrap();
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).unwrap();
    let open = async |overwrite| {
        let files = LocalFileSystem::new_with_prefix(&objects).unwrap();
        let careless = Arc::new(crate::store::tests::Careless(files));
        let staging = staging.clone();
        let options = FlatOptions {
            write: Some(WriteOptions { staging, overwrite }),
            ..FlatOptions::default()
        };
        FlatBucket::open(Store::over(careless, RetryPolicy::default()), "", options).await
    };
    let refused = open(Overwrite::Refuse).await.unwrap_err().to_string();
    assert!(refused.contains("If-None-Match"), "{refused}");
    assert!(
        refused.ends_with("(--flat-overwrite=last-wins)"),
        "{refused}"
    );
    assert!(!refused.contains('\n'), "{refused}");
    let last_wins = open(Overwrite::LastWins).await.unwrap();
    assert_eq!(last_wins.store().counters().requests().puts, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_staged_is_bounded_and_the_guest_is_told() {
    let scene = Writable::new(&[("f", "old")]).await;
    let file = scene.create("g").await.unwrap();
    let far = write(file.as_ref(), 200 << 20, b"x").await;
    assert_eq!(far, Err(Errno::NOSPC));
    assert_eq!(write(file.as_ref(), 0, b"x").await, Ok(1));
    close(file).await.unwrap();
    assert_eq!(scene.object("g").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn uploads_hold_bounded_memory_however_many_there_are() {
    let slow = vec![(Fault::Delay(Duration::from_secs(1)), 1000)];
    let scene = Writable::with(&[], Overwrite::Refuse, slow).await;
    let body = vec![7; 14 << 20];
    let mut files = Vec::new();
    for number in 0..6 {
        let file = scene.create(&format!("f{number}")).await.unwrap();
        write(file.as_ref(), 0, &body).await.unwrap();
        files.push(file);
    }
    let mut most = 0;
    let look = async {
        loop {
            most = scene.scene.bucket.memory().max(most);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let closed = futures_util::future::join_all(files.into_iter().map(close));
    tokio::select! {
        () = look => {}
        closed = closed => assert!(closed.iter().all(Result::is_ok), "{closed:?}"),
    }
    assert!((28 << 20..=32 << 20).contains(&most), "{most}");
    for number in 0..6 {
        let object = scene.object(&format!("f{number}")).await.unwrap();
        assert!(object.as_bytes() == body);
    }
}
