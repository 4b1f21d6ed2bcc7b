//! Where an image is found, and what its manifest and configuration say.
//!
//! An image is named by an [`ImageName`] and found by [`Image::open`]: in an [OCI layout](ImageName::Layout) or in a
//! [`docker save` archive](ImageName::Archive), or in a [registry](ImageName::Registry), for one [`Platform`]. Every manifest and configuration
//! is compared with the digest by which it is named, and bounded in size; layers are only found here, and verified
//! by whoever reads them.

mod archive;
mod blobs;
mod config;
mod error;
mod layout;
mod manifest;
mod members;
mod name;
mod platform;
mod select;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::blob::{BlobSource, Sha256Digest};
use crate::registry;

pub(crate) use blobs::JSON_MAX;
pub use blobs::{Blobs, Document};
pub use config::{Config, RunConfig};
pub use error::ImageError;
pub use manifest::Layer;
pub use name::ImageName;
pub use platform::{BadPlatform, Platform};

/// An image: its configuration, its layers, and where their bytes are.
pub struct Image {
    /// What the image is known by: the digest of its manifest. A classic `docker save` archive has none; there it is
    /// that of the configuration, which names the layers too.
    pub digest: Sha256Digest,
    /// The configuration.
    pub config: Config,
    /// The layers, from the lowest up.
    pub layers: Vec<Layer>,
    /// Why this may not be what the name means now: its registry was not to be asked, and this is what the name meant
    /// before.
    pub notice: Option<String>,
    blobs: Arc<dyn Blobs>,
}

impl Image {
    /// Finds an image. Blocks, for the disk or a registry.
    ///
    /// What a registry sends is kept in the folder `cache`, which is made if it is missing; `registries` says how one
    /// is asked. Both mean nothing to an image on this machine.
    ///
    /// `platform` is what the image must be for. Without one it is the host's, where there is a choice; where there is
    /// none, the image may be for any.
    ///
    /// # Errors
    /// Each says in a line what to do.
    pub fn open(
        name: &ImageName,
        platform: Option<&Platform>,
        cache: &Path,
        registries: &registry::Settings,
    ) -> Result<Self, ImageError> {
        match name {
            ImageName::Registry(name) => registry::find(name, platform, cache, registries),
            ImageName::Layout { path, tag } => layout::open(path, tag.as_deref(), platform),
            ImageName::Archive { path, tag } => archive::open(path, tag.as_deref(), platform),
        }
    }

    /// The image of an index that has one, or one for the platform.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_index(
        index: &[u8],
        platform: Option<&Platform>,
        blobs: Arc<dyn Blobs>,
    ) -> Result<Self, ImageError> {
        select::from_layout(index, None, platform, blobs)
    }

    /// A layer from its first byte to its last, not verified. Where it has to be fetched it is kept.
    pub(crate) fn read_layer(&self, layer: &Layer) -> Result<Box<dyn Read + Send>, ImageError> {
        let reader = self.blobs.read(layer.digest, layer.size);
        reader.map_err(|error| ImageError::blob("layer", layer.digest, error))
    }

    /// What it is for: `linux/amd64`. Empty where the image does not say it.
    pub fn platform(&self) -> String {
        let config = &self.config;
        let words = [&config.os, &config.architecture].into_iter();
        let words = words.chain(&config.variant);
        let words: Vec<&str> = words
            .map(String::as_str)
            .filter(|word| !word.is_empty())
            .collect();
        words.join("/")
    }

    /// See [`Blobs::documents`].
    pub(crate) fn documents(&self) -> Vec<Sha256Digest> {
        self.blobs.documents()
    }

    /// The manifests of a type that refer to the image: see [`Blobs::referrers`].
    pub(crate) fn referrers(&self, kind: &str) -> io::Result<Vec<Sha256Digest>> {
        self.blobs.referrers(self.digest, kind)
    }

    /// See [`Blobs::manifest`].
    pub(crate) fn manifest(&self, digest: Sha256Digest) -> io::Result<Vec<u8>> {
        self.blobs.manifest(digest)
    }

    /// See [`Blobs::open`].
    pub(crate) fn open_blob(
        &self,
        digest: Sha256Digest,
        size: u64,
    ) -> io::Result<Arc<dyn BlobSource>> {
        self.blobs.open(digest, size)
    }

    /// Drops what is kept of a layer that turned out to be wrong; see [`Blobs::discard`].
    pub(crate) fn discard_layer(&self, layer: &Layer) -> bool {
        self.blobs.discard(layer.digest)
    }

    /// The bytes of a layer as the image has them, not verified.
    ///
    /// # Errors
    /// `Missing` where the image has been copied without it; whatever kept it from being opened.
    pub fn open_layer(&self, layer: &Layer) -> Result<Arc<dyn BlobSource>, ImageError> {
        let source = self.blobs.open(layer.digest, layer.size);
        source.map_err(|error| ImageError::blob("layer", layer.digest, error))
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("digest", &self.digest)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}
