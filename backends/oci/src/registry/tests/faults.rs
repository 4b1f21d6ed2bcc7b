//! A registry that fails while an image is fetched from it.

use super::*;

#[test]
fn a_layer_arrives_through_whatever_passes() {
    for fault in [
        Fault::Status(429, "Retry-After: 0\r\n"),
        Fault::Status(502, ""),
        Fault::Cut(0),
        Fault::Cut(50_000),
        Fault::Drip,
        Fault::Elsewhere(1),
        Fault::Loop,
    ] {
        let scene = Scene::new();
        // The first is the configuration's.
        scene
            .server
            .faults([Fault::None, fault.clone(), fault.clone()]);
        scene
            .open()
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(scene.server.left(), 0, "{fault:?} happened");
        scene.assert_all_is_there();
    }
}

#[test]
fn a_resumed_layer_is_right_where_the_registry_knows_no_ranges() {
    let scene = Scene::new();
    std::fs::create_dir_all(scene.part(scene.layers[0]).parent().unwrap()).unwrap();
    std::fs::write(scene.part(scene.layers[0]), &scene.blob[..2_000_000]).unwrap();
    scene
        .server
        .faults([Fault::None, Fault::Whole, Fault::Whole]);
    scene.open().unwrap();
    scene.assert_all_is_there();
}

#[test]
fn wrong_bytes_are_an_error_and_leave_nothing() {
    for at in [0, 20, 1_500_000] {
        let scene = Scene::new();
        std::fs::remove_file(scene.layout.blob_path(scene.layers[1])).unwrap();
        let wrong = [Fault::None, Fault::Wrong(at), Fault::Wrong(at)];
        // The other layer is missing, so that all of these are the larger one's.
        scene.server.faults(wrong);
        scene.open().unwrap_err();
        assert!(!scene.kept(scene.layers[0]).exists(), "{at}");
        assert!(
            !scene
                .cache()
                .join("layers")
                .join(format!("{}.index", scene.layers[0].hex()))
                .exists()
        );
    }
}

#[test]
fn wrong_bytes_once_are_fetched_again() {
    let scene = Scene::new();
    // Both layers are asked for at once, and either may meet the fault: the configuration comes before them.
    scene.server.faults([Fault::None, Fault::Wrong(15)]);
    scene.open().unwrap();
    scene.assert_all_is_there();
}

#[test]
fn a_wrong_manifest_or_configuration_is_asked_for_again_and_then_an_error() {
    let scene = Scene::new();
    scene.server.manifest_faults(vec![Fault::Wrong(30); 2]);
    scene.server.faults(vec![Fault::Wrong(5); 2]);
    scene.find(":t").unwrap();
    assert_eq!(scene.server.left(), 0);

    let scene = Scene::new();
    scene.server.manifest_faults(vec![Fault::Wrong(30); 4]);
    let error = scene.find(&format!("@{}", scene.manifest)).unwrap_err();
    assert!(error.to_string().contains("other bytes"), "{error}");
    scene.server.faults(vec![Fault::Wrong(5); 4]);
    let error = scene.find(":t").unwrap_err().to_string();
    assert!(error.contains("other bytes"), "{error}");
    assert!(!scene.cache().join("layers").exists());
}

#[test]
fn a_layer_that_breaks_off_again_and_again_is_an_error_and_goes_on_next_time() {
    let scene = Scene::new();
    std::fs::remove_file(scene.layout.blob_path(scene.layers[1])).unwrap();
    let layer = scene.layout.blob_path(scene.layers[0]);
    let away = layer.with_extension("away");
    scene
        .server
        .faults([Fault::None, Fault::Cut(1 << 20), Fault::Status(404, "")]);
    scene.open().unwrap_err();
    std::fs::rename(&layer, &away).unwrap();
    scene.server.faults([]);
    let error = scene.open().unwrap_err().to_string();
    assert!(error.contains("not there"), "{error}");
    assert!(!scene.kept(scene.layers[0]).exists());
    std::fs::rename(&away, &layer).unwrap();
    scene.server.seen();
    let image = scene.find(":t").unwrap();
    let mut bytes = Vec::new();
    let mut reader = image.read_layer(&image.layers[0]).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
    assert!(bytes == scene.blob);
}

#[test]
fn what_is_not_in_the_registry_is_said_so() {
    let scene = Scene::new();
    let error = scene.find(":none").unwrap_err().to_string();
    assert!(error.contains("/a/b:none is not there"), "{error}");
}
