//! A blob that is read by ranges.

use std::sync::Arc;

use crate::blob::BlobSource;
use crate::image::Layer;

use super::*;

/// The larger layer, which has not been fetched.
fn blob(scene: &Scene) -> Arc<dyn BlobSource> {
    let image = scene.find(":t").unwrap();
    let layer: &Layer = &image.layers[0];
    let source = image.open_layer(layer).unwrap();
    drop(scene.server.seen());
    source
}

#[track_caller]
fn assert_reads(scene: &Scene, blob: &dyn BlobSource, offset: usize, length: usize) {
    let mut buffer = vec![0; length];
    blob.read_at(offset as u64, &mut buffer).unwrap();
    assert!(
        buffer == scene.blob[offset..offset + length],
        "{offset}, {length}"
    );
}

#[test]
fn a_read_is_one_request_for_its_bytes() {
    let scene = Scene::new();
    let blob = blob(&scene);
    scene.server.sent();
    assert_reads(&scene, &*blob, 5, 64 << 10);
    assert_reads(&scene, &*blob, 100, 2 << 20);
    let ranges: Vec<_> = scene.blobs().into_iter().map(|seen| seen.range).collect();
    let expected = ["bytes=5-65540", "bytes=100-2097251"];
    assert_eq!(ranges, expected.map(|range| Some(range.to_owned())));
    assert_eq!(scene.server.sent(), (64 << 10) + (2 << 20));
}

#[test]
fn nothing_is_beyond_the_end() {
    let scene = Scene::new();
    let blob = blob(&scene);
    let end = scene.blob.len();
    assert_reads(&scene, &*blob, end - 5, 5);
    for (offset, length) in [(end as u64 - 5, 6), (u64::MAX, 2), (end as u64 + 1, 0)] {
        let error = blob.read_at(offset, &mut vec![0; length]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn what_passes_is_tried_again_and_the_bytes_are_right() {
    let scene = Scene::new();
    let blob = blob(&scene);
    for fault in [
        Fault::Status(429, "Retry-After: 1\r\n"),
        Fault::Status(429, ""),
        Fault::Status(500, ""),
        Fault::Status(503, "Retry-After: soon\r\n"),
        Fault::Whole,
        Fault::Shifted(1),
        Fault::Longer,
        Fault::Unnamed,
        Fault::Piece(1000),
        Fault::Piece(200_000),
        Fault::Cut(0),
        Fault::Cut(100_000),
        Fault::Drip,
        Fault::Loop,
    ] {
        scene.server.faults([fault.clone()]);
        assert_reads(&scene, &*blob, 12_345, 1 << 20);
        assert_eq!(scene.server.left(), 0, "{fault:?} happened");
    }
}

#[test]
fn what_broke_off_goes_on_where_it_was() {
    let scene = Scene::new();
    let blob = blob(&scene);
    scene.server.faults([Fault::Cut(100_000)]);
    assert_reads(&scene, &*blob, 0, 1 << 20);
    let ranges: Vec<_> = scene.blobs().into_iter().map(|seen| seen.range).collect();
    let first = "bytes=0-1048575".to_owned();
    assert_eq!(
        ranges,
        [Some(first), Some("bytes=100000-1048575".to_owned())]
    );
}

#[test]
fn what_does_not_pass_is_an_error_after_so_many_attempts() {
    let scene = Scene::new();
    let blob = blob(&scene);
    for (status, requests, says) in [
        (503, 4, "answered 503"),
        (429, 4, "answered 429"),
        (403, 1, "answered 403"),
        (404, 1, "is not there"),
        (416, 1, "answered 416"),
        (501, 1, "answered 501"),
    ] {
        scene.server.faults(vec![Fault::Status(status, ""); 4]);
        let error = blob.read_at(0, &mut [0; 10]).unwrap_err().to_string();
        assert!(error.contains(says), "{status}: {error}");
        assert_eq!(scene.blobs().len(), requests, "{status}");
    }
    scene.server.faults(vec![Fault::Drip; 4]);
    let error = blob.read_at(0, &mut [0; 10_000]).unwrap_err().to_string();
    let says = ["no answer in time", "hardly any bytes"];
    assert!(says.iter().any(|says| error.contains(says)), "{error}");
}

#[test]
fn a_blob_that_is_elsewhere_is_asked_for_there_until_that_ends() {
    let scene = Scene::new();
    let blob = blob(&scene);
    scene
        .server
        .faults([Fault::Elsewhere(2), Fault::Elsewhere(9)]);
    for _ in 0..4 {
        assert_reads(&scene, &*blob, 0, 1 << 20);
    }
    let seen = scene.blobs();
    let elsewhere = |seen: &&Seen| seen.target.contains("/elsewhere/");
    // Two of the first URL, one that it refused, two of the second.
    assert_eq!(seen.iter().filter(elsewhere).count(), 5);
    assert_eq!(seen.len(), 7, "the registry was asked twice");
}

#[test]
fn a_total_outage_is_an_error_that_names_the_blob() {
    let scene = Scene::new();
    let blob = blob(&scene);
    let digest = scene.layers[0].to_string();
    drop(scene.server);
    let error = blob.read_at(0, &mut [0; 10]).unwrap_err().to_string();
    assert!(
        error.contains(&digest) && error.contains("refused"),
        "{error}"
    );
}

#[test]
fn what_one_is_fetching_is_left_out_by_who_fetches_the_rest() {
    let scene = Scene::in_spans();
    drop(scene.open().unwrap());
    scene.drop_layers();
    scene.drop_contents();
    let image = scene.open().unwrap();
    let content = image.contents().next().unwrap();
    let spans = content.blob().spans.len();
    scene.blobs();
    scene.server.sent();
    scene.server.faults([Fault::Late]);
    std::thread::scope(|scope| {
        // In the middle of the only file.
        scope.spawn(|| content.fill(0, 3 << 19..(3 << 19) + 1).unwrap());
        let begin = std::time::Instant::now();
        while scene.server.left() > 0 && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        content.fill_run(0..spans).unwrap();
    });
    assert_eq!(content.resident_spans(), spans);
    // That in the middle, and what is before and after. Pieces of gzip may have a byte in common.
    let requests = scene.blobs();
    assert_eq!(requests.len(), 3, "{requests:?}");
    let sent = scene.server.sent();
    assert!(
        sent <= scene.blob.len() + 2,
        "{sent} of {}",
        scene.blob.len()
    );
}
