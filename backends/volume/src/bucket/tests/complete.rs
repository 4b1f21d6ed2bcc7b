//! Log objects that leave something out are not made.

use super::*;

struct Scene {
    remote: Remote,
    segment: Segment,
    pieces: Vec<Piece>,
}

impl Scene {
    /// A daemon that is about to store some content.
    async fn new() -> Self {
        let bucket = Bucket::with_volume().await;
        let remote = open(&bucket.steady(), "one", false).await.unwrap().remote;
        let mut writer = remote.segment().unwrap();
        let mut piece = |ino, offset, content: &[u8]| {
            let frame = writer.append(ino, offset, content).unwrap();
            Piece::whole(ino, offset, frame)
        };
        let pieces = vec![piece(7, 0, b"some content"), piece(8, 4096, &[1; 5000])];
        let segment = writer.finish().unwrap();
        Self {
            remote,
            segment,
            pieces,
        }
    }

    fn seal(&self, pieces: Vec<Piece>) -> Result<Sealed, Unwritable> {
        let lsn = self.remote.end().lsn + 1;
        let records = vec![(lsn, b"record".to_vec())];
        let inline = self.remote.inline().unwrap();
        self.remote.seal(lsn, records, pieces, inline)
    }

    fn refusal(&self, pieces: Vec<Piece>) -> String {
        self.seal(pieces).unwrap_err().to_string()
    }
}

#[tokio::test]
async fn content_that_is_not_stored_yet_is_not_named() {
    let scene = Scene::new().await;
    let refused = scene.refusal(scene.pieces.clone());
    assert!(refused.contains("was not stored"), "{refused}");
    let moved = scene.remote.seal_moved(scene.pieces.clone());
    assert!(moved.is_err());
    scene.remote.put_segment(&scene.segment).await.unwrap();
    scene.remote.seal_moved(scene.pieces.clone()).unwrap();
    let sealed = scene.seal(scene.pieces.clone()).unwrap();
    scene.remote.append(&sealed).await.unwrap();
    // Another one has nothing to do with it.
    let refused = scene.refusal(scene.pieces.clone());
    assert!(refused.contains("was not stored"), "{refused}");
}

#[tokio::test]
async fn content_whose_store_failed_is_not_named() {
    let bucket = Bucket::with_volume().await;
    let way = bucket.way(&[], 0);
    let remote = open(&way.store, "one", false).await.unwrap().remote;
    let mut writer = remote.segment().unwrap();
    let frame = writer.append(7, 0, b"some content").unwrap();
    let segment = writer.finish().unwrap();
    way.faults.outage(true);
    tokio::time::pause();
    remote.put_segment(&segment).await.unwrap_err();
    let inline = remote.inline().unwrap();
    let lsn = remote.end().lsn;
    let pieces = vec![Piece::whole(7, 0, frame)];
    let refused = remote.seal(lsn, Vec::new(), pieces, inline).unwrap_err();
    assert!(refused.to_string().contains("was not stored"), "{refused}");
}

#[tokio::test]
async fn stored_content_is_named_whole_and_for_what_it_was_written() {
    let scene = Scene::new().await;
    scene.remote.put_segment(&scene.segment).await.unwrap();
    let changed = |change: fn(&mut Vec<Piece>)| {
        let mut pieces = scene.pieces.clone();
        change(&mut pieces);
        scene.refusal(pieces)
    };
    for (refused, expected) in [
        (changed(|pieces| pieces.truncate(1)), "as it was stored"),
        (
            changed(|pieces| *pieces = pieces[1..].to_vec()),
            "as it was stored",
        ),
        (changed(|pieces| pieces.push(pieces[0])), "as it was stored"),
        (changed(|pieces| pieces[0].ino = 9), "as it was stored"),
        (
            changed(|pieces| pieces[0].offset = 4096),
            "as it was stored",
        ),
        (changed(|pieces| pieces[0].length = 3), "a part"),
        (
            changed(|pieces| {
                let (frame, _) = pieces[1].place.unwrap();
                pieces[1].place = Some((Frame { crc: 1, ..frame }, 0));
            }),
            "as it was stored",
        ),
    ] {
        assert!(refused.contains(expected), "{refused}");
    }
    let mut other_order = scene.pieces.clone();
    other_order.reverse();
    scene.seal(other_order).unwrap();
}

#[tokio::test]
async fn a_record_that_was_left_out_is_missed() {
    let Scene { remote, .. } = Scene::new().await;
    let next = remote.end().lsn + 1;
    for lsns in [vec![next + 1], vec![next], vec![next, next + 2], vec![]] {
        let records = lsns.iter().map(|lsn| (*lsn, Vec::new())).collect();
        let inline = remote.inline().unwrap();
        let refused = remote.seal(next + 2, records, Vec::new(), inline);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("not all there"), "{lsns:?}: {refused}");
    }
}
