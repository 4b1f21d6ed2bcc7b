//! Where an image is found, and what its manifest and configuration say.
//!
//! An image is named by an [`ImageName`] and found by [`Image::open`]: in an [OCI layout](ImageName::Layout) or in a
//! [`docker save` archive](ImageName::Archive), for one [`Platform`]. Every manifest and configuration
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

use std::sync::Arc;

use crate::blob::{BlobSource, Sha256Digest};

pub use blobs::Blobs;
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
    blobs: Arc<dyn Blobs>,
}

impl Image {
    /// Finds an image on this machine. Blocks, for the disk.
    ///
    /// `platform` is what the image must be for. Without one it is the host's, where there is a choice; where there is
    /// none, the image may be for any.
    ///
    /// # Errors
    /// Each says in a line what to do.
    pub fn open(name: &ImageName, platform: Option<&Platform>) -> Result<Self, ImageError> {
        match name {
            ImageName::Layout { path, tag } => layout::open(path, tag.as_deref(), platform),
            ImageName::Archive { path, tag } => archive::open(path, tag.as_deref(), platform),
        }
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
