//! Who may write.

use super::*;

#[tokio::test]
async fn what_was_appended_is_read_by_the_next_owner() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let first = open(&store, "a", false).await.unwrap();
    assert_eq!((first.remote.epoch(), first.inherited.seq), (2, 1));
    let sealed = record(&first.remote, "one");
    let point = first.remote.append(&sealed).await.unwrap();
    assert_eq!(point, first.remote.end());
    assert_eq!(
        first.remote.append(&sealed).await.unwrap(),
        point,
        "nothing changes"
    );
    first.remote.close().await.unwrap();
    let second = open(&store, "b", false).await.unwrap();
    assert_eq!((second.inherited, second.before), (point, None));
    second.remote.close().await.unwrap();
    let expected = [(1, "root".to_owned()), (2, "one".to_owned())];
    assert_eq!(history(&store).await, expected);
}

#[tokio::test]
async fn a_volume_in_use_is_refused_with_the_host_and_the_way_out() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let first = open(&store, "a", false).await.unwrap();
    let refused = open(&store, "b", false).await.unwrap_err().to_string();
    for part in ["host of a", "--takeover", "InMemory/vol"] {
        assert!(refused.contains(part), "{refused}");
    }
    first
        .remote
        .append(&record(&first.remote, "still"))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_same_instance_follows_itself_without_being_asked() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let killed = open(&store, "a", false).await.unwrap();
    killed
        .remote
        .append(&record(&killed.remote, "one"))
        .await
        .unwrap();
    let again = open(&store, "a", false).await.unwrap();
    assert_eq!(again.inherited, killed.remote.end());
    assert_eq!(again.before.unwrap().instance, "a");
}

#[tokio::test]
async fn a_daemon_that_was_overtaken_can_append_nothing() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let old = open(&store, "a", false).await.unwrap();
    let late = record(&old.remote, "late");
    let new = open(&store, "b", true).await.unwrap();
    assert!(matches!(
        old.remote.append(&late).await,
        Err(ShipError::Fenced)
    ));
    assert!(old.remote.is_fenced());
    assert!(matches!(
        old.remote.verify_owner().await,
        Err(ShipError::Fenced)
    ));
    assert!(matches!(old.remote.close().await, Err(ShipError::Fenced)));
    new.remote
        .append(&record(&new.remote, "one"))
        .await
        .unwrap();
    assert_eq!(history(&store).await.last().unwrap().1, "one");
}

#[tokio::test]
async fn a_volume_is_made_once() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let again = Remote::create(&store, "vol", Vec::new(), Quota::default())
        .await
        .unwrap_err();
    assert!(matches!(again, BucketError::Exists(_)), "{again}");
    let above = Remote::create(&store, "", Vec::new(), Quota::default())
        .await
        .unwrap_err();
    assert!(matches!(above, BucketError::NotEmpty(_)), "{above}");
    let nothing = Remote::open(&store, "elsewhere", &opener("a", false)).await;
    assert!(matches!(nothing.unwrap_err(), BucketError::Missing(_)));
    Remote::create(&store, "vol2", Vec::new(), Quota::default())
        .await
        .unwrap();
}
