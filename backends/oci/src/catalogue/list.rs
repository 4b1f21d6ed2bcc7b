//! What images are there, and how much of them.

use std::collections::HashMap;
use std::io;
use std::time::SystemTime;

use super::Catalogue;
use super::files::{CachedFile, Kind, files, index_of};
use super::record::LayerRecord;
use crate::blob::Sha256Digest;
use crate::content::resident_spans_of;

/// An image that is in the cache, wholly or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// See [`Image::digest`](crate::image::Image::digest).
    pub digest: Sha256Digest,
    /// The names that lead to it; none where its tag means another image by now.
    pub names: Vec<String>,
    /// What it is for: `linux/amd64`.
    pub platform: String,
    /// When it was made, as it says itself.
    pub created: Option<String>,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of its layers as its registry has them.
    pub size: u64,
    /// How many of them need not be fetched any more, because they, or what they decode to, are in the cache.
    pub here: u64,
    /// Bytes that it takes in the cache, with what it shares with other images.
    pub disk: u64,
    /// When it was served or pulled last.
    pub last_use: SystemTime,
    /// Whether it is in use now.
    pub in_use: bool,
}

impl Catalogue {
    /// The images of the cache, by their names.
    ///
    /// # Errors
    /// What the file system answers. What is damaged is left out.
    pub fn images(&self) -> io::Result<Vec<ListedImage>> {
        let mut by_digest: HashMap<Sha256Digest, Vec<CachedFile>> = HashMap::new();
        for file in files(&self.cache)? {
            if let Some(digest) = file.digest {
                by_digest.entry(digest).or_default().push(file);
            }
        }
        let of = |digest: Sha256Digest| by_digest.get(&digest).map_or(&[][..], Vec::as_slice);
        let mut images = Vec::new();
        for record in self.records()? {
            let layers = record.distinct_layers();
            let here = layers.map(|layer| here(layer, of(layer.digest)));
            let belonging = record.distinct_layers().map(|layer| layer.digest);
            let belonging = belonging.chain(record.documents.iter().copied());
            // The image's own digest is its tree's, and its manifest's, which is a document.
            let trees = of(record.digest).iter();
            let trees = trees.filter(|file| file.kind == Kind::Tree);
            let disk = belonging.flat_map(of).chain(trees);
            images.push(ListedImage {
                digest: record.digest,
                size: record.size(),
                here: here.fold(0, u64::saturating_add),
                disk: disk
                    .filter(|file| file.kind != Kind::Name)
                    .fold(0, |sum, file| sum.saturating_add(file.disk)),
                layers: record.layers.len(),
                last_use: self.last_use(record.digest),
                in_use: self.is_in_use(record.digest)?,
                names: record.names,
                platform: record.platform,
                created: record.created,
            });
        }
        images.sort_by(|one, other| {
            let key = |image: &ListedImage| (image.names.is_empty(), image.names.clone());
            (key(one), one.digest).cmp(&(key(other), other.digest))
        });
        Ok(images)
    }
}

/// How many bytes of a layer need not be fetched any more.
fn here(layer: LayerRecord, files: &[CachedFile]) -> u64 {
    let mut most = 0;
    for file in files {
        let found = match file.kind {
            Kind::Blob | Kind::Part => std::fs::metadata(&file.path).map_or(0, |it| it.len()),
            Kind::Content => decoded(file).unwrap_or(0),
            _ => 0,
        };
        most = found.min(layer.size).max(most);
    }
    most
}

/// How many bytes of the layer were decoded to what a content file has.
fn decoded(content: &CachedFile) -> Option<u64> {
    let there = resident_spans_of(&content.path).ok()??;
    let index = index_of(&content.path)?;
    // Where chunks were fetched there is more between them, which nobody needs.
    if there.iter().all(|there| *there) {
        return Some(index.blob.size);
    }
    let spans = index.blob.spans.iter().zip(there);
    let sizes = spans
        .filter(|(_, there)| *there)
        .map(|(span, _)| span.compressed.end.saturating_sub(span.compressed.start));
    Some(sizes.fold(0, u64::saturating_add))
}
