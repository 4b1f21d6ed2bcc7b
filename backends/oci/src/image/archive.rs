//! An archive of `docker save`: a tar with `manifest.json`, configurations and layers, which are read where they are.
//!
//! Old ones name a layer's tar by an id of no meaning; newer ones are an OCI layout besides, with blobs by their
//! digests. An archive that is a layout alone is read as that.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::blob::{BlobSource, Compression, Sha256Digest};

use super::blobs::{Blobs, FileRange};
use super::manifest::{Layer, diff_ids};
use super::members::Members;
use super::{Config, Image, ImageError, Platform, select};

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Opens an image of an archive.
///
/// # Errors
/// What is no such archive, a name that is not there, a choice that is open.
pub(super) fn open(
    path: &Path,
    tag: Option<&str>,
    platform: Option<&Platform>,
) -> Result<Image, ImageError> {
    let wrong = |reason: String| ImageError::NotAnArchive {
        path: path.to_owned(),
        reason,
    };
    let failed = |error| ImageError::file(path, error);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(wrong("it is no regular file".to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let whole = FileRange {
        length: file.metadata().map_err(failed)?.len(),
        file: Arc::new(file.try_clone().map_err(failed)?),
        offset: 0,
    };
    if compression(&whole) != Compression::Plain {
        return Err(wrong(
            "it is compressed; decompress it first (gzip -d, zstd -d)".to_owned(),
        ));
    }
    let members = Members::scan(file).map_err(wrong)?;
    let saved = match members.open(b"manifest.json") {
        Ok(manifest) => manifest.read("manifest.json")?,
        Err(_) => {
            return of_layout(members, tag, platform).unwrap_or_else(|| {
                Err(wrong(
                    "it has neither manifest.json nor index.json".to_owned(),
                ))
            });
        }
    };
    let saved: Vec<Saved> = serde_json::from_slice(&saved).map_err(|source| ImageError::Json {
        what: "manifest.json",
        source,
    })?;
    of_saved(&members, choose(saved, tag)?, platform)
}

/// An image of an archive that is an OCI layout, if it is one.
fn of_layout(
    members: Members,
    tag: Option<&str>,
    platform: Option<&Platform>,
) -> Option<Result<Image, ImageError>> {
    let index = members.open(b"index.json").ok()?.read("index.json");
    let blobs = Arc::new(members);
    Some(index.and_then(|index| select::from_layout(&index, tag, platform, blobs)))
}

/// The image that has this name, or that is all there is.
fn choose(mut all: Vec<Saved>, tag: Option<&str>) -> Result<Saved, ImageError> {
    let names = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
    let there: Vec<String> = all.iter().flat_map(names).collect();
    let found = match tag {
        None if all.len() == 1 => Some(0),
        None => None,
        Some(tag) => all.iter().position(|saved| {
            let names = names(saved);
            names.iter().any(|name| normal(name) == normal(tag))
        }),
    };
    let problem = match tag {
        Some(tag) => format!("the archive has no image \"{}\"", tag.escape_debug()),
        None if all.is_empty() => "the archive has no image".to_owned(),
        None => "the archive has several images, add :NAME:TAG".to_owned(),
    };
    match found {
        Some(place) => Ok(all.swap_remove(place)),
        None => Err(ImageError::Choose { problem, there }),
    }
}

/// A name with all that may be left out: `docker.io/library/alpine:latest`.
fn normal(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let has_host = first.contains(['.', ':']) || first == "localhost";
    let (host, path) = match has_host {
        true => (first, rest),
        false => ("docker.io", name),
    };
    let library = match host == "docker.io" && !path.contains('/') {
        true => "library/",
        false => "",
    };
    let latest = match path.contains(':') {
        true => "",
        false => ":latest",
    };
    format!("{host}/{library}{path}{latest}")
}

fn of_saved(
    members: &Members,
    saved: Saved,
    platform: Option<&Platform>,
) -> Result<Image, ImageError> {
    let opened = |what: &'static str, path: &str| -> Result<FileRange, ImageError> {
        members
            .open(path.as_bytes())
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ImageError::Unsupported(format!(
                    "the archive's {what} {} is missing: save the image again",
                    path.escape_debug()
                )),
                _ => ImageError::Unsupported(format!(
                    "the archive ends before its {what} does: save the image again"
                )),
            })
    };
    let bytes = opened("configuration", &saved.config)?.read("configuration")?;
    let digest = Sha256Digest::of(&bytes);
    let expected = named_digest(&saved.config);
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        let what = "configuration";
        return Err(ImageError::Mismatch {
            what,
            digest: expected,
        });
    }
    let config = Config::parse(&bytes)?;
    select::check_platform(&config, platform)?;
    let diff_ids = diff_ids(&config)?;
    let paths = saved.layers.unwrap_or_default();
    if paths.len() != diff_ids.len() {
        return Err(ImageError::Unsupported(format!(
            "manifest.json has {} layers, the image's configuration {}",
            paths.len(),
            diff_ids.len()
        )));
    }
    let mut layers = Vec::new();
    let mut blobs = HashMap::new();
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        let source = opened("layer", path)?;
        let digest = match blob_digest(path) {
            Some(digest) => digest,
            None if compression(&source) == Compression::Plain => diff_id,
            None => hash(&source)?,
        };
        layers.push(Layer {
            digest,
            size: source.length,
            diff_id,
            media_type: String::new(),
            toc: None,
        });
        blobs.insert(digest, source);
    }
    Ok(Image {
        digest,
        config,
        layers,
        notice: None,
        blobs: Arc::new(blobs),
    })
}

/// The digest in a name like `HEX.json` or `blobs/sha256/HEX`.
fn named_digest(path: &str) -> Option<Sha256Digest> {
    let name = path.rsplit('/').next()?;
    let hex = name.strip_suffix(".json").unwrap_or(name);
    format!("sha256:{hex}").parse().ok()
}

/// The digest that a layer is named by, where archives do that.
fn blob_digest(path: &str) -> Option<Sha256Digest> {
    named_digest(path).filter(|_| path.contains("blobs/sha256/"))
}

fn compression(source: &FileRange) -> Compression {
    let mut head = [0; Compression::MAGIC];
    match source.read_at(0, &mut head) {
        Ok(()) => Compression::detect(&head),
        Err(_) => Compression::Plain,
    }
}

/// The digest of a layer that is compressed and has no name that says it.
fn hash(source: &FileRange) -> Result<Sha256Digest, ImageError> {
    let mut sha256 = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut offset: u64 = 0;
    loop {
        let left = usize::try_from(source.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(piece.len());
        let Some(target) = piece.get_mut(..length).filter(|target| !target.is_empty()) else {
            return Ok(sha256.into());
        };
        source.read_at(offset, target)?;
        sha256.update(&*target);
        offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

impl Blobs for HashMap<Sha256Digest, FileRange> {
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>> {
        let source = self.get(&digest).ok_or(io::ErrorKind::NotFound)?;
        sized(source.clone(), size)
    }
}

impl Blobs for Members {
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>> {
        let path = format!("blobs/sha256/{}", digest.hex());
        sized(Self::open(self, path.as_bytes())?, size)
    }
}

fn sized(source: FileRange, size: u64) -> io::Result<Arc<dyn BlobSource>> {
    match source.length == size {
        true => Ok(Arc::new(source)),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
