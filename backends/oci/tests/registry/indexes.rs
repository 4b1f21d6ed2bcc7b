//! Indexes that are pushed beside an image, in a registry that keeps no list of what refers to what.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use vfsd_backend::{Backend as _, OpenFlags};
use vfsd_oci::referrer::{IndexFrom, push_indexes};
use vfsd_oci::{OciImage, Stopped};
use vfsd_testkit::place::Place;

use crate::{Registry, noise, read_all};

/// A document of `a/b`, as skopeo sees it.
fn document(registry: &Registry, version: &str) -> Value {
    let mut command = Command::new("timeout");
    command.args(["60", "skopeo", "inspect", "--raw", "--tls-verify=false"]);
    let name = format!("docker://{}/a/b{version}", registry.address);
    let output = command.arg(name).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn are_pushed_and_listed() {
    let registry = Registry::new("gzip", false);
    let pushed = push_indexes(&registry.options()).unwrap();
    assert_eq!(pushed.layers, 2);
    let artifact = document(&registry, &format!("@{}", pushed.artifact));
    let image = document(&registry, ":t");
    for (index, layer) in [0, 1].map(|at| (&artifact["layers"][at], &image["layers"][at])) {
        let of = &index["annotations"]["dev.vfsd.layer.digest"];
        assert_eq!(*of, layer["digest"]);
    }
    let list = document(&registry, &format!(":sha256-{}", pushed.image.hex()));
    let listed = list["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["digest"], pushed.artifact.to_string());
    let again = push_indexes(&registry.options()).unwrap();
    assert_eq!((again.artifact, again.sent), (pushed.artifact, 0));
}

/// The image as another host opens it, which has a cache of its own.
fn open(registry: &Registry, host: &str, index_from: IndexFrom) -> Arc<OciImage> {
    let mut options = registry.options();
    options.cache = registry.path().join(host);
    options.index_from = index_from;
    Arc::new(OciImage::open(&options).unwrap())
}

/// The most bytes that a file of a cache has that was fetched as it is.
fn largest_blob(cache: &Path) -> u64 {
    let blobs = fs::read_dir(cache.join("blobs/sha256")).unwrap();
    let sizes = blobs.map(|blob| blob.unwrap().metadata().unwrap().len());
    sizes.max().unwrap()
}

pub(crate) fn let_another_host_begin_at_once() {
    let registry = Registry::new("gzip", false);
    let pushed = push_indexes(&registry.options()).unwrap();
    let artifact = IndexFrom::Artifact(pushed.artifact);
    for (host, index_from) in [("pinned", artifact), ("listed", IndexFrom::Referrers)] {
        let image = open(&registry, host, index_from);
        assert_eq!(image.doubted_layers(), 2);
        let root = Place(image.root());
        let top = root.lookup("only-top").unwrap();
        assert_eq!(read_all(&top, 3), b"top");
        let base = root.lookup("only-base").unwrap();
        let middle = base.open(OpenFlags::READ).unwrap().read(4 << 20, 100);
        assert!(middle.unwrap() == noise()[4 << 20..][..100]);
        // Of the larger layer there is what was read, and a little of what follows it.
        let large = image.contents().next().unwrap();
        let spans = large.blob().spans.len();
        assert!(spans > 8 && large.resident_spans() <= 3, "{spans}");
        let cache = registry.path().join(host);
        assert!(largest_blob(&cache) < 1 << 20, "no layer was fetched");

        // It is compared with what there is to read, and then counts as this host's own.
        let weak = Arc::downgrade(&image);
        let failed = |error: &_| panic!("{error}");
        let stopped = OciImage::fetch_rest(&weak, Duration::ZERO, || true, failed);
        assert_eq!((stopped, image.doubted_layers()), (Stopped::Complete, 0));
        assert!(read_all(&base, noise().len()) == noise());
        drop(image);
        assert_eq!(open(&registry, host, IndexFrom::Off).doubted_layers(), 0);
    }
}

pub(crate) fn are_not_used_when_their_bytes_were_changed() {
    let registry = Registry::new("gzip", false);
    let pushed = push_indexes(&registry.options()).unwrap();
    let artifact = document(&registry, &format!("@{}", pushed.artifact));
    for layer in artifact["layers"].as_array().unwrap() {
        let hex = layer["digest"].as_str().unwrap().strip_prefix("sha256:");
        let hex = hex.unwrap();
        let blobs = registry.path().join("reg/docker/registry/v2/blobs/sha256");
        let path = blobs.join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let index_from = IndexFrom::Artifact(pushed.artifact);
    let image = open(&registry, "other", index_from);
    assert_eq!(image.doubted_layers(), 0, "the layers were read");
    let base = Place(image.root()).lookup("only-base").unwrap();
    assert!(read_all(&base, noise().len()) == noise());
}
