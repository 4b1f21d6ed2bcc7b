//! Putting blobs and manifests into a repository.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::Body;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};

use super::RegistryError;
use super::client::{Client, text};
use crate::blob::Sha256Digest;
use crate::counters::RequestKind;

/// The manifest that a registry has understood another one to refer to.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// The slowest that an upload may be: so many bytes for each time that an answer is waited for.
const SLOWEST: usize = 1 << 20;

impl Client {
    /// Puts a blob into the repository, unless it is there. Says whether it was sent.
    ///
    /// # Errors
    /// What the registry answers, at last.
    pub(super) fn put_blob(&self, bytes: &Arc<[u8]>) -> Result<bool, RegistryError> {
        let digest = Sha256Digest::of(bytes);
        let what = format!("{}, blob {digest}", self.image());
        let there = self.url("blobs", &digest.to_string())?;
        let kind = RequestKind::Blob;
        let found = self.retry(kind, || {
            self.exchange((kind, &what), &there, &[200], &|http, url| http.head(url))
        });
        match found {
            Ok(_) => return Ok(false),
            Err(RegistryError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let begin = self.url("blobs/uploads", "")?;
        self.retry(kind, || {
            let answer = self.exchange((kind, &what), &begin, &[202], &|http, url| {
                http.post(url).header(CONTENT_LENGTH, 0)
            })?;
            let from = answer.elsewhere.as_ref().unwrap_or(&begin);
            let mut to = self.follow(&what, from, answer.response.headers(), 1)?;
            to.query_pairs_mut()
                .append_pair("digest", &digest.to_string());
            self.put((kind, &what), &to, "application/octet-stream", bytes)
        })?;
        Ok(true)
    }

    /// Puts a manifest or an index into the repository, under its digest or a tag. Says whether the registry knows what
    /// it refers to.
    ///
    /// # Errors
    /// What the registry answers, at last.
    pub(super) fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: &Arc<[u8]>,
    ) -> Result<bool, RegistryError> {
        let what = format!("{}, manifest {name}", self.image());
        let url = self.url("manifests", name)?;
        let kind = RequestKind::Manifest;
        self.retry(kind, || self.put((kind, &what), &url, media_type, bytes))
    }

    fn put(
        &self,
        what: (RequestKind, &str),
        url: &Url,
        media_type: &str,
        bytes: &Arc<[u8]>,
    ) -> Result<bool, RegistryError> {
        let times = bytes.len().checked_div(SLOWEST).unwrap_or(0);
        let times = u32::try_from(times).unwrap_or(u32::MAX).saturating_add(1);
        let limit: Duration = self.limits().idle.saturating_mul(times);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let answer = self.exchange(what, url, &[200, 201, 204], &|http, url| {
            let body = Body::sized(Cursor::new(Arc::clone(bytes)), length);
            let request = http.put(url).header(CONTENT_TYPE, media_type);
            request.timeout(limit).body(body)
        })?;
        Ok(text(answer.response.headers(), SUBJECT).is_some())
    }
}
