//! Finding an image in a registry.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::blob::{BlobSource, Check, Sha256Digest};
use crate::counters::RequestKind;
use crate::image::{Blobs, Document, Image, ImageError, JSON_MAX, Platform};

use super::blob::{Place, RegistryBlob};
use super::body;
use super::client::{self, Client, Get};
use super::referrers;
use super::store::{Download, Store};
use super::{Limits, Reference, RegistryError, Settings, Version};

/// How often a mirror is asked before the next one is.
const MIRROR_ATTEMPTS: u32 = 2;

/// What is understood of manifests.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Finds an image in a registry, for a platform; the host's without one. Manifests and configurations are kept in
/// `cache`: an image that is named by its digest and was found before is found there, and nothing is sent.
///
/// # Errors
/// As [`Image::open`], and whatever the registry answers.
pub(crate) fn find(
    reference: &Reference,
    platform: Option<&Platform>,
    cache: &Path,
    settings: &Settings,
) -> Result<Image, ImageError> {
    let store = Store::new(cache).map_err(RegistryError::Cache)?;
    let own = Arc::new(Client::new(reference.clone(), settings)?);
    let hasty = Settings {
        limits: Limits {
            attempts: settings.limits.attempts.min(MIRROR_ATTEMPTS),
            ..settings.limits
        },
        ..settings.clone()
    };
    let mirrors = settings.mirrored(reference).into_iter();
    let mirrors = mirrors.map(|mirror| Client::new(mirror, &hasty).map(Arc::new));
    let blobs = RegistryBlobs {
        mirrors: mirrors.collect::<Result<_, _>>()?,
        own,
        store,
        documents: Mutex::default(),
    };
    let (digest, size, notice) = blobs.resolve()?;
    // A layout's index with the one image in it.
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{"digest": digest.to_string(), "size": size}],
    });
    let index = index.to_string();
    let mut image = Image::of_index(index.as_bytes(), platform, Arc::new(blobs))?;
    image.notice = notice;
    Ok(image)
}

/// A manifest that is in the cache.
///
/// # Errors
/// It is not there, or damaged.
pub(crate) fn kept_document(cache: &Path, digest: Sha256Digest) -> io::Result<Vec<u8>> {
    let store = Store::new(cache)?;
    let size = store.size(digest).filter(|size| *size <= JSON_MAX);
    let found = size.and_then(|size| store.read(digest, size));
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The blobs of one repository, in the cache or in the registry.
#[derive(Debug)]
struct RegistryBlobs {
    /// Asked before the registry itself, in this order.
    mirrors: Vec<Arc<Client>>,
    own: Arc<Client>,
    store: Store,
    documents: Mutex<Vec<Sha256Digest>>,
}

impl RegistryBlobs {
    /// The manifest that the image's name leads to, its size, and what is to be said of it.
    fn resolve(&self) -> Result<(Sha256Digest, u64, Option<String>), RegistryError> {
        let image = self.own.image();
        let name = image.to_string();
        let wanted = match image.version() {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => None,
        };
        if let Some((digest, size)) = wanted.and_then(|digest| self.there(digest)) {
            return Ok((digest, size, None));
        }
        let bytes = match self.fetch("manifests", &image.version().to_string(), wanted) {
            Ok(bytes) => bytes,
            Err(error) if error.is_of_registry() && wanted.is_none() => {
                let before = self.store.named(&name);
                let Some((digest, size)) = before.and_then(|it| self.there(it)) else {
                    return Err(error);
                };
                if matches!(error, RegistryError::Offline(_)) {
                    return Ok((digest, size, None));
                }
                let notice = format!("{name} is what it was when it was fetched last: {error}");
                return Ok((digest, size, Some(notice)));
            }
            Err(error) => return Err(error),
        };
        let digest = Sha256Digest::of(&bytes);
        self.keep(digest, &bytes)?;
        let remembered = self.store.remember(&name, digest);
        remembered.map_err(RegistryError::Cache)?;
        Ok((digest, u64::try_from(bytes.len()).unwrap_or(u64::MAX), None))
    }

    /// A manifest that is in the cache, and its size.
    fn there(&self, digest: Sha256Digest) -> Option<(Sha256Digest, u64)> {
        let size = self.store.size(digest).filter(|size| *size <= JSON_MAX)?;
        self.store.read(digest, size)?;
        Some((digest, size))
    }

    /// Fetches a document, until it is what it should be.
    fn fetch(
        &self,
        kind: &str,
        name: &str,
        wanted: Option<Sha256Digest>,
    ) -> Result<Vec<u8>, RegistryError> {
        for mirror in self.mirrors.iter().filter(|it| !it.is_avoided()) {
            match Self::fetch_from(mirror, kind, name, wanted) {
                Ok(bytes) => return Ok(bytes),
                // That it does not have one image says nothing of others.
                Err(RegistryError::NotFound(_)) => {}
                Err(_) => mirror.avoid(),
            }
        }
        Self::fetch_from(&self.own, kind, name, wanted)
    }

    fn fetch_from(
        client: &Client,
        kind: &str,
        name: &str,
        wanted: Option<Sha256Digest>,
    ) -> Result<Vec<u8>, RegistryError> {
        let image = client.image();
        let what = match wanted {
            None => image.to_string(),
            Some(digest) => format!("{}/{}@{digest}", image.registry(), image.repository()),
        };
        let url = client.url(kind, name)?;
        let is_manifest = kind == "manifests";
        let kind = match is_manifest {
            true => RequestKind::Manifest,
            false => RequestKind::Blob,
        };
        client.retry(kind, || {
            let answer = client.get(&Get {
                what: &what,
                kind,
                url: &url,
                accept: is_manifest.then_some(MANIFESTS),
                range: None,
            })?;
            let response = answer.response;
            let said = client::text(response.headers(), client::CONTENT_DIGEST);
            let said = said.and_then(|said| said.parse::<Sha256Digest>().ok());
            let (limits, meter) = (client.limits(), client.counters().meter(kind));
            let bytes = body::document(response, &what, JSON_MAX, limits, &meter)?;
            let found = Sha256Digest::of(&bytes);
            match wanted.or(said) {
                Some(digest) if digest != found => {
                    client.counters().wrong();
                    Err(RegistryError::Answer {
                        what: what.clone(),
                        reason: format!("with other bytes than those of {digest}"),
                    })
                }
                _ => Ok(bytes),
            }
        })
    }

    fn keep(&self, digest: Sha256Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        self.store
            .write(digest, bytes)
            .map_err(RegistryError::Cache)
    }

    fn place(&self, digest: Sha256Digest, size: u64) -> Result<Arc<Place>, RegistryError> {
        let place = |client: &Arc<Client>, next| -> Result<_, RegistryError> {
            let place = Place::new(Arc::clone(client), digest, size, next)?;
            Ok(Arc::new(place))
        };
        let mut first = place(&self.own, None)?;
        for mirror in self.mirrors.iter().rev() {
            first = place(mirror, Some(first))?;
        }
        Ok(first)
    }
}

/// A blob that is read from the cache as long as it is there, which may change at any time, and else from its registry.
#[derive(Debug)]
struct KeptBlob {
    store: Store,
    remote: RegistryBlob,
}

impl BlobSource for KeptBlob {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (digest, size) = self.remote.blob();
        match self.store.open(digest, size) {
            Some(file) => file.read_at(offset, buffer),
            None => self.remote.read_at(offset, buffer),
        }
    }

    fn read_right(&self, offset: u64, buffer: &mut [u8], check: Check<'_>) -> io::Result<()> {
        let (digest, size) = self.remote.blob();
        if let Some(file) = self.store.open(digest, size) {
            file.read_at(offset, buffer)?;
            match check(buffer) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.remote.count_wrong();
                    tracing::warn!("the cache is damaged: {error}; the registry is asked");
                }
            }
        }
        self.remote.read_right(offset, buffer, check)
    }

    fn is_distant(&self) -> bool {
        let (digest, size) = self.remote.blob();
        self.store.open(digest, size).is_none()
    }
}

impl Blobs for RegistryBlobs {
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>> {
        let place = self.place(digest, size)?;
        Ok(Arc::new(KeptBlob {
            store: self.store.clone(),
            remote: RegistryBlob::new(place),
        }))
    }

    fn open_document(
        &self,
        kind: Document,
        digest: Sha256Digest,
        size: u64,
    ) -> io::Result<Arc<dyn BlobSource>> {
        let bytes = match self.store.read(digest, size) {
            Some(bytes) => bytes,
            None => {
                let kind = match kind {
                    Document::Manifest => "manifests",
                    Document::Configuration => "blobs",
                };
                let bytes = self.fetch(kind, &digest.to_string(), Some(digest))?;
                self.keep(digest, &bytes)?;
                bytes
            }
        };
        self.documents.lock().push(digest);
        Ok(Arc::new(bytes))
    }

    fn read(&self, digest: Sha256Digest, size: u64) -> io::Result<Box<dyn Read + Send>> {
        let place = self.place(digest, size)?;
        Ok(Box::new(Download::open(self.store.clone(), place)?))
    }

    fn referrers(&self, subject: Sha256Digest, kind: &str) -> io::Result<Vec<Sha256Digest>> {
        for mirror in self.mirrors.iter().filter(|it| !it.is_avoided()) {
            match referrers::of(mirror, subject, kind) {
                Ok(found) if !found.is_empty() => return Ok(found),
                // It need not have all that the registry has.
                Ok(_) => {}
                Err(_) => mirror.avoid(),
            }
        }
        Ok(referrers::of(&self.own, subject, kind)?)
    }

    fn manifest(&self, digest: Sha256Digest) -> io::Result<Vec<u8>> {
        Ok(self.fetch("manifests", &digest.to_string(), Some(digest))?)
    }

    fn documents(&self) -> Vec<Sha256Digest> {
        self.documents.lock().clone()
    }

    fn discard(&self, digest: Sha256Digest) -> bool {
        self.store.remove(digest);
        // It is had from the registry itself now.
        for mirror in &self.mirrors {
            mirror.avoid();
        }
        true
    }
}
