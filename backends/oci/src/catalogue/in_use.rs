//! Taking content away from images that are in use.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Catalogue;
use super::evict::Evicted;
use super::files::{CachedFile, Kind, index_of};
use super::prune::remove;
use crate::content::Places;

/// The most layouts of content files that are remembered.
const PLACES_MAX: usize = 1024;

impl Catalogue {
    /// Takes away of `files`, which have bytes of layers in use, what was read the longest time ago. Layers as they were
    /// fetched go first where they take more than half of the limit: else nothing would be left for what is read. What
    /// a daemon without a limit has open stays.
    pub(super) fn evict_in_use(
        &self,
        files: Vec<CachedFile>,
        limit: u64,
        evicted: &mut Evicted,
    ) -> io::Result<()> {
        let (mut blobs, contents): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.kind == Kind::Blob);
        let mut kept = HashSet::new();
        let mut places = Vec::new();
        for file in contents {
            if let Some(of_file) = self.places_of(&file.path) {
                match of_file.is_kept()? {
                    true => drop(kept.insert(file.digest)),
                    false => places.push(of_file),
                }
            }
        }
        blobs.retain(|file| !kept.contains(&file.digest));
        blobs.sort_by_key(|file| (file.modified, file.digest));
        let mut of_blobs = blobs
            .iter()
            .fold(0_u64, |sum, file| sum.saturating_add(file.disk));
        for blob in blobs {
            if evicted.left <= limit || of_blobs <= limit / 2 {
                break;
            }
            // Whoever has it open goes on with it, and asks the registry for the rest.
            remove(&blob.path)?;
            of_blobs = of_blobs.saturating_sub(blob.disk);
            evicted.count(blob.disk);
        }
        for places in &places {
            if evicted.left > limit {
                let left_over = places.left_over()?;
                evicted.count(places.take(left_over)?);
            }
        }
        let mut resident = Vec::new();
        for (number, places) in places.iter().enumerate() {
            let spans = places.resident()?;
            resident.extend(spans.into_iter().map(|span| (span, number)));
        }
        resident.sort_unstable();
        let mut resident = resident.into_iter().peekable();
        while evicted.left > limit && resident.peek().is_some() {
            let mut wanted = evicted.left.saturating_sub(limit);
            let mut going: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            while wanted > 0
                && let Some((span, number)) = resident.next()
            {
                wanted = wanted.saturating_sub(span.size);
                going.entry(number).or_default().push(span.span);
            }
            for (number, spans) in going {
                if let Some(places) = places.get(number) {
                    evicted.count(places.take(spans)?);
                }
            }
        }
        Ok(())
    }

    /// Where the spans of a content file stand; none where that is not known.
    pub(super) fn places_of(&self, content: &Path) -> Option<Arc<Places>> {
        if let Some(places) = self.places.lock().get(content) {
            return Some(Arc::clone(places));
        }
        let index = index_of(content)?;
        let places = Arc::new(Places::of(content.parent()?, &index).ok()?);
        if !places.is_of(content) {
            return None;
        }
        let mut known = self.places.lock();
        if known.len() >= PLACES_MAX {
            known.clear();
        }
        known.insert(content.to_owned(), Arc::clone(&places));
        Some(places)
    }
}
