//! An image in the catalogue, as it is stored.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use serde::{Deserialize, Serialize};

use super::Catalogue;
use crate::blob::Sha256Digest;
use crate::image::{Image, JSON_MAX};

/// The most names that an image is remembered by.
const NAMES_MAX: usize = 64;

/// An image: what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) digest: Sha256Digest,
    /// The names that lead to it, sorted.
    pub(super) names: Vec<String>,
    pub(super) platform: String,
    pub(super) created: Option<String>,
    /// Manifests, indexes and configurations in the cache, sorted.
    pub(super) documents: Vec<Sha256Digest>,
    /// From the lowest up.
    pub(super) layers: Vec<LayerRecord>,
}

/// A layer, as the manifest has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) digest: Sha256Digest,
    pub(super) size: u64,
}

impl Record {
    pub(super) fn of(image: &Image) -> Self {
        let layers = image.layers.iter().map(|layer| LayerRecord {
            digest: layer.digest,
            size: layer.size,
        });
        let mut record = Self {
            digest: image.digest,
            names: Vec::new(),
            platform: image.platform(),
            created: image.config.created.clone(),
            documents: image.documents(),
            layers: layers.collect(),
        };
        record.documents.sort_unstable();
        record.documents.dedup();
        record
    }

    /// Takes over what was known of the same image before.
    pub(super) fn merge(&mut self, before: Self) {
        self.names = before.names;
        self.documents.extend(before.documents);
        self.documents.sort_unstable();
        self.documents.dedup();
    }

    pub(super) fn learn(&mut self, name: &str) {
        if let Err(place) = self.names.binary_search_by(|it| it.as_str().cmp(name))
            && self.names.len() < NAMES_MAX
        {
            self.names.insert(place, name.to_owned());
        }
    }

    /// Whether the name led here.
    pub(super) fn forget(&mut self, name: &str) -> bool {
        let before = self.names.len();
        self.names.retain(|it| it != name);
        self.names.len() != before
    }

    /// Bytes of all layers, each once.
    pub(super) fn size(&self) -> u64 {
        let layers = self.distinct_layers();
        layers.fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    pub(super) fn distinct_layers(&self) -> impl Iterator<Item = LayerRecord> {
        let mut layers = self.layers.clone();
        layers.sort_unstable_by_key(|layer| layer.digest);
        layers.dedup_by_key(|layer| layer.digest);
        layers.into_iter()
    }
}

impl Catalogue {
    /// The record of an image, if there is one that can be read.
    pub(super) fn record(&self, image: Sha256Digest) -> Option<Record> {
        let mut bytes = Vec::new();
        let file = File::open(self.record_path(image)).ok()?;
        file.take(JSON_MAX).read_to_end(&mut bytes).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.digest == image).then_some(record)
    }

    /// All that can be read.
    pub(super) fn records(&self) -> io::Result<Vec<Record>> {
        let entries = match std::fs::read_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let image = digits.and_then(Sha256Digest::from_hex);
            records.extend(image.and_then(|image| self.record(image)));
        }
        Ok(records)
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
        file.persist(self.record_path(record.digest))?;
        Ok(())
    }
}
