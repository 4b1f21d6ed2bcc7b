//! Archives of `docker save`.

use std::io::Write;

use serde_json::{Value, json};

use crate::blob::Sha256Digest;
use crate::testing::{LAYER, Layout, Tar};

use super::*;

fn layer(content: &str) -> Vec<u8> {
    Tar::default().file("a", content.as_bytes()).finish()
}

fn config(tars: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = tars
        .iter()
        .map(|tar| Sha256Digest::of(tar).to_string())
        .collect();
    json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}})
        .to_string()
        .into_bytes()
}

/// What opening an archive comes to.
fn open(bytes: &[u8], tag: Option<&str>) -> Result<Image, ImageError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let name = ImageName::Archive {
        path: file.path().to_owned(),
        tag: tag.map(str::to_owned),
    };
    open_local(&name, None)
}

/// What is wrong with an archive, without the file's name.
fn refused_for(bytes: &[u8]) -> String {
    let message = refused(open(bytes, None));
    let (_, reason) = message
        .split_once(" is no archive that `docker save` made: ")
        .unwrap();
    reason.to_owned()
}

#[track_caller]
fn has_layers(image: &Image, tars: &[Vec<u8>]) {
    assert_eq!(image.layers.len(), tars.len());
    for (layer, tar) in image.layers.iter().zip(tars) {
        let mut read = vec![0; tar.len()];
        let source = image.open_layer(layer).unwrap();
        source.read_at(0, &mut read).unwrap();
        assert_eq!(&read, tar);
        assert_eq!(layer.digest, Sha256Digest::of(tar));
        assert!(
            source.read_at(1, &mut read).is_err(),
            "what follows is another member's"
        );
    }
}

/// An old archive: layers in folders of their own, one of them a link to another one's.
fn classic(tags: &[&str]) -> Vec<u8> {
    let tar = layer("one");
    let config = config(&[&tar, &tar]);
    let name = format!("{}.json", Sha256Digest::of(&config).hex());
    let manifest =
        json!([{"Config": name, "RepoTags": tags, "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    Tar::default()
        .file("1/VERSION", b"1.0")
        .file("1/layer.tar", &tar)
        .symlink("2/layer.tar", "../1/layer.tar")
        .file(&name, &config)
        .file("manifest.json", manifest.to_string().as_bytes())
        .finish()
}

#[test]
fn an_old_archive_is_read_where_its_layers_are() {
    let image = open(&classic(&["alpine:3.20"]), None).unwrap();
    has_layers(&image, &[layer("one"), layer("one")]);
    assert_eq!(image.layers[0].digest, image.layers[0].diff_id);
}

#[test]
fn an_image_is_found_by_any_spelling_of_its_name() {
    let archive = classic(&["alpine:latest", "localhost:5000/x:1"]);
    for tag in [
        "alpine",
        "alpine:latest",
        "docker.io/library/alpine",
        "library/alpine",
        "localhost:5000/x:1",
    ] {
        assert!(open(&archive, Some(tag)).is_ok(), "{tag}");
    }
    assert_eq!(
        refused(open(&archive, Some("alpine:3"))),
        "the archive has no image \"alpine:3\": there is alpine:latest, localhost:5000/x:1"
    );
}

/// A newer archive: blobs by their digests, gzip among them.
fn newer(images: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Tar::default();
    let mut manifest: Vec<Value> = Vec::new();
    for (tag, content) in images {
        let tar = layer(content);
        let config = config(&[&tar]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = gzip.finish().unwrap();
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Sha256Digest::of(bytes).hex());
        manifest.push(json!({"Config": blob(&config), "RepoTags": [tag], "Layers": [blob(&gzip)]}));
        archive = archive
            .file(&blob(&config), &config)
            .file(&blob(&gzip), &gzip);
    }
    let manifest = Value::Array(manifest).to_string();
    archive.file("manifest.json", manifest.as_bytes()).finish()
}

#[test]
fn a_newer_archive_names_layers_by_their_digests() {
    let archive = newer(&[("a:1", "one"), ("b:1", "two")]);
    let image = open(&archive, Some("b:1")).unwrap();
    assert_eq!(image.layers[0].diff_id, Sha256Digest::of(&layer("two")));
    assert_ne!(image.layers[0].digest, image.layers[0].diff_id);
    let mut head = [0; 2];
    image
        .open_layer(&image.layers[0])
        .unwrap()
        .read_at(0, &mut head)
        .unwrap();
    assert_eq!(head, [0x1f, 0x8b]);
    assert_eq!(
        refused(open(&archive, None)),
        "the archive has several images, add :NAME:TAG: there is a:1, b:1"
    );
}

#[test]
fn a_compressed_layer_without_a_digest_is_hashed() {
    let tar = layer("one");
    let packed = zstd::encode_all(&tar[..], 1).unwrap();
    let config = config(&[&tar]);
    let manifest = json!([{"Config": "c.json", "Layers": ["l.tar"]}]).to_string();
    let archive = Tar::default()
        .file("c.json", &config)
        .file("l.tar", &packed)
        .file("./manifest.json", manifest.as_bytes());
    let image = open(&archive.finish(), None).unwrap();
    has_layers(&image, &[packed]);
}

#[test]
fn an_archive_that_is_a_layout_is_read_as_one() {
    let mut layout = Layout::new();
    let image = layout.image("amd64", &[layer("one")], <[u8]>::to_vec);
    layout.name(image, Some("t"));
    let mut archive = Tar::default();
    for blob in std::fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let name = format!("blobs/sha256/{}", blob.file_name().to_str().unwrap());
        archive = archive.file(&name, &std::fs::read(blob.path()).unwrap());
    }
    let index = std::fs::read(layout.path().join("index.json")).unwrap();
    let image = open(&archive.file("index.json", &index).finish(), Some("t")).unwrap();
    has_layers(&image, &[layer("one")]);
    assert_eq!(image.layers[0].media_type, LAYER);
}

#[test]
fn what_is_no_archive_is_refused_with_a_reason() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&classic(&[])).unwrap();
    assert_eq!(
        refused_for(&gzip.finish().unwrap()),
        "it is compressed; decompress it first (gzip -d, zstd -d)"
    );
    assert_eq!(
        refused_for(b""),
        "it has neither manifest.json nor index.json"
    );
    assert_eq!(
        refused_for(&Tar::default().file("a", b"").finish()),
        "it has neither manifest.json nor index.json"
    );
    assert!(refused_for(&[b'x'; 2000]).starts_with("header error"));
    let folder = tempfile::tempdir().unwrap();
    let name = ImageName::archive(folder.path().as_os_str());
    assert!(refused(open_local(&name, None)).ends_with("it is no regular file"));
}

#[test]
fn an_archive_that_was_cut_or_changed_is_refused() {
    let whole = classic(&["a:1"]);
    // Wherever it is cut before its end, something of the image is missing.
    for length in (0..whole.len() - 1536).step_by(512) {
        let message = refused(open(&whole[..length], None));
        assert!(!message.is_empty(), "{length}");
    }
    let config = whole
        .windows(4)
        .position(|window| window == b"amd6")
        .unwrap();
    let mut changed = whole.clone();
    changed[config] = b'b';
    assert!(refused(open(&changed, None)).ends_with("is damaged: copy the image again"));
}

#[test]
fn links_in_a_circle_and_endless_headers_are_refused() {
    let manifest = json!([{"Config": "a", "Layers": []}]).to_string();
    let archive = Tar::default()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("manifest.json", manifest.as_bytes());
    assert_eq!(
        refused(open(&archive.finish(), None)),
        "the archive's configuration a is missing: save the image again"
    );
    let long = "n".repeat(100_000);
    let reason = refused_for(&Tar::default().file(&long, b"").finish());
    assert!(
        reason.contains("exceeds limit") || reason.contains("too large"),
        "{reason}"
    );
}
