//! Clean-ups and snapshots.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::model::Daemon;
use super::*;

async fn daemon(bucket: &Bucket) -> Daemon {
    Daemon::open(&bucket.steady(), &opener("a", true))
        .await
        .unwrap()
}

async fn keys(bucket: &Bucket) -> Vec<String> {
    use futures_util::TryStreamExt;
    let listed = bucket.0.list(None).map_ok(|meta| meta.location.to_string());
    listed.try_collect().await.unwrap()
}

fn count(keys: &[String], folder: &str) -> usize {
    keys.iter().filter(|key| key.starts_with(folder)).count()
}

#[tokio::test]
async fn what_nothing_names_is_removed_and_all_else_stays() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.write(10, "10 old", false).await.unwrap();
    one.write(11, "11 small", true).await.unwrap();
    one.write(10, "10 new", false).await.unwrap();
    one.checkpoint().await.unwrap();
    one.write(12, "12 later", false).await.unwrap();
    let view = one.remote.view().await;
    let dry = view.survey(one.named(), Duration::ZERO).await.unwrap();
    assert_eq!(count(&keys(&bucket).await, "vol/seg/"), 3);
    let done = one.collect().await.unwrap();
    assert_eq!((dry.segments, dry.log), (done.segments, done.log));
    assert_eq!((done.segments.objects, done.failed), (1, 0));
    let left = keys(&bucket).await;
    assert_eq!(count(&left, "vol/seg/"), 2);
    // The one with small content that is named still, the last one before the checkpoint, and those after it.
    assert_eq!(count(&left, "vol/log/"), 3);
    let again = daemon(&bucket).await;
    assert_eq!(again.state, one.state);
    again.verify_content().await;
    assert_eq!(again.remote.head().await.boundary, 5);
}

#[tokio::test]
async fn what_is_young_stays() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.write(10, "10 old", false).await.unwrap();
    one.write(10, "10 new", false).await.unwrap();
    one.checkpoint().await.unwrap();
    let before = keys(&bucket).await;
    let done = one.remote.collect(one.named(), MIN_AGE).await.unwrap();
    assert_eq!(done.segments.objects + done.log.objects, 0);
    assert_eq!(done.young.objects, 4);
    assert_eq!(keys(&bucket).await, before);
}

#[tokio::test]
async fn a_segment_that_waits_for_its_log_object_stays() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.checkpoint().await.unwrap();
    let mut writer = one.remote.segment().unwrap();
    writer.append(1, 0, b"content").unwrap();
    let segment = writer.finish().unwrap();
    one.remote.put_segment(&segment).await.unwrap();
    assert_eq!(one.collect().await.unwrap().segments.objects, 0);
    one.remote.forget_segment(segment.id());
    assert_eq!(one.collect().await.unwrap().segments.objects, 1);
}

#[tokio::test]
async fn segments_that_a_killed_daemon_left_are_removed() {
    let bucket = Bucket::with_volume().await;
    let killed = daemon(&bucket).await;
    let mut writer = killed.remote.segment().unwrap();
    writer.append(1, 0, b"content").unwrap();
    killed
        .remote
        .put_segment(&writer.finish().unwrap())
        .await
        .unwrap();
    let mut one = daemon(&bucket).await;
    one.checkpoint().await.unwrap();
    assert_eq!(one.collect().await.unwrap().segments.objects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_ends_a_clean_up_before_anything_is_removed() {
    let bucket = Bucket::with_volume().await;
    for failing in 0..6 {
        let way = bucket.way(&[], 0);
        let mut one = Daemon::open(&way.store, &opener("a", true)).await.unwrap();
        one.write(10, "10 old", false).await.unwrap();
        one.write(10, "10 new", false).await.unwrap();
        one.checkpoint().await.unwrap();
        let before = keys(&bucket).await;
        // So many requests work; the store is away from then on.
        let works = std::iter::repeat_n(Fault::Delay(Duration::ZERO), failing);
        way.faults.next(works.chain([Fault::Unavailable; 1000]));
        assert!(one.collect().await.is_err(), "{failing}");
        assert_eq!(keys(&bucket).await, before, "{failing}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_nobody_read_ends_a_clean_up() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.write(10, "10 old", false).await.unwrap();
    one.checkpoint().await.unwrap();
    let refused = one.remote.collect(&Named::default(), Duration::ZERO).await;
    assert!(matches!(
        refused,
        Err(ShipError::Store(BucketError::Uncovered(_)))
    ));
}

#[tokio::test]
async fn what_a_snapshot_holds_stays_until_that_is_given_up() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.write(10, "10 old", false).await.unwrap();
    one.write(11, "11 small", true).await.unwrap();
    one.checkpoint().await.unwrap();
    let old = one.state.clone();
    let at_snapshot = one.named().clone();
    let view = one.remote.view().await;
    let snapshot = view
        .snapshot("before", Term::Lasting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        view.snapshots().await.unwrap(),
        std::slice::from_ref(&snapshot)
    );
    let taken = view.snapshot("before", Term::Lasting).await.unwrap_err();
    assert!(taken.to_string().contains("'before'"), "{taken}");
    one.write(10, "10 new", false).await.unwrap();
    one.write(11, "11 large", false).await.unwrap();
    one.checkpoint().await.unwrap();
    assert!(
        one.collect().await.is_err(),
        "the snapshot's checkpoint was not read"
    );
    let folder = tempfile::tempdir().unwrap();
    let read = |file: &std::path::Path| {
        let frames = model::State::load(file).frames();
        Ok(frames.into_iter().map(|frame| frame.object).collect())
    };
    let named = one
        .remote
        .view()
        .await
        .named(folder.path(), Named::default(), read)
        .await
        .unwrap();
    let (now, then) = (one.named(), &at_snapshot);
    assert_eq!(named.checkpoints, &then.checkpoints | &now.checkpoints);
    assert_eq!(named.objects, &then.objects | &now.objects);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    one.remote.collect(&named, Duration::ZERO).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old");
    view.restore(&snapshot.checkpoint, &file).await.unwrap();
    assert_eq!(model::State::load(&file), old);
    let report = view.check(old.frames(), CheckLevel::Content).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);

    assert!(view.delete_snapshot("before").await.unwrap());
    assert!(!view.delete_snapshot("before").await.unwrap());
    let done = one.collect().await.unwrap();
    assert_eq!((done.segments.objects, done.checkpoints.objects), (1, 1));
    assert!(view.restore(&snapshot.checkpoint, &file).await.is_err());
}

#[tokio::test]
async fn a_pin_of_a_checkpoint_that_was_replaced_does_not_stay() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.checkpoint().await.unwrap();
    let late = View::open(&bucket.steady(), "vol").await.unwrap();
    one.checkpoint().await.unwrap();
    let refused = late.snapshot("s", Term::Lasting).await.unwrap_err();
    assert!(matches!(refused, BucketError::Gone(_)), "{refused}");
    assert_eq!(late.snapshots().await.unwrap(), []);
    for bad in ["", ".", "a/b", "\u{e4}", &"x".repeat(201)] {
        assert!(matches!(
            late.snapshot(bad, Term::Lasting).await,
            Err(BucketError::Name(_))
        ));
    }
}

/// Create-only guards only what exists: a daemon that slept may re-create the number of a log object that was removed.
#[tokio::test]
async fn i7_a_number_that_was_deleted_gives_a_sleeping_daemon_no_success() {
    let bucket = Bucket::with_volume().await;
    let clock = HandClock::default();
    let sleeper = Opener {
        clock: clock.clock(),
        ..opener("sleeper", false)
    };
    let asleep = Remote::open(&bucket.steady(), "vol", &sleeper)
        .await
        .unwrap()
        .remote;
    let late = record(&asleep, "late");
    let mut other = daemon(&bucket).await;
    other.write(10, "10 one", false).await.unwrap();
    other.write(10, "10 two", false).await.unwrap();
    other.checkpoint().await.unwrap();
    other.collect().await.unwrap();
    let key = Path::from(format!("vol/log/{:020}", late.point().seq));
    assert!(
        bucket.0.head(&key).await.is_err(),
        "the number is free again"
    );
    clock.forward(MIN_AGE);
    assert!(matches!(asleep.append(&late).await, Err(ShipError::Fenced)));
    assert!(bucket.0.head(&key).await.is_ok(), "it was created indeed");
    assert!(asleep.is_fenced());
    let again = daemon(&bucket).await;
    assert_eq!(again.state, other.state);
    // Nor does it stay.
    let mut again = again;
    again.checkpoint().await.unwrap();
    again.collect().await.unwrap();
    assert!(bucket.0.head(&key).await.is_err());
}

#[tokio::test]
async fn a_temporary_snapshot_stays_while_it_is_renewed() {
    let bucket = Bucket::with_volume().await;
    let mut one = daemon(&bucket).await;
    one.write(10, "10 old", false).await.unwrap();
    one.checkpoint().await.unwrap();
    let view = one.remote.view().await;
    view.snapshot("lasting", Term::Lasting).await.unwrap();
    view.snapshot("held", Term::Temporary).await.unwrap();
    assert_eq!(view.drop_abandoned(ABANDONED).await.unwrap(), 0);
    for _ in 0..3 {
        assert!(view.renew_snapshot("held").await.unwrap());
    }
    let held = view.find_snapshot("held").await.unwrap().unwrap();
    assert!(held.temporary);
    assert_eq!(view.drop_abandoned(Duration::ZERO).await.unwrap(), 1);
    assert!(!view.renew_snapshot("held").await.unwrap(), "it is gone");
    let left = view.snapshots().await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(!left[0].temporary && left[0].name == "lasting");
}
