//! Uploads that were applied although their replies never came.

use object_store::PutMode;
use vfsd_backend::LockOwner;

use super::writable::*;
use super::*;

/// Closes a file whose upload is applied, after which the service is not there.
async fn close_and_lose(scene: &Writable, file: &Arc<dyn File>) {
    let below = &scene.scene.below;
    let before = below.met();
    below.next([Fault::LostReply]);
    let closes = async { file.flush(LockOwner(1)).await.map_err(errno) };
    let ends = async {
        // The next try waits for longer.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(below.met(), before + 1);
        below.outage(true);
    };
    let (closed, ()) = tokio::join!(closes, ends);
    assert_eq!(closed, Err(Errno::IO));
    below.outage(false);
}

#[tokio::test(start_paused = true)]
async fn who_had_no_reply_until_an_outage_ended_is_no_other_client() {
    let scene = Writable::new(&[("old", "1")]).await;
    for (name, file) in [
        ("new", scene.create("new").await.unwrap()),
        ("old", scene.open_to_write("old").await.unwrap()),
    ] {
        write(file.as_ref(), 0, b"first").await.unwrap();
        close_and_lose(&scene, &file).await;
        assert_eq!(scene.object(name).await.unwrap(), "first");
        write(file.as_ref(), 5, b" and more").await.unwrap();
        close(file).await.unwrap();
        assert_eq!(scene.object(name).await.unwrap(), "first and more");
    }
    assert_eq!(scene.keys().await, ["new", "old"]);
}

#[tokio::test(start_paused = true)]
async fn another_client_that_wrote_after_an_outage_is_one() {
    let scene = Writable::new(&[]).await;
    let file = scene.create("f").await.unwrap();
    write(file.as_ref(), 0, b"ours").await.unwrap();
    close_and_lose(&scene, &file).await;
    let path = Path::from("f");
    let theirs =
        scene
            .scene
            .below
            .inner()
            .put_opts(&path, "theirs".into(), PutMode::Overwrite.into());
    theirs.await.unwrap();
    assert_eq!(close(file).await, Err(Errno::IO));
    assert_eq!(scene.object("f").await.unwrap(), "theirs");
    let keys = scene.keys().await;
    assert_eq!(keys.len(), 2);
    assert_eq!(scene.object(&keys[1]).await.unwrap(), "ours");
}

#[tokio::test(start_paused = true)]
async fn a_new_file_that_is_removed_after_an_outage_leaves_nothing() {
    let scene = Writable::new(&[]).await;
    for name in ["f", "g"] {
        let file = scene.create(name).await.unwrap();
        write(file.as_ref(), 0, b"x").await.unwrap();
        close_and_lose(&scene, &file).await;
    }
    put(&scene.scene.below, "g", "theirs".to_owned()).await;
    scene.unlink("f").await.unwrap();
    scene.unlink("g").await.unwrap();
    assert_eq!(scene.keys().await, ["g"], "another client's stays");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_upload_in_parts_whose_reply_is_lost_is_no_conflict() {
    let mut scene = Writable::new(&[("old", "1")]).await;
    for (name, file) in [
        ("new", scene.create("new").await.unwrap()),
        ("old", scene.open_to_write("old").await.unwrap()),
    ] {
        write(file.as_ref(), 17 << 20, b"end").await.unwrap();
        scene.cost();
        // The beginning, the look before the end, and the end.
        let quick = Fault::Delay(std::time::Duration::ZERO);
        scene.scene.below.next([quick, quick, Fault::LostReply]);
        close(file).await.unwrap();
        assert_eq!(scene.cost(), (1, 0, 0, 2), "it is sent once");
        assert_eq!(scene.object(name).await.unwrap().len(), (17 << 20) + 3);
    }
    assert_eq!(scene.keys().await, ["new", "old"]);
}
