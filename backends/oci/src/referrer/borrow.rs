//! Using indexes that another host has made.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use parking_lot::Mutex;

use super::artifact::{Lent, named, unpack};
use super::{ARTIFACT, INDEX_MAX, INDEX_OF_ANY};
use crate::blob::{Sha256Digest, SpanError, SpanFault};
use crate::image::{Image, Layer};
use crate::index::{IndexOptions, LayerIndex};
use crate::{OpenError, Options};

/// How many artifacts of an image are looked at, the newest first.
const ARTIFACTS_MAX: usize = 4;

/// Where the index of a layer is from that has none on this host.
///
/// An index says which files a layer has and what they contain, and only who reads the whole layer can tell whether that
/// is so. An index that is borrowed is therefore believed, until the layer has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IndexFrom {
    /// It is made here, of the whole layer. Where the layer is not here and no registry is to be asked, it is one that was
    /// borrowed before.
    #[default]
    Off,
    /// The registry's list of what refers to the image. Whoever may push to the repository is believed.
    Referrers,
    /// The artifact with this digest. Whoever made that is believed, and nobody else.
    Artifact(Sha256Digest),
}

impl FromStr for IndexFrom {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "off" => Ok(Self::Off),
            "referrers" => Ok(Self::Referrers),
            digest => digest.parse().map(Self::Artifact).map_err(
                |_| "use off, referrers, or the digest that vfsd image push-index has printed",
            ),
        }
    }
}

/// Looks for the indexes of an image's layers.
pub(crate) struct Borrower<'a> {
    image: &'a Image,
    from: IndexFrom,
    /// Of the cache: where indexes are.
    folder: &'a Path,
    options: &'a IndexOptions,
    /// What was found, once it was looked for. Held while an index is fetched: one at a time takes memory.
    found: Mutex<Option<Vec<Lent>>>,
}

impl<'a> Borrower<'a> {
    /// One that has asked nobody yet; none where nobody is to be asked, and layers can be had.
    pub(crate) fn new(image: &'a Image, folder: &'a Path, options: &'a Options) -> Option<Self> {
        let wanted = options.index_from != IndexFrom::Off || options.registries.offline;
        wanted.then(|| Self {
            image,
            from: options.index_from,
            folder,
            options: &options.index,
            found: Mutex::new(None),
        })
    }

    /// Whether it is for layers alone of which no index can be made.
    pub(crate) fn is_last_resort(&self) -> bool {
        self.from == IndexFrom::Off
    }

    /// The index of a layer, as it was borrowed before or is now; none where there is none that could be right.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(crate) fn index(&self, layer: &Layer) -> Result<Option<LayerIndex>, OpenError> {
        if let Some(index) = self.kept(layer) {
            return Ok(Some(index));
        }
        let mut found = self.found.lock();
        let artifacts = found.get_or_insert_with(|| self.artifacts());
        for artifact in artifacts.iter() {
            let Some(place) = artifact.layers.get(&layer.digest) else {
                continue;
            };
            match self.fetch(layer, artifact.digest, *place) {
                Ok(index) => {
                    let path = path(self.folder, layer.digest, artifact.digest);
                    let stored = index.store(&path);
                    stored.map_err(|source| OpenError::Cache { path, source })?;
                    return Ok(Some(index));
                }
                Err(error) => {
                    let (layer, artifact) = (layer.digest, artifact.digest);
                    tracing::warn!("the index of layer {layer} in {artifact} is not used: {error}");
                }
            }
        }
        Ok(None)
    }

    /// One that was borrowed before.
    fn kept(&self, layer: &Layer) -> Option<LayerIndex> {
        let load = |path: &Path, artifact| {
            let index = LayerIndex::load(path).ok()?;
            let is_it = index.borrowed == Some(artifact);
            (is_it && self.why_not(layer, &index).is_none()).then_some(index)
        };
        match self.from {
            IndexFrom::Artifact(artifact) => {
                load(&path(self.folder, layer.digest, artifact), artifact)
            }
            IndexFrom::Off | IndexFrom::Referrers => {
                let start = format!("{}-", layer.digest.hex());
                std::fs::read_dir(self.folder).ok()?.find_map(|entry| {
                    let entry = entry.ok()?;
                    let name = entry.file_name();
                    let digits = name.to_str()?.strip_prefix(&start)?;
                    let digits = digits.strip_suffix(".index")?;
                    load(&entry.path(), Sha256Digest::from_hex(digits)?)
                })
            }
        }
    }

    /// The artifacts that may have an index, the newest first.
    fn artifacts(&self) -> Vec<Lent> {
        let image = self.image.digest;
        let digests = match self.from {
            IndexFrom::Off => Ok(Vec::new()),
            IndexFrom::Artifact(digest) => Ok(vec![digest]),
            IndexFrom::Referrers => self.image.referrers(ARTIFACT),
        };
        let digests = digests.unwrap_or_else(|error| {
            tracing::warn!("no index for {image} was looked for: {error}");
            Vec::new()
        });
        let newest = digests.into_iter().rev().take(ARTIFACTS_MAX);
        let found: Vec<Lent> = newest
            .filter_map(|digest| {
                let read = self
                    .image
                    .manifest(digest)
                    .and_then(|it| named(digest, &it));
                let failed = |error: &io::Error| {
                    tracing::warn!("the indexes in {digest} are not used: {error}");
                };
                read.inspect_err(failed).ok()
            })
            .collect();
        if found.is_empty() && self.from == IndexFrom::Referrers {
            tracing::warn!("nobody has pushed indexes beside {image}");
        }
        found
    }

    /// The index that a blob of an artifact is.
    fn fetch(
        &self,
        layer: &Layer,
        artifact: Sha256Digest,
        (digest, size): (Sha256Digest, u64),
    ) -> io::Result<LayerIndex> {
        let most = layer.size.clamp(INDEX_OF_ANY, INDEX_MAX);
        if size > most {
            return Err(io::Error::other("it is too large"));
        }
        let source = self.image.open_blob(digest, size)?;
        let mut packed = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let is_right = |bytes: &[u8]| match Sha256Digest::of(bytes) == digest {
            true => Ok(()),
            false => Err(SpanError {
                layer: layer.digest,
                span: 0,
                reason: SpanFault::Mismatch("index's"),
            }),
        };
        source.read_right(0, &mut packed, &is_right)?;
        is_right(&packed).map_err(io::Error::other)?;
        let index = LayerIndex::from_bytes(&unpack(&packed, most)?).map_err(io::Error::other)?;
        if index.borrowed.is_some() {
            return Err(io::Error::other("its maker has borrowed it, too"));
        }
        match self.why_not(layer, &index) {
            Some(reason) => Err(io::Error::other(reason)),
            None => Ok(LayerIndex {
                borrowed: Some(artifact),
                ..index
            }),
        }
    }

    /// Why an index can't be one of the layer, as far as that shows without reading the layer.
    fn why_not(&self, layer: &Layer, index: &LayerIndex) -> Option<&'static str> {
        let (blob, limits) = (&index.blob, self.options);
        let spans = u64::try_from(blob.spans.len()).unwrap_or(u64::MAX);
        if (blob.digest, blob.size, blob.diff_id) != (layer.digest, layer.size, layer.diff_id) {
            Some("it is another layer's")
        } else if blob.contents.is_some() {
            Some("it is from a table of contents")
        } else if blob.decoded_size > limits.blob.max_decoded
            || spans > limits.blob.max_spans
            || index.entries.len() > limits.tar.entries
        {
            Some("it is of a larger layer than there may be")
        } else {
            None
        }
    }
}

/// What a borrowed index is called in the folder of indexes.
pub(crate) fn path(folder: &Path, layer: Sha256Digest, artifact: Sha256Digest) -> PathBuf {
    folder.join(format!("{}-{}.index", layer.hex(), artifact.hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_indexes_are_from_is_said_in_a_word_or_by_a_digest() {
        assert_eq!("off".parse(), Ok(IndexFrom::Off));
        assert_eq!("referrers".parse(), Ok(IndexFrom::Referrers));
        let digest = Sha256Digest::of(b"");
        let word = digest.to_string();
        assert_eq!(word.parse(), Ok(IndexFrom::Artifact(digest)));
        for word in ["", "on", "Referrers", "sha256:", "sha256:0", &word[7..]] {
            assert!(word.parse::<IndexFrom>().is_err(), "{word}");
        }
    }
}
