//! What is counted of an image in a registry.

use vfsd_backend::{Backend as _, Errno};
use vfsd_testkit::place::Place;

use crate::counters::{RequestKind, Requests};

use super::*;

#[track_caller]
fn content(image: &OciImage, name: &str) -> Result<Vec<u8>, Errno> {
    Place(image.root()).lookup(name).unwrap().content()
}

#[test]
fn each_request_that_is_sent_is_counted_by_what_it_is_for() {
    let wants = Wants::Token {
        uses: 100,
        to_all: true,
    };
    let scene = Scene::wanting(wants);
    scene.open().unwrap();
    let seen = scene.server.seen();
    for (kind, place) in [
        (RequestKind::Manifest, "/manifests/"),
        (RequestKind::Blob, "/blobs/"),
        (RequestKind::Referrers, "/referrers/"),
        (RequestKind::Token, "/token?"),
    ] {
        let came = seen.iter().filter(|it| it.target.contains(place)).count();
        let counted = scene.counters.requests(kind);
        assert_eq!(counted.sent, came as u64, "{place}");
        assert_eq!((counted.retries, counted.failures), (0, 0), "{place}");
    }
    let bytes = |digest| scene.kept(digest).metadata().unwrap().len();
    let manifest = scene.counters.requests(RequestKind::Manifest);
    assert_eq!(manifest.bytes, bytes(scene.manifest));
    let blobs = scene.counters.requests(RequestKind::Blob).bytes;
    assert_eq!(blobs, scene.server.sent() as u64);
    assert!(blobs > scene.layers.iter().map(|layer| bytes(*layer)).sum());
}

#[test]
fn a_span_that_was_read_before_is_counted_as_such_and_asks_nobody() {
    let scene = Scene::in_spans();
    drop(scene.open().unwrap());
    scene.drop_layers();
    scene.drop_contents();
    let image = scene.open().unwrap();
    let nothing = image.fill();
    assert_eq!((nothing.local, nothing.resident), (0, 0));
    let before = scene.counters.requests(RequestKind::Blob);
    assert_eq!(content(&image, "small").unwrap(), b"top");
    let (counts, after) = (
        scene.counters.counts(),
        scene.counters.requests(RequestKind::Blob),
    );
    assert_eq!((counts.cached, counts.fetched, counts.waited), (0, 1, 0));
    assert_eq!((counts.filled, counts.failed, counts.wrong), (1, 0, 0));
    assert_eq!(after.sent, before.sent + 1);
    let fill = image.fill();
    assert!(0 < fill.resident && fill.resident < fill.bytes, "{fill:?}");
    assert_eq!(fill.local, fill.resident);

    assert_eq!(content(&image, "small").unwrap(), b"top");
    let counts = scene.counters.counts();
    assert_eq!((counts.cached, counts.fetched, counts.filled), (1, 1, 1));
    assert_eq!(scene.counters.requests(RequestKind::Blob), after);
    content(&image, "large").unwrap();
    let fill = image.fill();
    assert_eq!((fill.local, fill.resident), (fill.bytes, fill.bytes));
    let spans: usize = image.contents().map(|it| it.blob().spans.len()).sum();
    assert_eq!(scene.counters.counts().filled, spans as u64);
}

#[test]
fn a_layer_that_the_cache_has_as_it_was_fetched_is_here_though_nothing_was_read() {
    let scene = Scene::new();
    let image = scene.open().unwrap();
    let fill = image.fill();
    assert_eq!((fill.local, fill.resident), (fill.bytes, 0));
}

#[test]
fn wrong_bytes_and_what_was_tried_again_are_counted() {
    let scene = Scene::new();
    drop(scene.open().unwrap());
    scene.drop_layers();
    let image = scene.open().unwrap();
    scene.server.faults([Fault::Wrong(1_500_000)]);
    assert_eq!(content(&image, "large"), Err(Errno::IO));
    let counts = scene.counters.counts();
    assert_eq!((counts.wrong, counts.failed, counts.filled), (1, 1, 0));
    let requests = || {
        let Requests {
            retries, failures, ..
        } = scene.counters.requests(RequestKind::Blob);
        (retries, failures)
    };
    assert_eq!(requests(), (0, 0));

    scene.server.faults([Fault::Status(503, ""), Fault::Cut(9)]);
    content(&image, "large").unwrap();
    assert_eq!(requests(), (2, 0));
    scene.server.faults(vec![Fault::Status(503, ""); 4]);
    assert_eq!(content(&image, "small"), Err(Errno::IO));
    assert_eq!(requests(), (5, 1));
    let counts = scene.counters.counts();
    assert_eq!((counts.wrong, counts.failed, counts.filled), (1, 2, 1));
}

#[test]
fn a_damaged_layer_of_the_cache_is_counted_though_the_registry_helps() {
    let scene = Scene::new();
    let image = scene.open().unwrap();
    let kept = scene.kept(scene.layers[0]);
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[1_500_000] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    content(&image, "large").unwrap();
    let counts = scene.counters.counts();
    assert_eq!((counts.wrong, counts.failed, counts.filled), (1, 0, 1));
}
