//! The manifest of an artifact of indexes, and its blobs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ARTIFACT, INDEX_MAX, LAYER_INDEX, OF_LAYER};
use crate::blob::Sha256Digest;
use crate::index::LayerIndex;
use crate::registry::Artifact;

/// The empty configuration that an artifact has.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// How hard is tried to make an index small: more hardly makes it smaller.
const LEVEL: i32 = 6;

/// An index as it is sent; none for one that is too large to be.
pub(super) fn pack(index: &LayerIndex) -> std::io::Result<Option<Arc<[u8]>>> {
    let bytes = index.to_bytes();
    if u64::try_from(bytes.len()).map_or(true, |length| length > INDEX_MAX) {
        return Ok(None);
    }
    Ok(Some(zstd::bulk::compress(&bytes, LEVEL)?.into()))
}

/// The artifact of indexes, each with the digest of its layer, for an image: its manifest's digest, its type, and how
/// many bytes it has.
pub(super) fn artifact(
    indexes: &[(Sha256Digest, Arc<[u8]>)],
    (subject, media_type, size): (Sha256Digest, &str, usize),
) -> Artifact {
    let described = |media_type: &str, bytes: &[u8]| {
        json!({
            "mediaType": media_type,
            "digest": Sha256Digest::of(bytes).to_string(),
            "size": bytes.len(),
        })
    };
    let layers = indexes.iter().map(|(layer, bytes)| {
        let mut layer_index = described(LAYER_INDEX, bytes);
        if let Value::Object(fields) = &mut layer_index {
            let annotations = json!({OF_LAYER: layer.to_string()});
            fields.insert("annotations".to_owned(), annotations);
        }
        layer_index
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": ARTIFACT,
        "config": described(EMPTY_TYPE, EMPTY),
        "layers": layers.collect::<Vec<_>>(),
        "subject": {"mediaType": media_type, "digest": subject.to_string(), "size": size},
    });
    let blobs = indexes.iter().map(|(_, bytes)| Arc::clone(bytes));
    Artifact {
        manifest: manifest.to_string().into_bytes(),
        artifact_type: ARTIFACT,
        subject,
        blobs: blobs.chain([Arc::from(EMPTY)]).collect(),
    }
}
