//! Mirrors of a registry.

use super::server::Seen;
use super::*;

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

#[test]
fn an_image_of_another_registry_is_not_looked_for_at_a_mirror() {
    let scene = Scene::new();
    let other = mirror(&scene, &[("t", scene.manifest)]);
    let mut options = scene.options();
    options.registries.mirrors = vec![("r.example".to_owned(), other.address().to_string())];
    OciImage::open(&options).unwrap();
    assert_eq!(other.seen(), []);
}
