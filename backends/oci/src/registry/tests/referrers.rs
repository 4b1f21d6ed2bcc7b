//! Indexes that are pushed beside an image.

use serde_json::json;

use crate::index::LayerIndex;
use crate::referrer::{PushedIndexes, push_indexes};

use super::*;

/// One of which no request is made again on a busy machine: they are counted.
fn patient(scene: Scene) -> Scene {
    Scene {
        idle: Duration::from_secs(60),
        ..scene
    }
}

impl Scene {
    fn push(&self) -> PushedIndexes {
        push_indexes(&self.options()).unwrap()
    }

    fn there(&self, digest: Sha256Digest) -> Vec<u8> {
        std::fs::read(self.layout.blob_path(digest)).unwrap()
    }

    fn document(&self, digest: Sha256Digest) -> Value {
        serde_json::from_slice(&self.there(digest)).unwrap()
    }

    /// The tag of what refers to the image.
    fn tag(&self) -> Option<Sha256Digest> {
        let tag = format!("sha256-{}", self.manifest.hex());
        self.server.pushes().tag(&tag)
    }
}

#[test]
fn indexes_are_pushed_as_an_artifact_that_refers_to_the_image() {
    let scene = Scene::in_spans();
    let pushed = scene.push();
    assert_eq!((pushed.image, pushed.layers), (scene.manifest, 2));
    assert!(pushed.sent > pushed.bytes, "and an empty configuration");
    let artifact = scene.document(pushed.artifact);
    assert_eq!(artifact["subject"]["digest"], scene.manifest.to_string());
    let size = scene.there(scene.manifest).len();
    assert_eq!(artifact["subject"]["size"], size);
    let layers = artifact["layers"].as_array().unwrap();
    for (layer, described) in scene.layers.iter().zip(layers) {
        let of = &described["annotations"]["dev.vfsd.layer.digest"];
        assert_eq!(*of, layer.to_string());
        let packed = scene.there(digest(described));
        assert_eq!(described["size"], packed.len());
        let bytes = zstd::bulk::decompress(&packed, 1 << 20).unwrap();
        let kept = scene.cache().join(format!("layers/{}.index", layer.hex()));
        assert_eq!(bytes, std::fs::read(kept).unwrap());
        assert_eq!(LayerIndex::from_bytes(&bytes).unwrap().blob.digest, *layer);
    }
    // The registry keeps no list: a tag does.
    let list = scene.document(scene.tag().unwrap());
    let listed = json!([{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": pushed.artifact.to_string(),
        "size": scene.there(pushed.artifact).len(),
        "artifactType": "application/vnd.vfsd.layer-indexes.v1",
    }]);
    assert_eq!(list["manifests"], listed);
}

#[test]
fn what_was_pushed_before_is_not_sent_again() {
    let scene = patient(Scene::new());
    let first = scene.push();
    let list = scene.tag();
    scene.server.seen();
    let again = scene.push();
    assert_eq!((again.artifact, again.sent), (first.artifact, 0));
    assert_eq!(scene.tag(), list);
    let seen = scene.server.seen();
    let uploads = seen.iter().filter(|it| it.target.contains("/uploads/"));
    assert_eq!(uploads.count(), 0, "{seen:?}");
}

#[test]
fn a_registry_that_lists_what_refers_to_an_image_gets_no_tag() {
    let scene = patient(Scene::new());
    scene.server.pushes().begin_to_list();
    scene.push();
    assert_eq!(scene.tag(), None);
}

#[test]
fn a_list_in_pages_is_read_to_its_end_and_one_without_end_is_not() {
    let scene = patient(Scene::new());
    let pushes = scene.server.pushes();
    pushes.begin_to_list();
    let subject = scene.manifest;
    let numbered = |number: usize| Sha256Digest::of(&number.to_le_bytes());
    let refer = |number| {
        let listed =
            json!({"digest": numbered(number).to_string(), "artifactType": "application/vnd.x"});
        pushes.refer(&subject.to_string(), listed);
    };
    let of = || super::super::referrers::of(&scene.client(), subject, "application/vnd.x").unwrap();
    assert_eq!(of(), []);
    (0..5).for_each(refer);
    scene.server.seen();
    assert_eq!(of(), (0..5).map(numbered).collect::<Vec<_>>());
    assert_eq!(scene.server.seen().len(), 3);
    (5..100).for_each(refer);
    assert_eq!(of(), (0..32).map(numbered).collect::<Vec<_>>());
    assert_eq!(scene.server.seen().len(), 16);
}

#[test]
fn what_others_have_listed_stays_listed() {
    let scene = patient(Scene::new());
    let other = json!({"digest": "sha512:00", "size": 1, "mediaType": "a/b", "more": {"x": [1]}});
    let list = json!({"schemaVersion": 2, "manifests": [other], "annotations": {"y": "z"}});
    let tag = format!("sha256-{}", scene.manifest.hex());
    let client = scene.client();
    let bytes = |list: &Value| list.to_string().into_bytes().into();
    client.put_manifest(&tag, "a/b", &bytes(&list)).unwrap();
    let pushed = scene.push();
    let list = scene.document(scene.tag().unwrap());
    assert_eq!(list["manifests"][0], other);
    assert_eq!(list["manifests"][1]["digest"], pushed.artifact.to_string());
    assert_eq!(list["annotations"], json!({"y": "z"}));
    // What is no list is left alone.
    let strange = json!({"schemaVersion": 2, "layers": []});
    client.put_manifest(&tag, "a/b", &bytes(&strange)).unwrap();
    let error = push_indexes(&scene.options()).unwrap_err().to_string();
    assert!(error.contains("remove that tag"), "{error}");
    assert_eq!(scene.document(scene.tag().unwrap()), strange);
}

impl Scene {
    fn client(&self) -> super::super::client::Client {
        let ImageName::Registry(name) = self.name(":t") else {
            panic!("an image in a registry");
        };
        super::super::client::Client::pushing(name, &self.settings()).unwrap()
    }
}

#[test]
fn who_pushes_asks_for_a_token_that_lets_him() {
    let scene = patient(Scene::wanting(Wants::Token {
        uses: 100,
        to_all: false,
    }));
    scene.login("secret");
    scene.push();
    let seen = scene.server.seen();
    let tokens = seen.iter().filter(|it| it.target.starts_with("/token"));
    // One to find the image, one to push.
    assert_eq!(tokens.count(), 2, "{seen:?}");
    let scene = patient(Scene::wanting(Wants::Password));
    scene.login("secret");
    scene.push();
}

#[test]
fn only_an_image_in_a_registry_has_where_to_push_to() {
    let scene = patient(Scene::new());
    let mut options = scene.options();
    options.name = ImageName::layout(scene.layout.path().as_os_str());
    let error = push_indexes(&options).unwrap_err().to_string();
    assert!(error.contains("docker://"), "{error}");
    let mut options = scene.options();
    options.registries.offline = true;
    scene.open().unwrap();
    let error = push_indexes(&options).unwrap_err().to_string();
    assert!(error.contains("--offline"), "{error}");
}
