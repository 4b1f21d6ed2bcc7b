//! What a clean-up leaves for who restores the oldest checkpoint that there is.

use super::model::Daemon;
use super::*;

/// I5: nothing is removed that the oldest checkpoint which can be restored names.
#[tokio::test]
async fn i5_what_the_oldest_checkpoint_names_is_not_removed() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let mut one = Daemon::open(&store, &opener("a", true)).await.unwrap();
    one.write(10, "10 old", false).await.unwrap();
    one.write(11, "11 old", true).await.unwrap();
    one.checkpoint().await.unwrap();
    let named = one.state.frames();
    one.write(10, "10 new", false).await.unwrap();
    one.write(11, "11 new", true).await.unwrap();
    one.collect().await.unwrap();
    let contents = one.remote.read_frames(&named).await.unwrap();
    assert_eq!(contents.len(), 2);
    one.checkpoint().await.unwrap();
    one.collect().await.unwrap();
    for frame in named {
        assert!(one.remote.read_frame(&frame).await.is_err(), "{frame:?}");
    }
    one.verify_content().await;
}
