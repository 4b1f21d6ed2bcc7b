//! Indexes that are pushed beside an image, in a registry that keeps no list of what refers to what.

use std::process::Command;

use serde_json::Value;
use vfsd_oci::referrer::push_indexes;

use crate::Registry;

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
