//! What is damaged is refused, with the key of the object.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::cipher::Cipher;
use super::model::Daemon;
use super::*;

async fn follow(remote: &Remote, after: Point) -> Result<Point, BucketError> {
    remote.follow(after, |_, _| Ok(())).await
}

/// A volume with several log objects, of which `damage` damages the one in the middle.
async fn refused(damage: impl AsyncFn(&Bucket, &Path)) -> String {
    let bucket = Bucket::with_volume().await;
    let opened = open(&bucket.steady(), "a", false).await.unwrap();
    for text in ["one", "two", "three", "four"] {
        opened
            .remote
            .append(&record(&opened.remote, text))
            .await
            .unwrap();
    }
    let key = Path::from("vol/log/00000000000000000004");
    damage(&bucket, &key).await;
    follow(&opened.remote, Point::START)
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn a_damaged_log_object_is_refused_by_its_key() {
    let changed = refused(async |bucket: &Bucket, key: &Path| {
        let mut body = bucket
            .0
            .get(key)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .to_vec();
        body[60] ^= 1;
        bucket.0.put(key, body.into()).await.unwrap();
    });
    assert_eq!(
        changed.await,
        "vol/log/00000000000000000004: its checksum is wrong"
    );
}

#[tokio::test]
async fn a_missing_log_object_is_told_by_its_key() {
    let missing = refused(async |bucket: &Bucket, key: &Path| {
        bucket.0.delete(key).await.unwrap();
    });
    assert_eq!(
        missing.await,
        "vol/log/00000000000000000004: it is not there"
    );
}

#[tokio::test]
async fn a_log_object_in_the_place_of_another_is_refused() {
    let moved = refused(async |bucket: &Bucket, key: &Path| {
        let other = Path::from("vol/log/00000000000000000003");
        bucket.0.copy(&other, key).await.unwrap();
    });
    let moved = moved.await;
    assert!(
        moved.ends_with("it is the log object of another number"),
        "{moved}"
    );
}

/// A whole and valid object of the right number, but of another line of history.
#[tokio::test]
async fn a_log_object_of_another_branch_is_refused() {
    let branch = refused(async |bucket: &Bucket, key: &Path| {
        let body = bucket.0.get(key).await.unwrap().bytes().await.unwrap();
        let (object, link) = LogObject::decode(&body, &Cipher::default()).unwrap();
        let object = LogObject {
            records: vec![(object.first, b"another".to_vec())],
            ..object
        };
        let body = object.encode(&link, &Cipher::default()).unwrap();
        bucket.0.put(key, body.into()).await.unwrap();
    });
    let branch = branch.await;
    let next = "vol/log/00000000000000000005: it does not follow the log object before it";
    assert_eq!(branch, next);
}

#[tokio::test]
async fn a_log_object_that_is_far_too_long_is_not_read() {
    let long = refused(async |bucket: &Bucket, key: &Path| {
        let body = vec![0; usize::try_from(log::MAX_LOG_BYTES).unwrap() + 1];
        bucket.0.put(key, body.into()).await.unwrap();
    });
    assert!(long.await.ends_with("it is longer than any vfsd writes it"));
}

#[tokio::test]
async fn damaged_content_is_refused_by_the_key_of_its_object() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let mut daemon = Daemon::open(&store, &opener("a", false)).await.unwrap();
    daemon.write(10, "10 in a segment", false).await.unwrap();
    daemon.write(11, "11 in the log", true).await.unwrap();
    daemon.checkpoint().await.unwrap();
    daemon
        .write(12, "12 after the checkpoint", false)
        .await
        .unwrap();
    let view = daemon.remote.view().await;
    let frames = daemon.state.frames();
    let clean = view
        .check(frames.clone(), CheckLevel::Content)
        .await
        .unwrap();
    assert!(clean.is_clean() && clean.bytes > 0, "{:?}", clean.problems);
    for frame in frames.clone() {
        let key = Names::new("vol").unwrap().object(frame.object);
        let good = bucket.0.get(&key).await.unwrap().bytes().await.unwrap();
        let mut bad = good.to_vec();
        bad[usize::try_from(frame.offset).unwrap()] ^= 1;
        bucket.0.put(&key, bad.into()).await.unwrap();
        let refused = daemon
            .remote
            .read_frame(&frame)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            refused,
            format!("{key}: a frame of content has a wrong checksum")
        );
        let present = view
            .check(frames.clone(), CheckLevel::Presence)
            .await
            .unwrap();
        assert!(present.is_clean(), "{:?}", present.problems);
        let scrubbed = view
            .check(frames.clone(), CheckLevel::Content)
            .await
            .unwrap();
        assert!(
            scrubbed.problems[0].starts_with(&refused),
            "{:?}",
            scrubbed.problems
        );
        let shorter = good.slice(..usize::try_from(frame.end()).unwrap() - 1);
        bucket.0.put(&key, shorter.into()).await.unwrap();
        assert!(daemon.remote.read_frame(&frame).await.is_err());
        let present = view
            .check(frames.clone(), CheckLevel::Presence)
            .await
            .unwrap();
        assert!(
            present.problems[0].contains("too short"),
            "{:?}",
            present.problems
        );
        bucket.0.delete(&key).await.unwrap();
        let refused = daemon
            .remote
            .read_frame(&frame)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(refused, format!("{key}: it is not there"));
        let present = view
            .check(frames.clone(), CheckLevel::Presence)
            .await
            .unwrap();
        assert_eq!(present.problems[0], refused);
        bucket.0.put(&key, good.into()).await.unwrap();
    }
}

#[tokio::test]
async fn a_segment_tells_what_it_was_written_for_without_the_log() {
    let bucket = Bucket::with_volume().await;
    let mut daemon = Daemon::open(&bucket.steady(), &opener("a", false))
        .await
        .unwrap();
    daemon.write(10, "10 in a segment", false).await.unwrap();
    let view = daemon.remote.view().await;
    let frame = daemon.state.frames()[0];
    let entries = view.read_map(frame.object).await.unwrap().unwrap();
    assert_eq!((entries[1].ino, entries[1].frame), (10, frame));
    let nothing = ObjectId::Segment { epoch: 99, seq: 1 };
    assert_eq!(view.read_map(nothing).await.unwrap(), None);
}

/// I6, on this side: what a host has counts only if its point is one of the chain.
#[tokio::test]
async fn i6_a_point_outside_of_the_chain_is_told_from_one_of_it() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let opened = open(&store, "a", false).await.unwrap();
    let remote = opened.remote;
    for text in ["one", "two", "three"] {
        remote.append(&record(&remote, text)).await.unwrap();
    }
    let mut points = vec![Point::START];
    let all = remote.follow::<BucketError>(Point::START, |_, point| {
        points.push(point);
        Ok(())
    });
    all.await.unwrap();
    let view = View::open(&store, "vol").await.unwrap();
    let viewed = async |point| view.follow::<BucketError>(point, |_, _| Ok(())).await;
    for point in points.iter().copied() {
        assert_eq!(follow(&remote, point).await.unwrap(), remote.end());
        assert_eq!(viewed(point).await.unwrap(), remote.end());
        let elsewhere = [
            Point {
                hash: ChainHash([3; 32]),
                ..point
            },
            Point {
                lsn: point.lsn + 7,
                ..point
            },
            Point {
                epoch: point.epoch + 9,
                ..point
            },
        ];
        for point in elsewhere {
            let refused = follow(&remote, point).await.unwrap_err();
            assert!(
                matches!(refused, BucketError::Diverged(_)),
                "{point:?}: {refused}"
            );
            assert!(matches!(viewed(point).await, Err(BucketError::Diverged(_))));
        }
    }
    let beyond = Point {
        seq: 99,
        ..remote.end()
    };
    assert!(matches!(
        follow(&remote, beyond).await,
        Err(BucketError::Diverged(99))
    ));
    assert!(matches!(
        viewed(beyond).await,
        Err(BucketError::Diverged(99))
    ));
}

#[tokio::test]
async fn a_head_that_is_none_or_of_another_volume_is_refused() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    Remote::create(&store, "other", Vec::new(), Quota::default())
        .await
        .unwrap();
    let (head, other) = (Path::from("vol/HEAD"), Path::from("other/HEAD"));
    bucket.0.copy(&other, &head).await.unwrap();
    let refused = open(&store, "a", false).await.unwrap_err().to_string();
    assert_eq!(refused, "vol/HEAD: it belongs to another volume");
    bucket.0.put(&head, "{}".into()).await.unwrap();
    let refused = View::open(&store, "vol").await.unwrap_err().to_string();
    assert_eq!(refused, "vol/HEAD: it is not what a vfsd writes");
    bucket.0.delete(&head).await.unwrap();
    assert!(matches!(
        open(&store, "a", false).await,
        Err(BucketError::Missing(_))
    ));
    let description = Path::from("vol/volume.json");
    bucket
        .0
        .put(&description, r#"{"format":2,"x":[]}"#.into())
        .await
        .unwrap();
    let refused = open(&store, "a", false).await.unwrap_err().to_string();
    assert!(
        refused.contains("format 2") && refused.contains("newer"),
        "{refused}"
    );
}
