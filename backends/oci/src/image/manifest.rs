//! Manifests and indexes, of OCI and of docker.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::blob::Sha256Digest;
use crate::toc::TocReference;

use super::{Config, ImageError, Platform};

/// The most layers that are taken.
const LAYERS_MAX: usize = 4096;

/// What an index, or a manifest, names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// # Errors
    /// A digest of another kind than SHA-256.
    pub(super) fn digest(&self) -> Result<Sha256Digest, ImageError> {
        self.digest.parse().map_err(|_| {
            ImageError::Unsupported(format!(
                "the image names content by \"{}\": only sha256 digests are supported",
                self.digest.escape_debug()
            ))
        })
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(name)?.as_str())
    }
}

/// An index or a manifest: which one is told by what it has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// A [`Document`], sorted out.
#[derive(Debug)]
pub(super) enum Parsed {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    layers: Vec<Descriptor>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256 of its bytes as the image has them.
    pub digest: Sha256Digest,
    /// How many they are.
    pub size: u64,
    /// SHA-256 of the tar that they decode to.
    pub diff_id: Sha256Digest,
    /// What its maker says it is. Compression is told by its first bytes, not by this.
    pub media_type: String,
    /// Its table of contents, if the manifest vouches for one.
    pub toc: Option<TocReference>,
}

impl Parsed {
    /// Reads an index or a manifest.
    ///
    /// # Errors
    /// What is neither, or has both.
    pub(super) fn parse(what: &'static str, bytes: &[u8]) -> Result<Self, ImageError> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
        match document {
            // A document that is both is read differently by different tools.
            Document {
                manifests: Some(_),
                layers: Some(_),
                ..
            } => Err(ImageError::Unsupported(format!(
                "the image's {what} is an index and a manifest at once"
            ))),
            Document {
                manifests: Some(manifests),
                ..
            } => Ok(Self::Index(manifests)),
            Document {
                config: Some(config),
                layers: Some(layers),
                artifact_type,
                ..
            } => {
                if !is_image_config(&config.media_type) {
                    let kind = artifact_type.unwrap_or(config.media_type);
                    return Err(ImageError::Unsupported(format!(
                        "this is an artifact ({}), not an image",
                        kind.escape_debug()
                    )));
                }
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            Document {
                schema_version: 1, ..
            } => Err(ImageError::Unsupported(
                "the image's manifest has the old docker schema 1: push it again with a newer tool"
                    .to_owned(),
            )),
            _ => Err(ImageError::Unsupported(format!(
                "the image's {what} names neither manifests nor layers"
            ))),
        }
    }
}

impl Manifest {
    /// The layers, as manifest and configuration describe them together.
    ///
    /// # Errors
    /// A contradiction between the two, and layers that cannot be read.
    pub(super) fn layers(&self, config: &Config) -> Result<Vec<Layer>, ImageError> {
        let diff_ids = diff_ids(config)?;
        if diff_ids.len() != self.layers.len() {
            return Err(ImageError::Unsupported(format!(
                "the image's manifest has {} layers, its configuration {}",
                self.layers.len(),
                diff_ids.len()
            )));
        }
        let layers = self.layers.iter().zip(diff_ids);
        layers
            .map(|(layer, diff_id)| {
                check_layer_type(&layer.media_type)?;
                Ok(Layer {
                    digest: layer.digest()?,
                    size: layer.size,
                    diff_id,
                    media_type: layer.media_type.clone(),
                    toc: TocReference::of(|name| layer.annotation(name)),
                })
            })
            .collect()
    }
}

/// The digests of the layers' tars.
///
/// # Errors
/// Too many, and those that are none.
pub(super) fn diff_ids(config: &Config) -> Result<Vec<Sha256Digest>, ImageError> {
    let diff_ids = config.rootfs.diff_ids.as_deref().unwrap_or_default();
    if diff_ids.len() > LAYERS_MAX {
        return Err(ImageError::Unsupported(format!(
            "the image has {} layers; {LAYERS_MAX} are allowed",
            diff_ids.len()
        )));
    }
    let read = diff_ids.iter().map(|diff_id| {
        diff_id.parse().map_err(|_| {
            let diff_id = diff_id.escape_debug();
            ImageError::Unsupported(format!(
                "the image's configuration names a layer \"{diff_id}\", which is no sha256 digest"
            ))
        })
    });
    read.collect()
}

fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}

fn check_layer_type(media_type: &str) -> Result<(), ImageError> {
    let known = media_type.is_empty()
        || media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.");
    if known && !media_type.contains("+encrypted") {
        return Ok(());
    }
    let media_type = media_type.escape_debug();
    Err(ImageError::Unsupported(format!(
        "the image has a layer of type {media_type}: only tar layers that are not encrypted are supported"
    )))
}
