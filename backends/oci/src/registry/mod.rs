//! Images in a registry: found by name, fetched while they are indexed, then read from the cache or by ranges.
//!
//! A [`Reference`] names an image; [`ImageName::Registry`](crate::image::ImageName::Registry) opens it. The first
//! time, each layer is one request, whose answer is written to the cache and indexed as it arrives. One that breaks
//! off is taken up where it was, also by the next process. Layers that are indexed but no longer in the cache are
//! read by ranges: what a guest waits for and what follows it, 256 KiB to 1 MiB, each byte once.
//!
//! What a tag means is asked each time. Where the registry does not answer, or not without other credentials, it is what
//! the tag meant before, with a [notice](crate::image::Image::notice). An image that is named by its digest needs no
//! registry once it is there.
//!
//! A registry may have mirrors, which are asked before it. One that fails is left out for a while, and what it did not
//! give is had from the next.
//!
//! Nothing that a registry sends is trusted: manifests, configurations and layers are compared with the digests that
//! lead to them, and each span with its own before a guest sees it.
//!
//! # What it needs of the host
//! When an image is opened: the files of [`AuthFiles`] and the programs that they name, the roots of trust
//! (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else the system's), the proxies in `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`,
//! and the cache. Later, for layers that are not in the cache: sockets to the registry and to wherever it sends us,
//! `/etc/resolv.conf`, `/etc/hosts` and `/etc/nsswitch.conf` for the C library to find them, and threads, of which
//! an image has one of its own. Credentials that are refused later are looked for in the files again; where those
//! cannot be read any more, the error is that they were refused.
//!
//! All of it blocks, for no longer than [`Limits`] say. It may be called on any thread but one that drives tasks.

mod auth;
mod blob;
mod body;
mod challenge;
mod client;
mod credentials;
mod error;
mod helper;
mod image;
mod limits;
mod link;
mod reference;
mod referrers;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

use std::sync::Arc;

pub use credentials::AuthFiles;
pub use error::RegistryError;
pub use limits::Limits;
pub use reference::{BadReference, Reference, Version};

pub(crate) use image::{find, kept_document};
pub(crate) use referrers::{Artifact, push as push_referrer};

use crate::counters::Counters;

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where credentials are looked for.
    pub auth: AuthFiles,
    /// Registries, as a reference names them, that are asked by plain http. Loopback addresses always are.
    pub insecure: Vec<String>,
    /// Where the images of a registry are looked for before it is asked itself, in this order: the registry, and a
    /// host with or without a path before the repository.
    pub mirrors: Vec<(String, String)>,
    /// How long they are waited for.
    pub limits: Limits,
    /// Nothing is sent to anybody: an image is what is in the cache of it.
    pub offline: bool,
    /// Where it is counted what is asked, and what comes of it.
    pub counters: Arc<Counters>,
}

impl Default for Settings {
    /// The user's files of credentials, and https for all but loopback.
    fn default() -> Self {
        Self {
            auth: AuthFiles::of_user(),
            insecure: Vec::new(),
            mirrors: Vec::new(),
            limits: Limits::default(),
            offline: false,
            counters: Arc::default(),
        }
    }
}

impl Settings {
    /// The same, with the credentials that are there now for the repository of an image, and for that of its mirrors.
    /// From then on no file of credentials is read, and no credential program runs: for a process that is about to
    /// enter a sandbox. Tokens are still asked for, and renewed.
    #[must_use]
    pub fn with_credentials(&self, image: &Reference) -> Self {
        let mut images = self.mirrored(image);
        images.push(image.clone());
        Self {
            auth: self.auth.read_now(&images),
            ..self.clone()
        }
    }

    /// The image as its mirrors call it.
    fn mirrored(&self, image: &Reference) -> Vec<Reference> {
        let mirrors = self.mirrors.iter();
        let mirrors = mirrors.filter(|(registry, _)| registry == image.registry());
        mirrors
            .filter_map(|(_, mirror)| image.at(mirror).ok())
            .collect()
    }
}
