//! What is written while an upload, a move or the end is on its way.

use std::time::Duration;

use tokio::time::{advance, sleep};
use vfsd_backend::{AttributeChanges, RenameFlags};

use super::writable::*;
use super::*;
use crate::flat::Overwrite;

/// Each request takes a second.
fn slow() -> Vec<(Fault, u32)> {
    vec![(Fault::Delay(Duration::from_secs(1)), 1000)]
}

fn size(size: u64) -> AttributeChanges {
    AttributeChanges {
        size: Some(size),
        ..AttributeChanges::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_fsync_acknowledged_while_its_directory_moves_is_at_the_new_place() {
    for moment in 0..24 {
        let scene = Writable::with(
            &[("d/f", "old"), ("d/g", "other")],
            Overwrite::Refuse,
            slow(),
        );
        let scene = scene.await;
        let file = scene.open_to_write("d/f").await.unwrap();
        write(file.as_ref(), 0, b"one").await.unwrap();
        let writes = async {
            sleep(Duration::from_millis(500 * moment)).await;
            write(file.as_ref(), 0, b"two").await.unwrap();
            file.fsync(false).await.unwrap();
            write(file.as_ref(), 3, b" more").await.unwrap();
            close(file.clone()).await.unwrap();
        };
        let ((), moved) = tokio::join!(writes, scene.rename("d", "e", RenameFlags::empty()));
        moved.unwrap();
        let keys = scene.keys().await;
        assert_eq!(
            keys,
            ["e/.vfsd-directory", "e/f", "e/g"],
            "after {moment} half seconds"
        );
        assert_eq!(scene.object("e/f").await.unwrap(), "two more", "{moment}");

        // The old name is free.
        assert_eq!(scene.scene.find("d").await.err(), Some(Errno::NOENT));
        scene.mkdir("d").await.unwrap();
        assert_eq!(
            names(scene.scene.find("d").await.unwrap().node.as_ref()).await,
            [".", ".."]
        );
        let again = scene.create("d/f").await.unwrap();
        write(again.as_ref(), 0, b"another").await.unwrap();
        close(again).await.unwrap();
        assert_eq!(scene.object("e/f").await.unwrap(), "two more", "{moment}");
        assert_eq!(scene.object("d/f").await.unwrap(), "another", "{moment}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_while_it_moves_is_pending_under_its_new_name_alone() {
    for moment in 0..12 {
        let scene = Writable::with(&[("f", "old")], Overwrite::Refuse, slow()).await;
        let file = scene.open_to_write("f").await.unwrap();
        write(file.as_ref(), 0, b"one").await.unwrap();
        let writes = async {
            sleep(Duration::from_millis(500 * moment)).await;
            write(file.as_ref(), 0, b"two").await.unwrap();
        };
        let ((), moved) = tokio::join!(writes, scene.rename("f", "g", RenameFlags::empty()));
        moved.unwrap();
        assert_eq!(
            names(scene.root().as_ref()).await,
            [".", "..", "g"],
            "{moment}"
        );
        close(file).await.unwrap();
        assert_eq!(scene.keys().await, ["g"], "after {moment} half seconds");
        assert_eq!(scene.object("g").await.unwrap(), "two", "{moment}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_truncated_while_it_goes_up_stays_truncated() {
    let scene = Writable::with(&[], Overwrite::Refuse, slow()).await;
    let body = vec![7; 20 << 20];
    for moment in 0..12 {
        let name = format!("f{moment}");
        let file = scene.create(&name).await.unwrap();
        write(file.as_ref(), 0, &body).await.unwrap();
        drop(file);
        // Nobody has it open when it goes up in parts.
        let node = scene.scene.find(&name).await.unwrap().node;
        sleep(Duration::from_millis(500 * moment)).await;
        node.setattr(size(5)).await.unwrap();
        node.syncfs().await.unwrap();
        let object = scene.object(&name).await.unwrap();
        assert_eq!(object.len(), 5, "after {moment} half seconds");
    }
    assert_eq!(scene.staging.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_writing_to_a_file_that_another_client_replaced_is_told_each_time() {
    let scene = Writable::new(&[("f", "old")]).await;
    let (file, other) = (
        scene.open_to_write("f").await.unwrap(),
        scene.open_to_write("f").await.unwrap(),
    );
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "f", "theirs".to_owned()).await;
    assert_eq!(file.fsync(false).await.map_err(errno), Err(Errno::IO));
    for file in [file, other] {
        assert_eq!(write(file.as_ref(), 3, b" more").await, Err(Errno::IO));
        assert_eq!(file.fsync(false).await.map_err(errno), Err(Errno::IO));
        assert_eq!(close(file).await, Err(Errno::IO));
    }
    let keys = scene.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(scene.object(&keys[1]).await.unwrap(), "our");
    advance(Duration::from_secs(2)).await;
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"T").await.unwrap();
    close(file).await.unwrap();
    assert_eq!(scene.object("f").await.unwrap(), "Theirs");
}

#[tokio::test(start_paused = true)]
async fn moves_against_each_other_end() {
    let scene = Writable::with(&[("a/f", "1"), ("b/f", "2")], Overwrite::Refuse, slow()).await;
    let (there, back) = tokio::join!(
        scene.rename("a/f", "b/f", RenameFlags::empty()),
        scene.rename("b/f", "a/f", RenameFlags::empty())
    );
    there.and(back).unwrap();
    let keys = scene.keys().await;
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_end_uploads_what_nobody_waited_for() {
    let scene = Writable::new(&[("f", "1")]).await;
    let file = scene.create("g").await.unwrap();
    write(file.as_ref(), 0, b"open").await.unwrap();
    let changes = AttributeChanges {
        permissions: Some(0o600),
        ..AttributeChanges::default()
    };
    let f = scene.scene.find("f").await.unwrap().node;
    f.setattr(changes).await.unwrap();
    tokio::task::block_in_place(|| scene.scene.bucket.close()).unwrap();
    assert_eq!(scene.object("g").await.unwrap(), "open");
    assert_eq!(scene.metadata("f", "mode").await.unwrap(), "33152");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_up_at_the_end_is_kept_and_told() {
    let scene = Writable::new(&[]).await;
    let mut files = Vec::new();
    for number in 0..100 {
        let file = scene.create(&format!("f{number}")).await.unwrap();
        write(file.as_ref(), 0, format!("content {number}").as_bytes())
            .await
            .unwrap();
        files.push(file);
    }
    scene.scene.below.outage(true);
    let begun = tokio::time::Instant::now();
    let error = scene.scene.bucket.finish().await.unwrap_err();
    let error = vfsd_backend::one_line(&error);
    assert!(
        begun.elapsed() < Duration::from_secs(90),
        "not a minute for each"
    );
    assert!(
        error.contains("100 files that were changed are not in the bucket"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
    let mut kept: Vec<String> = scene.kept();
    kept.sort();
    let mut written: Vec<String> = (0..100).map(|number| format!("content {number}")).collect();
    written.sort();
    assert_eq!(kept, written);
}
