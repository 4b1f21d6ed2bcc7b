//! An image that is fetched while it is indexed.

use std::sync::Mutex;

use vfsd_backend::{Backend as _, Errno, OpenFlags};
use vfsd_testkit::place::Place;

use super::*;

#[test]
fn each_layer_is_fetched_once_and_then_nothing_is() {
    let scene = Scene::new();
    let image = scene.open().unwrap();
    assert_eq!(image.digest(), scene.manifest);
    scene.assert_all_is_there();
    let seen = scene.server.seen();
    // Manifest, configuration and two layers.
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.range.is_none()), "{seen:?}");
    drop(image);
    scene.open().unwrap();
    assert_eq!(scene.server.seen().len(), 1, "the tag alone");
}

#[test]
fn an_image_by_its_digest_needs_no_registry_once_it_is_there() {
    let scene = Scene::new();
    let version = format!("@{}", scene.manifest);
    let mut options = scene.options();
    options.name = scene.name(&version);
    OciImage::open(&options).unwrap();
    scene.server.seen();
    OciImage::open(&options).unwrap();
    assert_eq!(scene.server.seen(), []);
}

#[test]
fn a_tag_means_what_it_meant_before_while_the_registry_does_not_answer() {
    let scene = Scene::new();
    assert_eq!(scene.open().unwrap().notice(), None);
    scene
        .server
        .manifest_faults(vec![Fault::Status(503, ""); 4]);
    let image = scene.open().unwrap();
    assert_eq!(image.digest(), scene.manifest);
    let notice = image.notice().unwrap();
    assert!(notice.contains("answered 503"), "{notice}");
    // A tag that never was there has no meaning from before, and one that is gone means nothing.
    scene
        .server
        .manifest_faults(vec![Fault::Status(503, ""); 4]);
    scene.find(":other").unwrap_err();
    scene.server.manifest_faults([Fault::Status(404, "")]);
    scene.find(":t").unwrap_err();
    scene.server.manifest_faults([]);
    assert_eq!(scene.open().unwrap().notice(), None);
}

#[test]
fn a_download_that_broke_off_goes_on_from_its_part() {
    let scene = Scene::new();
    std::fs::create_dir_all(scene.part(scene.layers[0]).parent().unwrap()).unwrap();
    std::fs::write(scene.part(scene.layers[0]), &scene.blob[..2_000_000]).unwrap();
    scene.open().unwrap();
    scene.assert_all_is_there();
    let ranges: Vec<_> = scene
        .blobs()
        .into_iter()
        .filter_map(|it| it.range)
        .collect();
    assert_eq!(ranges, ["bytes=2000000-"]);
}

#[test]
fn a_part_that_is_whole_too_long_or_wrong_is_not_trusted() {
    for (change, requests) in [
        ((|_: &mut Vec<u8>| {}) as fn(&mut Vec<u8>), 0),
        (|part| part.push(0), 1),
        (|part| part[1_000_000] ^= 1, 1),
        // The head of gzip, which fails before the digest would.
        (|part| part[0] ^= 1, 1),
        (|part| part.fill(0), 1),
    ] {
        let scene = Scene::new();
        let mut part = scene.blob.clone();
        change(&mut part);
        std::fs::create_dir_all(scene.part(scene.layers[0]).parent().unwrap()).unwrap();
        std::fs::write(scene.part(scene.layers[0]), &part).unwrap();
        scene.open().unwrap();
        scene.assert_all_is_there();
        let mut blobs = scene.blobs();
        blobs.retain(|seen| seen.target.contains(&scene.layers[0].hex()));
        assert_eq!(blobs.len(), requests);
    }
}

#[test]
fn a_kept_layer_that_was_damaged_is_fetched_again() {
    let scene = Scene::new();
    scene.open().unwrap();
    std::fs::remove_dir_all(scene.cache().join("layers")).unwrap();
    let mut blob = scene.blob.clone();
    blob[1_500_000] ^= 1;
    std::fs::write(scene.kept(scene.layers[0]), blob).unwrap();
    scene.open().unwrap();
    scene.assert_all_is_there();
}

#[test]
fn a_layer_whose_blob_was_dropped_is_read_by_ranges() {
    let scene = Scene::new();
    scene.open().unwrap();
    std::fs::remove_file(scene.kept(scene.layers[0])).unwrap();
    scene.server.seen();
    let image = scene.find(":t").unwrap();
    let source = image.open_layer(&image.layers[0]).unwrap();
    let mut buffer = [0; 1000];
    source.read_at(5000, &mut buffer).unwrap();
    assert_eq!(buffer, scene.blob[5000..6000]);
    let ranges: Vec<_> = scene.blobs().into_iter().map(|it| it.range).collect();
    assert_eq!(ranges, [Some("bytes=5000-5999".to_owned())]);
}

#[test]
fn a_wrong_byte_in_a_range_is_an_error_for_the_guest_and_never_data() {
    let scene = Scene::new();
    scene.open().unwrap();
    std::fs::remove_file(scene.kept(scene.layers[0])).unwrap();
    let image = scene.open().unwrap();
    let large = Place(image.root()).lookup("large").unwrap();
    let handle = large.open(OpenFlags::READ).unwrap();
    scene.server.seen();
    scene.server.faults([Fault::Wrong(5000)]);
    assert_eq!(handle.read(0, 4096), Err(Errno::IO));
    assert_eq!(scene.server.left(), 0, "it happened");
    let expected = noise(3 << 20, 1);
    assert_eq!(
        handle.read(2 << 20, 4096).unwrap(),
        expected[2 << 20..(2 << 20) + 4096]
    );
}

#[test]
fn two_that_open_an_image_at_once_fetch_it_once() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| scene.open().unwrap());
        }
    });
    scene.assert_all_is_there();
    let blobs = scene.blobs();
    let layers = blobs.iter().filter(|seen| {
        scene
            .layers
            .iter()
            .any(|layer| seen.target.contains(&layer.hex()))
    });
    assert_eq!(layers.count(), 2, "{blobs:?}");
}

#[test]
fn progress_ends_at_each_layers_size() {
    let scene = Scene::new();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let mut options = scene.options();
    let sink = std::sync::Arc::clone(&seen);
    options.progress = Box::new(move |progress| sink.lock().unwrap().push(progress));
    OciImage::open(&options).unwrap();
    let seen = seen.lock().unwrap();
    for layer in 0..2 {
        let last = seen
            .iter()
            .rfind(|progress| progress.layer == layer)
            .unwrap();
        assert_eq!((last.read, last.layers), (last.size, 2));
    }
}

#[test]
fn offline_nothing_is_sent_and_what_is_not_in_the_cache_is_said() {
    let scene = Scene::new();
    let mut options = scene.options();
    options.registries.offline = true;
    let message = OciImage::open(&options).unwrap_err().to_string();
    assert!(
        message.contains("/a/b:t is not in the cache") && message.contains("--offline"),
        "{message}"
    );
    scene.open().unwrap();
    scene.server.seen();
    // All is there: as if the registry were asked, and without a notice.
    let image = OciImage::open(&options).unwrap();
    assert_eq!((image.digest(), image.notice()), (scene.manifest, None));
    let file = |image: &OciImage| Place(image.root()).lookup("small").unwrap().content();
    assert_eq!(file(&image), Ok(b"top".to_vec()));
    drop(image);
    // The layers are not: what was read stays, what was not is EIO.
    scene.drop_layers();
    let image = OciImage::open(&options).unwrap();
    assert_eq!(file(&image), Ok(b"top".to_vec()));
    let large = Place(image.root()).lookup("large").unwrap();
    assert_eq!(large.content(), Err(Errno::IO));
    drop(image);
    // Nothing is known of a layer: it is said at once.
    for entry in std::fs::read_dir(scene.cache().join("layers")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let message = OciImage::open(&options).unwrap_err().to_string();
    assert!(message.contains("is not in the cache"), "{message}");
    assert_eq!(scene.server.seen(), []);
}
