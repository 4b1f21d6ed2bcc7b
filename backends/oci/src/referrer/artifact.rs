//! The manifest of an artifact of indexes, and its blobs.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::sync::Arc;

use serde::Deserialize;
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

/// The largest window that an index may need, as a power of two: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// An index as it is sent; none for one that is too large to be.
pub(super) fn pack(index: &LayerIndex) -> io::Result<Option<Arc<[u8]>>> {
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

/// An artifact that is there.
#[derive(Debug)]
pub(super) struct Lent {
    /// Its own digest.
    pub(super) digest: Sha256Digest,
    /// For each layer the digest and size of the blob that is its index.
    pub(super) layers: HashMap<Sha256Digest, (Sha256Digest, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    artifact_type: String,
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: String,
    digest: Sha256Digest,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// What the manifest of an artifact names.
///
/// # Errors
/// It is none of indexes.
pub(super) fn named(digest: Sha256Digest, manifest: &[u8]) -> io::Result<Lent> {
    let strange = || io::Error::other("it is no artifact of indexes");
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|_| strange())?;
    if manifest.artifact_type != ARTIFACT {
        return Err(strange());
    }
    let blobs = manifest.layers.into_iter();
    let indexes = blobs.filter(|blob| blob.media_type == LAYER_INDEX);
    let layers = indexes.filter_map(|blob| {
        let layer = blob.annotations.get(OF_LAYER)?;
        Some((layer.parse().ok()?, (blob.digest, blob.size)))
    });
    Ok(Lent {
        digest,
        layers: layers.collect(),
    })
}

/// The bytes of an index that was sent, which may be so many.
///
/// # Errors
/// What is no zstd, or decodes to too much.
pub(super) fn unpack(packed: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut bytes = Vec::new();
    decoder
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= most => Ok(bytes),
        _ => Err(io::Error::other("it is too large")),
    }
}
