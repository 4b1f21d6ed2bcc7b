//! Keeping a cache within a size.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::SystemTime;

use super::Catalogue;
use super::files::{CachedFile, Kind, files};
use super::prune::{is_being_fetched, is_young, remove};
use crate::ahead::Trace;
use crate::blob::Sha256Digest;
use crate::content::{resident_spans_of, trim_content};

/// What was removed to keep a cache within its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Bytes that the disk has again.
    pub bytes: u64,
    /// Bytes that the cache takes now. More than the limit where the rest is being read, or is what is known of images in
    /// use, or is held by a daemon without a limit.
    pub left: u64,
}

impl Evicted {
    /// The disk has so many bytes again.
    pub(super) fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.left = self.left.saturating_sub(bytes);
    }
}

/// In which order files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It belongs to no image.
    Nobodys,
    /// A layer as it was fetched, all of which is there decoded, too.
    Twice,
    /// Content that is fetched or decoded again when it is needed.
    Content,
    /// What is known of a layer or an image: small, and a whole layer has to be read to make it again.
    Index,
}

impl Catalogue {
    /// Removes what was used the longest time ago, until the cache takes at most `limit` bytes: contents first, what
    /// is known of layers last. Where that is not enough, content of images in use goes, too, span by span: see
    /// [`Options::cache_limit`](crate::Options::cache_limit).
    ///
    /// It may be cut off at any time, and several daemons may do it at once.
    ///
    /// # Errors
    /// What the file system answers; what was removed before stays removed.
    pub fn evict(&self, limit: u64) -> io::Result<Evicted> {
        let left = disk(&files(&self.cache)?);
        if left <= limit {
            return Ok(Evicted { bytes: 0, left });
        }
        let _changing = self.lock()?;
        let all = files(&self.cache)?;
        let mut evicted = Evicted {
            bytes: 0,
            left: disk(&all),
        };
        let users = Users::of(self)?;
        let complete: HashSet<Sha256Digest> = all
            .iter()
            .filter(|file| file.kind == Kind::Content && is_complete(file))
            .filter_map(|file| file.digest)
            .collect();
        let (mut going, mut staying) = (Vec::new(), Vec::new());
        for file in all {
            if let Some(rank) = users.rank(&file, &complete)? {
                let last = file.digest.and_then(|it| users.last_use.get(&it).copied());
                let last = last.unwrap_or(file.modified);
                going.push((rank, last, file));
            } else if users.is_of_layer_in_use(&file) {
                staying.push(file);
            }
        }
        going.sort_by_key(|(rank, last, file)| (*rank, *last, file.kind, file.digest));
        for (_, _, file) in going {
            if evicted.left <= limit {
                break;
            }
            let wanted = evicted.left.saturating_sub(limit);
            if wanted < file.disk
                && file.kind == Kind::Content
                && let Some(bytes) = self.trim(&file, wanted)
            {
                evicted.bytes = evicted.bytes.saturating_add(bytes);
                evicted.left = evicted.left.saturating_sub(bytes);
                continue;
            }
            remove(&file.path)?;
            evicted.bytes = evicted.bytes.saturating_add(file.disk);
            evicted.left = evicted.left.saturating_sub(file.disk);
        }
        if evicted.left > limit {
            self.evict_in_use(staying, limit, &mut evicted)?;
        }
        Ok(evicted)
    }

    /// Takes as much of a layer's content away as is wanted: last what an image needs when it starts. None where that
    /// cannot be done.
    fn trim(&self, file: &CachedFile, wanted: u64) -> Option<u64> {
        let digest = file.digest?;
        let places = self.places_of(&file.path)?;
        let worth = self.start_of(digest).ok()?;
        let worth = |span: usize| worth.get(&span).copied().unwrap_or(0);
        let freed = trim_content(&places, wanted, worth).ok()?;
        (freed > 0).then_some(freed)
    }

    /// The spans of a layer that were read when an image was started last, the first as the most worth.
    fn start_of(&self, layer: Sha256Digest) -> io::Result<HashMap<usize, usize>> {
        let mut worth = HashMap::new();
        for record in self.records()? {
            let name = format!("{}.trace", record.digest.hex());
            let Some(Trace(entries)) = Trace::load(&self.cache.join("traces").join(name)) else {
                continue;
            };
            for (place, (number, span)) in entries.iter().rev().enumerate() {
                let (Ok(number), Ok(span)) = (usize::try_from(*number), usize::try_from(*span))
                else {
                    continue;
                };
                if record
                    .layers
                    .get(number)
                    .is_some_and(|it| it.digest == layer)
                {
                    let most = worth.entry(span).or_insert(0);
                    *most = place.saturating_add(1).max(*most);
                }
            }
        }
        Ok(worth)
    }
}

/// By how much a cache may be larger than its limit at times, for each daemon that fills it: 16 MiB, or an eighth of a
/// smaller limit. What is being read comes on top.
pub fn slack(limit: u64) -> u64 {
    (limit / 8).clamp(1, 16 << 20)
}

fn disk(files: &[CachedFile]) -> u64 {
    files
        .iter()
        .fold(0, |sum, file| sum.saturating_add(file.disk))
}

/// Whether all that a layer decodes to is there.
fn is_complete(content: &CachedFile) -> bool {
    let spans = resident_spans_of(&content.path).ok().flatten();
    spans.is_some_and(|spans| spans.iter().all(|there| *there))
}

/// Who needs what.
struct Users {
    /// Layers and images that are in use.
    used: HashSet<Sha256Digest>,
    documents: HashSet<Sha256Digest>,
    /// When layers and images were used last.
    last_use: HashMap<Sha256Digest, SystemTime>,
    now: SystemTime,
}

impl Users {
    fn of(catalogue: &Catalogue) -> io::Result<Self> {
        let mut users = Self {
            used: HashSet::new(),
            documents: HashSet::new(),
            last_use: HashMap::new(),
            now: SystemTime::now(),
        };
        for record in catalogue.records()? {
            let last = catalogue.last_use(record.digest);
            let is_used = catalogue.is_in_use(record.digest)?;
            let layers = record.layers.iter().map(|layer| layer.digest);
            for digest in layers.chain([record.digest]) {
                let latest = users.last_use.entry(digest).or_insert(last);
                *latest = last.max(*latest);
                if is_used {
                    users.used.insert(digest);
                }
            }
            users.documents.extend(&record.documents);
        }
        Ok(users)
    }

    /// Whether a file has bytes of a layer that is in use, which can be had again.
    fn is_of_layer_in_use(&self, file: &CachedFile) -> bool {
        let used = |digest| self.used.contains(&digest) && !self.documents.contains(&digest);
        matches!(file.kind, Kind::Content | Kind::Blob) && file.digest.is_some_and(used)
    }

    /// When a file goes; never if it has none.
    fn rank(
        &self,
        file: &CachedFile,
        complete: &HashSet<Sha256Digest>,
    ) -> io::Result<Option<Rank>> {
        let Some(digest) = file.digest else {
            return Ok((!is_young(file, self.now)).then_some(Rank::Nobodys));
        };
        if file.kind == Kind::Name || self.documents.contains(&digest) && file.kind == Kind::Blob {
            return Ok(None);
        }
        if !self.last_use.contains_key(&digest) {
            let stays = is_young(file, self.now) || is_being_fetched(file)?;
            return Ok((!stays).then_some(Rank::Nobodys));
        }
        if file.kind == Kind::Blob && complete.contains(&digest) {
            return Ok(Some(Rank::Twice));
        }
        if self.used.contains(&digest) || is_being_fetched(file)? {
            return Ok(None);
        }
        Ok(Some(match file.kind {
            Kind::Index | Kind::Tree | Kind::Trace => Rank::Index,
            _ => Rank::Content,
        }))
    }
}
