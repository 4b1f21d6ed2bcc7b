//! Taking content away from images that are in use.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Catalogue;
use super::evict::Evicted;
use super::files::{CachedFile, Kind, index_of};
use super::prune::remove;
use crate::content::Places;

/// The most layouts of content files that are remembered.
const FILES_MAX: usize = 1024;
/// The most spans that they may have together: 4 MiB.
const SPANS_MAX: usize = 1 << 18;

/// Where the spans of content files stand, of those that were looked at.
#[derive(Debug, Default)]
pub(super) struct Known {
    places: HashMap<PathBuf, Arc<Places>>,
    spans: usize,
}

impl Known {
    fn get(&self, content: &Path) -> Option<Arc<Places>> {
        self.places.get(content).cloned()
    }

    /// Remembers one, and forgets the others where that would be too much.
    fn insert(&mut self, content: &Path, places: &Arc<Places>) {
        let spans = self.spans.saturating_add(places.spans());
        if self.places.len() >= FILES_MAX || spans > SPANS_MAX {
            *self = Self::default();
        }
        // One that is too large by itself is looked at again each time.
        if places.spans() <= SPANS_MAX {
            self.spans = self.spans.saturating_add(places.spans());
            let before = self.places.insert(content.to_owned(), Arc::clone(places));
            self.spans = self.spans.saturating_sub(before.map_or(0, |it| it.spans()));
        }
    }
}

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
        let known = self.places.lock().get(content);
        if known.is_some() {
            return known;
        }
        let index = index_of(content)?;
        let places = Arc::new(Places::of(content.parent()?, &index).ok()?);
        if !places.is_of(content) {
            return None;
        }
        self.places.lock().insert(content, &places);
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_by_its_size() {
        let mut known = Known::default();
        let of = |spans| Arc::new(Places::with_spans(spans));
        let name = |number: usize| PathBuf::from(number.to_string());
        for number in 0..100 {
            known.insert(&name(number), &of(SPANS_MAX / 10));
            assert!(known.get(&name(number)).is_some() && known.spans <= SPANS_MAX);
            let kept = known.places.values().map(|places| places.spans());
            assert_eq!(kept.sum::<usize>(), known.spans);
        }
        known.insert(&name(99), &of(1));
        known.insert(&name(100), &of(SPANS_MAX + 1));
        assert!(known.get(&name(100)).is_none() && known.spans <= SPANS_MAX);
        for number in 0..=FILES_MAX {
            known.insert(&name(number), &of(1));
        }
        assert!(known.places.len() <= FILES_MAX);
    }
}
