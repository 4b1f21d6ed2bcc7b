//! What refers to a manifest: the registry's list of it, or a tag where it keeps none.
//!
//! A registry of OCI 1.1 lists under `referrers/DIGEST` the manifests whose `subject` has that digest. In one that
//! does not, clients keep the list themselves, as an index with the tag `sha256-HEX`.

use std::sync::Arc;

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::client::{Client, Get};
use super::link;
use super::{RegistryError, Settings};
use crate::blob::Sha256Digest;
use crate::counters::RequestKind;
use crate::image::JSON_MAX;
use crate::registry::Reference;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How often a tag is written again because somebody else wrote it meanwhile.
const WRITES: usize = 3;

/// How many pages of a list are asked for at most.
const PAGES_MAX: usize = 16;

/// What a manifest that refers to another one is made of.
#[derive(Debug)]
pub(crate) struct Artifact {
    /// The manifest.
    pub(crate) manifest: Vec<u8>,
    /// Its type.
    pub(crate) artifact_type: &'static str,
    /// What it refers to.
    pub(crate) subject: Sha256Digest,
    /// The blobs that it names.
    pub(crate) blobs: Vec<Arc<[u8]>>,
}

/// A list of manifests, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    manifests: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    digest: String,
    #[serde(default)]
    artifact_type: Option<String>,
}

/// Puts a manifest beside the one that it refers to, in the repository of `image`. Says how many bytes of blobs were
/// not there.
///
/// # Errors
/// What the registry answers; a tag that should be a list and is none.
pub(crate) fn push(
    image: &Reference,
    settings: &Settings,
    artifact: &Artifact,
) -> Result<u64, RegistryError> {
    let client = Client::pushing(image.clone(), settings)?;
    let mut sent: u64 = 0;
    for blob in &artifact.blobs {
        if client.put_blob(blob)? {
            sent = sent.saturating_add(u64::try_from(blob.len()).unwrap_or(u64::MAX));
        }
    }
    let bytes: Arc<[u8]> = artifact.manifest.clone().into();
    let digest = Sha256Digest::of(&bytes);
    if !client.put_manifest(&digest.to_string(), MANIFEST, &bytes)? {
        list(&client, artifact, digest)?;
    }
    Ok(sent)
}

/// Has a manifest in the list that a tag leads to.
fn list(client: &Client, artifact: &Artifact, digest: Sha256Digest) -> Result<(), RegistryError> {
    let tag = tag(artifact.subject);
    let digest = digest.to_string();
    let is_it = |listed: &Value| listed.get("digest").and_then(Value::as_str) == Some(&digest);
    let what = format!("{}, tag {tag}", client.image());
    for _ in 0..WRITES {
        let mut index = match page(client, &what, &client.url("manifests", &tag)?)? {
            Some(Page { bytes, .. }) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            None => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
        };
        let listed = index.get_mut("manifests").and_then(Value::as_array_mut);
        let Some(listed) = listed else {
            return Err(RegistryError::Status {
                what,
                status: 200,
                detail: " with no list of manifests: remove that tag".to_owned(),
            });
        };
        if listed.iter().any(is_it) {
            return Ok(());
        }
        // What others have listed stays as it is.
        listed.push(json!({
            "mediaType": MANIFEST,
            "digest": digest,
            "size": artifact.manifest.len(),
            "artifactType": artifact.artifact_type,
        }));
        let bytes: Arc<[u8]> = index.to_string().into_bytes().into();
        client.put_manifest(&tag, INDEX, &bytes)?;
    }
    // Who else writes it now?
    Err(RegistryError::Busy {
        what,
        status: 409,
        after: None,
    })
}

/// The manifests of a type that refer to `subject`, in the order of the list.
///
/// # Errors
/// What the registry answers, but not that it has no list.
pub(super) fn of(
    client: &Client,
    subject: Sha256Digest,
    artifact_type: &str,
) -> Result<Vec<Sha256Digest>, RegistryError> {
    // The type has no characters that a query would need otherwise.
    let query = format!("{subject}?artifactType={artifact_type}");
    let what = format!("{}, what refers to {subject}", client.image());
    let mut page = match page(client, &what, &client.url("referrers", &query)?) {
        // Those that know no such list have various words for it.
        Ok(None) | Err(RegistryError::Status { .. }) => {
            page(client, &what, &client.url("manifests", &tag(subject))?)?
        }
        other => other?,
    };
    let mut found = Vec::new();
    let mut pages: usize = 0;
    while let Some(Page { bytes, next }) = page {
        pages = pages.saturating_add(1);
        let list: List = serde_json::from_slice(&bytes).map_err(|_| RegistryError::Answer {
            what: what.clone(),
            reason: "with no list of manifests".to_owned(),
        })?;
        let ours = list.manifests.iter().filter(|listed| {
            let found = listed.artifact_type.as_deref();
            found == Some(artifact_type)
        });
        found.extend(ours.filter_map(|listed| listed.digest.parse::<Sha256Digest>().ok()));
        page = match next.filter(|_| pages < PAGES_MAX) {
            Some(next) => self::page(client, &what, &next)?,
            None => None,
        };
    }
    Ok(found)
}

/// The tag of the list, where the registry keeps none.
fn tag(subject: Sha256Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// An answer with a list.
struct Page {
    bytes: Vec<u8>,
    /// Where the list goes on.
    next: Option<Url>,
}

/// A page of the repository; none where it is not there.
fn page(client: &Client, what: &str, url: &Url) -> Result<Option<Page>, RegistryError> {
    let kind = RequestKind::Referrers;
    let fetched = client.retry(kind, || {
        let answer = client.get(&Get {
            what,
            kind,
            url,
            accept: Some(INDEX),
            range: None,
        })?;
        let from = answer.elsewhere.as_ref().unwrap_or(url);
        let meter = client.counters().meter(kind);
        let next = link::next(answer.response.headers(), from);
        let bytes = body::document(answer.response, what, JSON_MAX, client.limits(), &meter)?;
        Ok(Page { bytes, next })
    });
    match fetched {
        Ok(page) => Ok(Some(page)),
        Err(RegistryError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
