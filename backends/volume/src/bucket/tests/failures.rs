//! A store that fails: whose answers never come, that lists too little, or that ignores conditions.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::wild::Wild;
use super::*;

/// Gives up soon.
async fn impatient(bucket: &Bucket) -> (Remote, Arc<FaultStore>) {
    let faults = Arc::new(FaultStore::new(bucket.0.clone(), Faults::default()));
    let policy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(1));
    let store = Store::over(faults.clone(), policy);
    let opened = open(&store, "a", false).await.unwrap();
    (opened.remote, faults)
}

/// The write is applied, and every later request fails.
fn lose_the_answer(faults: &FaultStore) {
    faults.next([Fault::LostReply]);
    faults.next([Fault::Unavailable; 200]);
}

/// The store works again.
async fn heal(faults: &FaultStore, store: &Store) {
    while store.list(&Default::default()).await.is_err() {}
    assert!(faults.met() > 0);
}

/// What the chain says, without its points.
async fn texts(bucket: &Bucket) -> Vec<String> {
    let said = history(&bucket.steady()).await.into_iter();
    said.map(|(_, text)| text).collect()
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_never_came_is_found_by_its_repetition() {
    let bucket = Bucket::with_volume().await;
    let (remote, faults) = impatient(&bucket).await;
    let sealed = record(&remote, "one");
    lose_the_answer(&faults);
    let before = remote.end();
    let failed = remote.append(&sealed).await.unwrap_err();
    assert!(
        matches!(failed, ShipError::Store(BucketError::Store { .. })),
        "{failed}"
    );
    assert_eq!(remote.end(), before);
    heal(&faults, &remote.objects.store).await;
    assert_eq!(remote.append(&sealed).await.unwrap(), sealed.point());
    remote.append(&record(&remote, "two")).await.unwrap();
    assert_eq!(texts(&bucket).await, ["root", "one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_never_came_is_told_to_whoever_appends_another_one() {
    let bucket = Bucket::with_volume().await;
    let (remote, faults) = impatient(&bucket).await;
    let first = record(&remote, "one");
    let other = record(&remote, "another");
    lose_the_answer(&faults);
    remote.append(&first).await.unwrap_err();
    heal(&faults, &remote.objects.store).await;
    let Err(ShipError::Earlier(object, point)) = remote.append(&other).await else {
        panic!("it is another one");
    };
    assert_eq!((point, remote.end()), (first.point(), first.point()));
    assert_eq!(object.records[0].1, b"one");
    assert!(matches!(remote.append(&other).await, Err(ShipError::Stale)));
    remote.append(&record(&remote, "two")).await.unwrap();
    assert_eq!(texts(&bucket).await, ["root", "one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_segment_whose_answer_never_came_is_stored_by_its_repetition() {
    let bucket = Bucket::with_volume().await;
    let (remote, faults) = impatient(&bucket).await;
    let mut writer = remote.segment().unwrap();
    let frame = writer.append(1, 0, b"content").unwrap();
    let segment = writer.finish().unwrap();
    lose_the_answer(&faults);
    remote.put_segment(&segment).await.unwrap_err();
    heal(&faults, &remote.objects.store).await;
    remote.put_segment(&segment).await.unwrap();
    assert_eq!(remote.read_frame(&frame).await.unwrap(), "content");
}

#[tokio::test(start_paused = true)]
async fn an_append_counts_only_when_ownership_was_verified_lately() {
    let bucket = Bucket::with_volume().await;
    let clock = HandClock::default();
    let (faults, opener) = (
        Faults::default(),
        Opener {
            clock: clock.clock(),
            ..opener("a", false)
        },
    );
    let faults = Arc::new(FaultStore::new(bucket.0.clone(), faults));
    let policy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(1));
    let store = Store::over(faults.clone(), policy);
    let remote = Remote::open(&store, "vol", &opener).await.unwrap().remote;
    let gets = || store.counters().requests().gets;

    let before = gets();
    for minute in 0..9 {
        remote
            .append(&record(&remote, &minute.to_string()))
            .await
            .unwrap();
        clock.forward(Duration::from_secs(60));
    }
    assert_eq!(gets(), before, "one write each, and nothing else");
    clock.forward(Duration::from_secs(120));
    remote.append(&record(&remote, "late")).await.unwrap();
    assert_eq!(gets(), before + 1);
    remote.append(&record(&remote, "soon")).await.unwrap();
    assert_eq!(gets(), before + 1);

    // The object is there, but nobody knows whether this daemon owned the volume then.
    clock.forward(Duration::from_secs(700));
    let sealed = record(&remote, "unsure");
    faults.next([Fault::Delay(Duration::ZERO)]);
    faults.next([Fault::Unavailable; 200]);
    let before = remote.end();
    assert!(matches!(
        remote.append(&sealed).await,
        Err(ShipError::Store(_))
    ));
    assert_eq!(remote.end(), before);
    heal(&faults, &store).await;
    remote.append(&sealed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_could_not_be_closed_is_closed_by_the_next_try() {
    let bucket = Bucket::with_volume().await;
    let (remote, faults) = impatient(&bucket).await;
    lose_the_answer(&faults);
    remote.close().await.unwrap_err();
    heal(&faults, &remote.objects.store).await;
    remote.close().await.unwrap();
    assert!(matches!(
        remote.append(&record(&remote, "late")).await,
        Err(ShipError::Fenced)
    ));
    let next = open(&bucket.steady(), "b", false).await.unwrap();
    assert_eq!(next.before, None);
}

/// Whatever fails on the way: either the volume is open, or the next try opens it.
#[tokio::test(start_paused = true)]
async fn an_opening_that_broke_off_anywhere_leaves_a_volume_that_opens() {
    for works in 0..8 {
        let bucket = Bucket::with_volume().await;
        for lost in [false, true] {
            let faults = Arc::new(FaultStore::new(bucket.0.clone(), Faults::default()));
            let policy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(1));
            let store = Store::over(faults.clone(), policy);
            faults.next(std::iter::repeat_n(Fault::Delay(Duration::ZERO), works));
            faults.next(lost.then_some(Fault::LostReply));
            faults.next([Fault::Unavailable; 200]);
            let opened = open(&store, "a", false).await;
            assert_eq!(opened.is_ok(), works >= 7, "{works} {lost}");
            heal(&faults, &store).await;
            let opened = open(&store, "a", false).await.unwrap();
            opened
                .remote
                .append(&record(&opened.remote, "one"))
                .await
                .unwrap();
        }
        assert_eq!(history(&bucket.steady()).await.len(), 3);
    }
}

/// Whatever fails on the way: the next try makes the volume.
#[tokio::test(start_paused = true)]
async fn a_volume_whose_making_broke_off_anywhere_is_made_by_the_next_try() {
    let mut broken = 0;
    for works in (0..40).chain([100, 110, 115, 120, 125]) {
        let bucket = Bucket::new();
        let faults = Arc::new(FaultStore::new(bucket.0.clone(), Faults::default()));
        let policy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(1));
        let store = Store::over(faults.clone(), policy);
        faults.next(std::iter::repeat_n(Fault::Delay(Duration::ZERO), works));
        faults.next([Fault::Unavailable; 2000]);
        let root = || vec![(1, b"root".to_vec())];
        if Remote::create(&store, "vol", root(), Quota::default())
            .await
            .is_err()
        {
            broken += 1;
            let steady = bucket.steady();
            // What a probe could not take away is not taken for somebody's data.
            match Remote::create(&steady, "vol", root(), Quota::default()).await {
                Ok(_) | Err(BucketError::Exists(_)) => {}
                Err(error) => panic!("{works}: {error}"),
            }
        }
        assert_eq!(history(&bucket.steady()).await, [(1, "root".to_owned())]);
    }
    assert!(broken > 30, "{broken}");
}

#[tokio::test]
async fn of_many_who_make_a_volume_one_succeeds() {
    let bucket = Bucket::new();
    let made = (0..8).map(|number| {
        let wild = Wild::new(bucket.0.clone(), number, 0);
        let store = Store::over(Arc::new(wild), RetryPolicy::default());
        async move { Remote::create(&store, "vol", Vec::new(), Quota::default()).await }
    });
    let made = futures_util::future::join_all(made).await;
    let won: Vec<_> = made.iter().filter_map(|made| made.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    let opened = open(&bucket.steady(), "a", false).await.unwrap();
    assert_eq!(opened.remote.uuid(), *won[0]);
}

#[tokio::test]
async fn an_opener_whose_listing_is_late_finds_the_end_all_the_same() {
    let bucket = Bucket::with_volume().await;
    let opened = open(&bucket.steady(), "a", false).await.unwrap();
    for text in ["one", "two", "three"] {
        opened
            .remote
            .append(&record(&opened.remote, text))
            .await
            .unwrap();
    }
    for hidden in [
        &["05"][..],
        &["04", "05"],
        &["03"],
        &["02", "03", "04", "05"],
    ] {
        let wild = Wild::new(bucket.0.clone(), 1, 0).hiding(hidden);
        let store = Store::over(Arc::new(wild), RetryPolicy::default());
        let again = open(&store, "a", false).await.unwrap();
        assert_eq!(again.inherited.lsn, 4, "{hidden:?}");
    }
    let key = Path::from("vol/log/00000000000000000004");
    bucket.0.delete(&key).await.unwrap();
    let refused = open(&bucket.steady(), "a", false).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{key}: it is not there"));
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_in_the_words_of_the_probe() {
    let bucket = Bucket::new();
    let careless = Wild::new(bucket.0.clone(), 1, 0).careless();
    let store = Store::over(Arc::new(careless), RetryPolicy::default());
    let refused = Remote::create(&store, "vol", Vec::new(), Quota::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, BucketError::Unsafe(_)));
    let shown = refused.to_string();
    assert!(
        shown.contains("cannot be written safely") && shown.contains("SeaweedFS"),
        "{shown}"
    );
    let nothing = View::open(&bucket.steady(), "vol").await;
    assert!(matches!(nothing, Err(BucketError::Missing(_))));
}

#[tokio::test]
async fn what_is_stored_for_a_volume_is_told() {
    let bucket = Bucket::with_volume().await;
    let mut daemon = model::Daemon::open(&bucket.steady(), &opener("a", false))
        .await
        .unwrap();
    daemon.write(10, "10 one", false).await.unwrap();
    daemon.checkpoint().await.unwrap();
    daemon.write(11, "11 two", true).await.unwrap();
    bucket
        .0
        .put(&Path::from("vol/notes.txt"), "x".into())
        .await
        .unwrap();
    let view = View::open(&bucket.steady(), "vol").await.unwrap();
    view.snapshot("s", Term::Lasting).await.unwrap();
    let stat = view.stat().await.unwrap();
    assert_eq!(
        (stat.log.objects, stat.old_log.objects, stat.end),
        (1, 3, 4)
    );
    assert_eq!((stat.segments.objects, stat.checkpoints.objects), (1, 1));
    assert_eq!(
        (stat.snapshots, stat.foreign.objects, stat.foreign.bytes),
        (1, 1, 1)
    );
    assert!(stat.log.bytes > 100 && stat.segments.bytes > 128);
    let head = view.head();
    assert_eq!(head.owner.as_ref().unwrap().host, "host of a");
}
