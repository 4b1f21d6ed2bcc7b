//! Mirrors of a registry.

use super::server::Seen;
use super::*;
use crate::content::ContentError;

/// What is asked of a mirror and of the registry to open an image.
fn asked(scene: &Scene, mirrors: &[&str]) -> (usize, Vec<Seen>) {
    let mut options = scene.options();
    let own = scene.server.address().to_string();
    let mirrors = mirrors.iter();
    options.registries.mirrors = mirrors.map(|it| (own.clone(), (*it).to_owned())).collect();
    let image = OciImage::open(&options).unwrap();
    assert_eq!(image.digest(), scene.manifest);
    scene.assert_all_is_there();
    (options.registries.mirrors.len(), scene.server.seen())
}

fn mirror(scene: &Scene, tags: &[(&str, Sha256Digest)]) -> Server {
    Server::new(&scene.layout, tags, Wants::Nothing)
}

#[test]
fn a_mirror_is_asked_instead_of_the_registry() {
    let scene = Scene::new();
    let mirror = mirror(&scene, &[("t", scene.manifest)]);
    let address = mirror.address().to_string();
    let (_, own) = asked(&scene, &[&address]);
    assert_eq!(own, []);
    assert_eq!(mirror.seen().len(), 4);
}

#[test]
fn where_one_mirror_is_out_the_next_is_asked_and_then_the_registry() {
    let scene = Scene::new();
    let second = mirror(&scene, &[("t", scene.manifest)]);
    // Nobody listens at the first.
    let (_, own) = asked(&scene, &["127.0.0.1:1", &second.address().to_string()]);
    assert_eq!(own, []);
    assert_eq!(second.seen().len(), 4);
    let scene = Scene::new();
    let (_, own) = asked(&scene, &["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(own.len(), 4);
}

#[test]
fn what_a_mirror_does_not_have_or_breaks_off_is_had_from_the_registry() {
    let scene = Scene::new();
    let empty = mirror(&scene, &[]);
    asked(&scene, &[&empty.address().to_string()]);
    assert!(!empty.seen().is_empty());

    let scene = Scene::new();
    let broken = mirror(&scene, &[("t", scene.manifest)]);
    // Fewer than those after which failures no longer count.
    broken.faults(vec![Fault::Cut(10_000); 20]);
    let (_, own) = asked(&scene, &[&broken.address().to_string()]);
    let continued = own.iter().filter_map(|seen| seen.range.as_deref());
    assert!(
        continued.count() > 0,
        "it goes on where the mirror ended: {own:?}"
    );
}

#[test]
fn wrong_bytes_of_a_mirror_are_had_again_from_the_registry() {
    let scene = Scene::new();
    let wrong = mirror(&scene, &[("t", scene.manifest)]);
    wrong.faults(vec![Fault::Wrong(50); 20]);
    let (_, own) = asked(&scene, &[&wrong.address().to_string()]);
    assert!(!own.is_empty());
}

/// An image of which all is known and nothing is there, with these mirrors.
fn known(scene: &Scene, mirrors: &[&Server]) -> OciImage {
    drop(scene.open().unwrap());
    scene.drop_layers();
    scene.drop_contents();
    let mut options = scene.options();
    let own = scene.server.address().to_string();
    let mirrors = mirrors.iter().map(|it| it.address().to_string());
    options.registries.mirrors = mirrors.map(|it| (own.clone(), it)).collect();
    let image = OciImage::open(&options).unwrap();
    scene.server.seen();
    image
}

fn fill(image: &OciImage) -> Result<(), ContentError> {
    let mut contents = image.contents();
    contents.try_for_each(|content| {
        let spans = 0..content.blob().spans.len();
        spans
            .into_iter()
            .try_for_each(|span| content.fill_span(span))
    })
}

#[test]
fn wrong_bytes_of_a_piece_are_asked_for_at_the_next_mirror_and_then_of_the_registry() {
    let scene = Scene::in_spans();
    let [first, second] = [(); 2].map(|()| mirror(&scene, &[("t", scene.manifest)]));
    let image = known(&scene, &[&first, &second]);
    first.faults(vec![Fault::Wrong(50); 20]);
    second.faults([Fault::None, Fault::Wrong(50)]);
    first.seen();
    second.seen();
    fill(&image).unwrap();
    assert_eq!(first.seen().len(), 1, "it is not asked again soon");
    assert_eq!(second.seen().len(), 2);
    assert!(!scene.blobs().is_empty());
    for content in image.contents() {
        assert_eq!(content.resident_spans(), content.blob().spans.len());
    }
}

#[test]
fn bytes_that_are_wrong_everywhere_are_an_error_that_names_the_layer_and_the_span() {
    let scene = Scene::in_spans();
    let wrong = mirror(&scene, &[("t", scene.manifest)]);
    let image = known(&scene, &[&wrong]);
    wrong.faults(vec![Fault::Wrong(50); 20]);
    scene.server.faults(vec![Fault::Wrong(50); 20]);
    let error = fill(&image).unwrap_err().to_string();
    let layer = scene.layers[0].to_string();
    assert!(
        error.contains(&layer) && error.contains("span 0"),
        "{error}"
    );
    assert_eq!(
        wrong.seen().iter().filter(|it| it.range.is_some()).count(),
        1
    );
    scene.server.faults([]);
    fill(&image).unwrap();
}

#[test]
fn a_layer_that_is_damaged_in_the_cache_is_had_from_the_registry() {
    let scene = Scene::in_spans();
    drop(scene.open().unwrap());
    scene.drop_contents();
    let mut damaged = scene.blob.clone();
    damaged[1_000_000] ^= 1;
    std::fs::write(scene.kept(scene.layers[0]), damaged).unwrap();
    let image = scene.open().unwrap();
    scene.server.seen();
    fill(&image).unwrap();
    assert_eq!(scene.blobs().len(), 1, "the span that was damaged");
}

#[test]
fn an_image_of_another_registry_is_not_looked_for_at_a_mirror() {
    let scene = Scene::new();
    let other = mirror(&scene, &[("t", scene.manifest)]);
    let mut options = scene.options();
    options.registries.mirrors = vec![("r.example".to_owned(), other.address().to_string())];
    OciImage::open(&options).unwrap();
    assert_eq!(other.seen(), []);
}

#[test]
fn bytes_are_compared_early_only_where_another_place_could_be_asked() {
    let scene = Scene::new();
    let mirror = mirror(&scene, &[("t", scene.manifest)]);
    let own = scene.server.address().to_string();
    for (mirrors, compared) in [(vec![], 0), (vec![(own, mirror.address().to_string())], 1)] {
        let amd64 = "linux/amd64".parse().unwrap();
        let settings = Settings {
            mirrors,
            ..scene.settings()
        };
        let image = Image::open(&scene.name(":t"), Some(&amd64), &scene.cache(), &settings);
        let image = image.unwrap();
        let source = image.open_layer(&image.layers[0]).unwrap();
        let times = std::cell::Cell::new(0);
        let mut bytes = vec![0; 1000];
        let check = |bytes: &[u8]| {
            times.set(times.get() + 1);
            assert_eq!(bytes, &scene.blob[5..1005]);
            Ok(())
        };
        source.read_right(5, &mut bytes, &check).unwrap();
        assert_eq!(bytes, scene.blob[5..1005]);
        assert_eq!(times.get(), compared);
    }
}
