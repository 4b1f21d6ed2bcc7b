//! Layers that are opened by their tables of contents.

use vfsd_backend::{Backend as _, Errno};
use vfsd_testkit::place::Place;

use crate::testing::Tar;
use crate::toc::tests::writer::{Made, chunked, estargz};

use super::*;

/// Bytes of eStargz's footer.
const FOOTER: usize = 51;

/// A registry with an image of one layer: much, then a small file, then much.
fn scene(made: &Made) -> Scene {
    let layout = Layout::new();
    let layer = made.layer(&layout, true);
    let blob = digest(&layer.1);
    let manifest = digest(&layout.image_of("amd64", vec![layer]));
    let server = Server::new(&layout, &[("t", manifest)], Wants::Nothing);
    let cache = tempfile::tempdir().unwrap();
    let auth = cache.path().join("auth.json");
    std::fs::write(&auth, "{}").unwrap();
    let scene = Scene {
        server,
        manifest,
        layers: vec![blob],
        blob: made.blob.clone(),
        layout,
        cache,
        auth,
        // Requests are counted: none is made again on a busy machine.
        idle: Duration::from_secs(60),
        counters: Arc::default(),
    };
    // Manifest and configuration are there.
    scene.find(":t").unwrap();
    scene.server.sent();
    drop(scene.blobs());
    scene
}

fn tar() -> Vec<u8> {
    let tar = Tar::default().file("before", &noise(3 << 20, 1));
    let tar = tar.file("small", b"small");
    tar.file("after", &noise(3 << 20, 2)).finish()
}

fn content(image: &OciImage, name: &str) -> vfsd_testkit::place::Outcome<Vec<u8>> {
    Place(image.root()).lookup(name).unwrap().content()
}

#[test]
fn the_first_start_and_a_small_file_cost_the_table_and_its_surroundings() {
    let tar = tar();
    let made = [
        (estargz(&tar, 1 << 18, &|_| {}), 2, FOOTER),
        (chunked(&tar, 1 << 18, &|_| {}), 1, 0),
    ];
    for (made, requests, footer) in made {
        let scene = scene(&made);
        let image = scene.open().unwrap();
        assert_eq!(scene.server.sent(), made.packed + footer);
        assert_eq!(scene.blobs().len(), requests);
        assert_eq!(content(&image, "small").unwrap(), b"small");
        let sent = scene.server.sent();
        assert!(sent <= 1 << 20, "{sent} of {}", made.blob.len());
        assert_eq!(scene.blobs().len(), 1);
        drop(image);
        // The next start needs nothing.
        let image = scene.open().unwrap();
        assert_eq!(content(&image, "small").unwrap(), b"small");
        assert_eq!((scene.server.sent(), scene.blobs().len()), (0, 0));
        assert!(content(&image, "after").unwrap() == noise(3 << 20, 2));
        assert!(content(&image, "before").unwrap() == noise(3 << 20, 1));
        let sent = scene.server.sent();
        assert!(sent < made.blob.len(), "each byte once: {sent}");
    }
}

#[test]
fn chunks_that_arrive_wrong_are_an_error_and_right_the_next_time() {
    let tar = Tar::default().file("file", &noise(100_000, 1)).finish();
    for made in [
        estargz(&tar, 1 << 18, &|_| {}),
        chunked(&tar, 1 << 18, &|_| {}),
    ] {
        let scene = scene(&made);
        let image = scene.open().unwrap();
        scene.server.faults([Fault::Wrong(50_000)]);
        assert_eq!(content(&image, "file"), Err(Errno::IO));
        assert_eq!(scene.server.left(), 0);
        assert!(content(&image, "file").unwrap() == noise(100_000, 1));
    }
}

#[test]
fn a_table_that_arrives_wrong_is_none() {
    let tar = Tar::default().file("file", &noise(100_000, 1)).finish();
    let made = chunked(&tar, 1 << 18, &|_| {});
    let scene = scene(&made);
    scene.server.faults([Fault::Wrong(made.packed / 2)]);
    let image = scene.open().unwrap();
    // It was read as a whole.
    assert!(scene.server.sent() > made.blob.len());
    assert!(image.contents().all(|it| it.blob().contents.is_none()));
    assert!(content(&image, "file").unwrap() == noise(100_000, 1));
}

#[test]
fn the_whole_image_is_had_chunk_by_chunk_and_listed_as_complete() {
    let made = chunked(&tar(), 1 << 20, &|_| {});
    let scene = scene(&made);
    let image = scene.open().unwrap();
    for content in image.contents() {
        let spans = content.blob().spans.len();
        content.fill_run(0..spans).unwrap();
    }
    let listed = crate::catalogue::Catalogue::new(&scene.cache());
    let listed = listed.images().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].here, listed[0].size),
        (listed[0].size, made.blob.len() as u64)
    );
}
