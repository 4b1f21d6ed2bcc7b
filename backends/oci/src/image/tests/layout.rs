//! OCI layouts.

use serde_json::json;

use crate::blob::Sha256Digest;
use crate::image::Platform;
use crate::testing::{CONFIG, INDEX, LAYER, Layout, MANIFEST, Tar, digest};

use super::*;

fn tar(content: &str) -> Vec<u8> {
    Tar::default().file("a", content.as_bytes()).finish()
}

/// A layout with an image of two layers for this machine.
fn layout() -> Layout {
    let mut layout = Layout::new();
    let host = Platform::host().architecture;
    let image = layout.image(&host, &[tar("lower"), tar("upper")], <[u8]>::to_vec);
    layout.name(image, Some("latest"));
    layout
}

#[test]
fn an_image_is_found_by_its_tag_its_digest_or_as_the_only_one() {
    let layout = layout();
    let image = open(&layout, Some("latest"), None).unwrap();
    assert_eq!(image.layers.len(), 2);
    for (layer, content) in image.layers.iter().zip(["lower", "upper"]) {
        let tar = tar(content);
        assert_eq!(layer.diff_id, Sha256Digest::of(&tar));
        assert_eq!(
            (layer.digest, layer.size),
            (layer.diff_id, tar.len() as u64)
        );
        let mut read = vec![0; tar.len()];
        image
            .open_layer(layer)
            .unwrap()
            .read_at(0, &mut read)
            .unwrap();
        assert_eq!(read, tar);
    }
    assert_eq!(image.config.run().entrypoint, ["/bin/init"]);
    assert_eq!(image.config.created_at().seconds, 1_000_000_000);
    for tag in [None, Some(image.digest.to_string().as_str())] {
        assert_eq!(open(&layout, tag, None).unwrap().digest, image.digest);
    }
}

#[test]
fn a_tag_that_is_not_there_is_answered_with_those_that_are() {
    let mut layout = layout();
    let other = layout.image("amd64", &[tar("other")], <[u8]>::to_vec);
    layout.name(other, Some("1.0"));
    assert_eq!(
        refused(open(&layout, Some("lates"), None)),
        "the layout has no image \"lates\": there is 1.0, latest"
    );
    assert_eq!(
        refused(open(&layout, None, None)),
        "the layout has several images, add :TAG: there is 1.0, latest"
    );
    assert!(open(&layout, Some("1.0"), None).is_ok());
}

#[test]
fn an_index_is_searched_for_the_platform_also_in_other_indexes() {
    let mut layout = Layout::new();
    let amd64 = layout.image("amd64", &[tar("amd64")], <[u8]>::to_vec);
    let arm64 = layout.image("arm64", &[tar("arm64")], <[u8]>::to_vec);
    let mut attestation = layout.image("unknown", &[], <[u8]>::to_vec);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({"schemaVersion": 2, "manifests": [attestation, amd64, arm64]});
    let inner = layout.json(INDEX, &index);
    layout.name(inner, Some("t"));
    for (platform, expected) in [("linux/amd64", &amd64), ("linux/aarch64", &arm64)] {
        let image = open(&layout, Some("t"), Some(platform)).unwrap();
        assert_eq!(image.digest, digest(expected), "{platform}");
    }
    assert_eq!(
        refused(open(&layout, Some("t"), Some("linux/s390x"))),
        "no image for linux/s390x: there is linux/amd64, linux/arm64; choose one with --platform"
    );
}

#[test]
fn images_of_one_name_are_told_apart_by_their_platforms() {
    let mut layout = Layout::new();
    let arm64 = layout.image("arm64", &[tar("arm64")], <[u8]>::to_vec);
    let amd64 = layout.image("amd64", &[tar("amd64")], <[u8]>::to_vec);
    layout.name(arm64.clone(), Some("t"));
    layout.name(amd64, Some("t"));
    let image = open(&layout, Some("t"), Some("linux/arm64")).unwrap();
    assert_eq!(image.digest, digest(&arm64));
}

#[test]
fn an_image_without_a_choice_must_be_for_the_platform_only_if_one_is_asked_for() {
    let mut layout = Layout::new();
    let image = layout.image("riscv64", &[], <[u8]>::to_vec);
    layout.name(image, None);
    assert!(open(&layout, None, None).is_ok());
    assert!(open(&layout, None, Some("linux/riscv64")).is_ok());
    assert_eq!(
        refused(open(&layout, None, Some("linux/amd64"))),
        "no image for linux/amd64: there is linux/riscv64; choose one with --platform"
    );
}

#[test]
fn indexes_without_an_end_are_refused() {
    let mut layout = Layout::new();
    let mut inner = layout.image("amd64", &[], <[u8]>::to_vec);
    for _ in 0..5 {
        inner["platform"] = json!({"os": "linux", "architecture": "amd64"});
        inner = layout.json(INDEX, &json!({"manifests": [inner]}));
    }
    layout.name(inner, None);
    assert_eq!(
        refused(open(&layout, None, Some("linux/amd64"))),
        "the image's indexes lie more than 4 deep in each other"
    );
}

#[test]
fn what_its_digest_does_not_cover_is_refused() {
    let layout = layout();
    let image = open(&layout, None, None).unwrap();
    let path = layout.blob_path(image.digest);
    let manifest = std::fs::read(&path).unwrap();
    let message = format!(
        "the image's manifest {} is damaged: copy the image again",
        image.digest
    );
    let mut changed = manifest.clone();
    changed[3] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    assert_eq!(refused(open(&layout, None, None)), message);
    std::fs::write(&path, &manifest[1..]).unwrap();
    assert_eq!(
        refused(open(&layout, None, None)),
        message,
        "of another size"
    );
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(open(&layout, None, None)),
        format!(
            "the image's manifest {} is missing: copy the image again, with all its layers",
            image.digest
        )
    );
}

#[test]
fn a_layer_that_is_not_there_or_has_another_size_is_said_to_be() {
    let layout = layout();
    let image = open(&layout, None, None).unwrap();
    let [lower, upper] = image.layers.as_slice() else {
        panic!("two layers");
    };
    std::fs::remove_file(layout.blob_path(lower.digest)).unwrap();
    std::fs::write(layout.blob_path(upper.digest), "x").unwrap();
    assert!(matches!(
        image.open_layer(lower),
        Err(ImageError::Missing { .. })
    ));
    assert!(matches!(
        image.open_layer(upper),
        Err(ImageError::Mismatch { .. })
    ));
}

#[test]
fn a_folder_that_is_no_layout_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |path: &std::path::Path| refused(open_local(&ImageName::layout(path.as_os_str()), None));
    assert_eq!(
        open(folder.path()),
        format!(
            "{} is no OCI image layout (it has no index.json): give the folder that has one",
            folder.path().display()
        )
    );
    let missing = open(&folder.path().join("x"));
    assert!(
        missing.contains("/x: No such file or directory") && missing.ends_with("(docker-archive:)"),
        "{missing}"
    );
    let layout = layout();
    std::fs::write(
        layout.path().join("oci-layout"),
        r#"{"imageLayoutVersion":"2.0"}"#,
    )
    .unwrap();
    assert_eq!(
        open(layout.path()),
        "the image layout has version 2.0; 1.0.0 is supported"
    );
}

/// What is said of a layout whose only manifest is this.
fn refused_manifest(layout: &mut Layout, manifest: &serde_json::Value) -> String {
    let descriptor = layout.json(MANIFEST, manifest);
    layout.name(descriptor, Some("t"));
    let message = refused(open(layout, Some("t"), None));
    *layout = Layout::new();
    message
}

#[test]
fn manifests_that_are_no_images_are_refused_with_what_they_are() {
    let mut layout = Layout::new();
    let chart = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json",
        "digest": Sha256Digest::of(b"").to_string(), "size": 0});
    assert_eq!(
        refused_manifest(
            &mut layout,
            &json!({"schemaVersion": 2, "config": chart, "layers": []})
        ),
        "this is an artifact (application/vnd.cncf.helm.config.v1+json), not an image"
    );
    assert_eq!(
        refused_manifest(&mut layout, &json!({"schemaVersion": 1, "fsLayers": []})),
        "the image's manifest has the old docker schema 1: push it again with a newer tool"
    );
    let both = json!({"manifests": [], "layers": [], "config": chart});
    assert_eq!(
        refused_manifest(&mut layout, &both),
        "the image's manifest is an index and a manifest at once"
    );
    assert!(
        refused_manifest(&mut layout, &json!({"layers": 1}))
            .starts_with("the image's manifest is malformed")
    );
}

#[test]
fn layers_that_contradict_the_configuration_or_cannot_be_read_are_refused() {
    let mut layout = Layout::new();
    let config = |layout: &Layout, diff_ids: &[&str]| {
        layout.json(CONFIG, &json!({"rootfs": {"diff_ids": diff_ids}}))
    };
    let id = Sha256Digest::of(b"x").to_string();
    let layer = |media_type: &str| json!({"mediaType": media_type, "digest": id, "size": 1});
    let manifest = json!({"config": config(&layout, &[]), "layers": [layer(LAYER)]});
    assert_eq!(
        refused_manifest(&mut layout, &manifest),
        "the image's manifest has 1 layers, its configuration 0"
    );
    let encrypted = layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    let manifest = json!({"config": config(&layout, &[&id]), "layers": [encrypted]});
    assert_eq!(
        refused_manifest(&mut layout, &manifest),
        "the image has a layer of type application/vnd.oci.image.layer.v1.tar+gzip+encrypted: \
         only tar layers that are not encrypted are supported"
    );
    let mut odd = layer(LAYER);
    odd["digest"] = json!("sha512:00");
    let manifest = json!({"config": config(&layout, &[&id]), "layers": [odd]});
    assert_eq!(
        refused_manifest(&mut layout, &manifest),
        "the image names content by \"sha512:00\": only sha256 digests are supported"
    );
    let mut traversal = layer(LAYER);
    traversal["digest"] = json!("sha256:../../../../etc/passwd");
    let manifest = json!({"config": config(&layout, &[&id]), "layers": [traversal]});
    assert!(refused_manifest(&mut layout, &manifest).contains("only sha256 digests"));
}

#[test]
fn a_manifest_is_at_most_four_mebibytes() {
    let mut layout = Layout::new();
    let descriptor = json!({"mediaType": MANIFEST, "size": (4 << 20) + 1,
        "digest": Sha256Digest::of(b"").to_string()});
    layout.name(descriptor, None);
    assert_eq!(
        refused(open(&layout, None, None)),
        "the image's manifest has 4194305 bytes; 4 MiB are allowed"
    );
    std::fs::write(layout.path().join("index.json"), vec![b' '; (4 << 20) + 1]).unwrap();
    assert_eq!(
        refused(open(&layout, None, None)),
        "the image's index.json has 4194305 bytes; 4 MiB are allowed"
    );
}
