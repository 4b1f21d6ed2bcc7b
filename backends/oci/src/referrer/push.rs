//! Making the indexes of an image, and sharing them.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use serde::Deserialize;
use thiserror::Error;

use super::artifact::{artifact, pack};
use crate::blob::Sha256Digest;
use crate::image::ImageName;
use crate::index::{LayerIndex, LoadError};
use crate::registry::{self, RegistryError};
use crate::{OciImage, OpenError, Options};

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedIndexes {
    /// The digest of the artifact: by it the indexes can be asked for.
    pub artifact: Sha256Digest,
    /// The image that they are for.
    pub image: Sha256Digest,
    /// How many layers have an index in it.
    pub layers: usize,
    /// Bytes of the indexes.
    pub bytes: u64,
    /// Bytes that the registry did not have.
    pub sent: u64,
    /// Layers whose indexes are too large to be shared.
    pub too_large: Vec<Sha256Digest>,
}

/// Why indexes could not be pushed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PushError {
    /// The image is not in a registry.
    #[error(
        "indexes are pushed to the registry of an image: name one, docker://REGISTRY/NAME[:TAG]"
    )]
    NotInRegistry,
    /// There are no indexes.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The registry does not take them.
    #[error("cannot push the indexes: {0}")]
    Registry(#[from] RegistryError),
    /// The manifest of the image is not in the cache any more, or what else a disk does.
    #[error("cannot push the indexes: {0}")]
    Io(#[from] io::Error),
}

/// Fetches and indexes the layers of an image of a registry, those that are not in the cache yet, and pushes the indexes
/// of all layers to the registry, beside the image. Only what this host has made of whole layers itself is pushed.
///
/// # Errors
/// See [`PushError`].
pub fn push_indexes(options: &Options) -> Result<PushedIndexes, PushError> {
    let ImageName::Registry(reference) = &options.name else {
        return Err(PushError::NotInRegistry);
    };
    let image = OciImage::open(options)?;
    let (mut seen, mut indexes, mut too_large) = (HashSet::new(), Vec::new(), Vec::new());
    for content in image.contents() {
        let layer = content.blob().digest;
        if content.blob().contents.is_some() || !seen.insert(layer) {
            continue;
        }
        let Some(index) = own_index(&options.cache, layer)? else {
            continue;
        };
        match pack(&index)? {
            Some(packed) => indexes.push((layer, packed)),
            None => too_large.push(layer),
        }
    }
    let manifest = registry::kept_document(&options.cache, image.digest())?;
    let subject = (image.digest(), media_type(&manifest), manifest.len());
    let artifact = artifact(&indexes, (subject.0, &subject.1, subject.2));
    let sent = registry::push_referrer(reference, &options.registries, &artifact)?;
    let bytes = indexes.iter().map(|(_, packed)| packed.len());
    let bytes = bytes.fold(0, usize::saturating_add);
    Ok(PushedIndexes {
        artifact: Sha256Digest::of(&artifact.manifest),
        image: image.digest(),
        layers: indexes.len(),
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        sent,
        too_large,
    })
}

/// The index that this host has made of a layer; none where it has borrowed one, or an earlier version has made it.
fn own_index(cache: &Path, layer: Sha256Digest) -> io::Result<Option<LayerIndex>> {
    match LayerIndex::load(&LayerIndex::own_path(&cache.join("layers"), layer)) {
        Err(LoadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(LoadError::Foreign) => Ok(None),
        index => index.map(Some).map_err(io::Error::other),
    }
}

/// What a manifest says that it is.
fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let typed: Option<Typed> = serde_json::from_slice(manifest).ok();
    let said = typed.and_then(|typed| typed.media_type);
    said.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned())
}
