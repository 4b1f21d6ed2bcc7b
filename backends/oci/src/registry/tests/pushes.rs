//! The part of a registry that takes blobs and manifests.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::blob::Sha256Digest;

use super::server::Seen;

/// What was pushed. Blobs and manifests are in the registry's folder.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    tags: Mutex<HashMap<String, Sha256Digest>>,
    /// Whether it knows what refers to what, as those of OCI 1.1 do.
    lists: AtomicBool,
    /// The manifests that refer to others, each with its descriptor.
    referring: Mutex<Vec<(String, Value)>>,
}

/// How many manifests a page of a list has.
const PAGE: usize = 2;

/// Status, headers, body.
type Answer = (&'static str, String, Vec<u8>);

impl Pushes {
    /// Knows what refers to what from now on.
    pub(crate) fn begin_to_list(&self) {
        self.lists.store(true, Ordering::SeqCst);
    }

    /// Has a manifest in the list of what refers to another one.
    pub(crate) fn refer(&self, subject: &str, listed: Value) {
        self.referring.lock().push((subject.to_owned(), listed));
    }

    /// What a tag that was pushed leads to.
    pub(crate) fn tag(&self, name: &str) -> Option<Sha256Digest> {
        self.tags.lock().get(name).copied()
    }

    /// Answers what only those who push ask, and who looks for what refers to a manifest.
    pub(super) fn answer(&self, seen: &Seen, body: &[u8], folder: &Path) -> Option<Answer> {
        let rest = seen.target.strip_prefix("/v2/a/b/")?;
        let plain = |status| (status, String::new(), Vec::new());
        let is_there = |hex: &str| folder.join(hex).is_file();
        Some(match (seen.method.as_str(), rest) {
            ("HEAD", rest) => match is_there(rest.strip_prefix("blobs/sha256:")?) {
                true => plain("200 OK"),
                false => plain("404 Not Found"),
            },
            ("POST", "blobs/uploads/") => {
                let to = "Location: /v2/a/b/blobs/uploads/1?_state=x\r\n";
                ("202 Accepted", to.to_owned(), Vec::new())
            }
            ("PUT", rest) if rest.starts_with("blobs/uploads/1?_state=x&digest=sha256%3A") => {
                let digest = Sha256Digest::of(body);
                match rest.ends_with(&digest.hex()) {
                    true => {
                        std::fs::write(folder.join(digest.hex()), body).unwrap();
                        plain("201 Created")
                    }
                    false => plain("400 Bad Request"),
                }
            }
            ("PUT", rest) => self.manifest(rest.strip_prefix("manifests/")?, body, folder),
            ("GET", rest) if self.lists.load(Ordering::SeqCst) => {
                let (subject, query) = rest.strip_prefix("referrers/")?.split_once('?')?;
                assert!(
                    query.starts_with("artifactType=application/vnd."),
                    "{query}"
                );
                let referring = self.referring.lock();
                let manifests = referring.iter().filter(|(of, _)| of == subject);
                let all: Vec<&Value> = manifests.map(|(_, listed)| listed).collect();
                let (query, first) = query.split_once("&from=").unwrap_or((query, "0"));
                let first: usize = first.parse().unwrap();
                let end = all.len().min(first + PAGE);
                let link = match end < all.len() {
                    true => format!(
                        "Link: </v2/a/b/referrers/{subject}?{query}&from={end}>; rel=\"next\"\r\n"
                    ),
                    false => String::new(),
                };
                let list = json!({"schemaVersion": 2, "manifests": all[first..end]});
                ("200 OK", link, list.to_string().into_bytes())
            }
            _ => return None,
        })
    }

    fn manifest(&self, name: &str, body: &[u8], folder: &Path) -> Answer {
        let digest = Sha256Digest::of(body);
        let manifest: Value = serde_json::from_slice(body).unwrap();
        let blobs = manifest["layers"].as_array().into_iter().flatten();
        for blob in blobs.chain(manifest.get("config")) {
            let blob: Sha256Digest = blob["digest"].as_str().unwrap().parse().unwrap();
            if !folder.join(blob.hex()).is_file() {
                return ("400 Bad Request", String::new(), Vec::new());
            }
        }
        std::fs::write(folder.join(digest.hex()), body).unwrap();
        if name.parse() != Ok(digest) {
            self.tags.lock().insert(name.to_owned(), digest);
        }
        let mut headers = String::new();
        if let Some(subject) = manifest["subject"]["digest"].as_str()
            && self.lists.load(Ordering::SeqCst)
        {
            headers = format!("OCI-Subject: {subject}\r\n");
            let listed = json!({
                "digest": digest.to_string(), "size": body.len(), "artifactType": manifest["artifactType"],
            });
            self.refer(subject, listed);
        }
        ("201 Created", headers, Vec::new())
    }
}
