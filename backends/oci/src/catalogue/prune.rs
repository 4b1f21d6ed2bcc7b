//! Removing what nobody uses.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{CachedFile, Kind, files};
use super::record::Record;
use super::{Catalogue, is_locked};
use crate::blob::Sha256Digest;

/// What belongs to no image may belong to one that somebody is about to enter, if it is younger than this.
const YOUNG: Duration = Duration::from_secs(600);

/// Which images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneOptions {
    /// Those that were not used for so long; zero for all that are not in use. Images without a name always go.
    pub unused_for: Duration,
    /// Nothing is removed; it is only said what would be.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images, by their names, or by their digests where they have none.
    pub images: Vec<String>,
    /// Bytes that the disk has again.
    pub bytes: u64,
}

impl Catalogue {
    /// Removes images that are not in use and were not used lately, and all that belongs to no image.
    ///
    /// # Errors
    /// What the file system answers; what was removed before stays removed.
    pub fn prune(&self, options: &PruneOptions) -> io::Result<Pruned> {
        let _changing = self.lock()?;
        let now = SystemTime::now();
        let mut pruned = Pruned::default();
        let (mut kept, mut gone) = (Belonging::default(), Belonging::default());
        let mut removed = Vec::new();
        for record in self.records()? {
            let last = self.last_use(record.digest);
            let unused = now.duration_since(last).unwrap_or_default() >= options.unused_for;
            let goes = record.names.is_empty() || unused;
            if !goes || self.is_in_use(record.digest)? {
                kept.add(&record);
            } else {
                gone.add(&record);
                removed.push(record);
            }
        }
        for file in files(&self.cache)? {
            if kept.has(&file)
                || (!gone.has(&file) && is_young(&file, now))
                || is_being_fetched(&file)?
            {
                continue;
            }
            if !options.dry_run {
                remove(&file.path)?;
            }
            pruned.bytes = pruned.bytes.saturating_add(file.disk);
        }
        for record in removed {
            // After its files: what an image that is still known lacks is fetched again.
            if !options.dry_run {
                remove(&self.record_path(record.digest))?;
                remove(&self.lock_path(record.digest))?;
                remove(&self.fill_path(record.digest))?;
            }
            pruned.images.push(match record.names.is_empty() {
                true => record.digest.to_string(),
                false => record.names.join(", "),
            });
        }
        pruned.images.sort();
        Ok(pruned)
    }
}

/// What belongs to some images.
#[derive(Debug, Default)]
struct Belonging {
    images: HashSet<Sha256Digest>,
    documents: HashSet<Sha256Digest>,
    layers: HashSet<Sha256Digest>,
}

impl Belonging {
    fn add(&mut self, record: &Record) {
        self.images.insert(record.digest);
        self.documents.extend(&record.documents);
        let layers = record.layers.iter().map(|layer| layer.digest);
        self.layers.extend(layers);
    }

    fn has(&self, file: &CachedFile) -> bool {
        let Some(digest) = file.digest else {
            return false;
        };
        match file.kind {
            Kind::Blob | Kind::Part => {
                self.layers.contains(&digest) || self.documents.contains(&digest)
            }
            Kind::Content | Kind::Index => self.layers.contains(&digest),
            Kind::Tree | Kind::Trace => self.images.contains(&digest),
            Kind::Name => named(&file.path).is_some_and(|it| self.documents.contains(&it)),
            Kind::Temporary => false,
        }
    }
}

/// What a name in a registry meant.
fn named(path: &Path) -> Option<Sha256Digest> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(100).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// Of a clock that was set back nothing is known.
pub(super) fn is_young(file: &CachedFile, now: SystemTime) -> bool {
    now.duration_since(file.modified)
        .map_or(true, |age| age < YOUNG)
}

/// Whether somebody is fetching it.
pub(super) fn is_being_fetched(file: &CachedFile) -> io::Result<bool> {
    match file.kind {
        Kind::Part => is_locked(&file.path),
        _ => Ok(false),
    }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
