//! An open directory of the overlay.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use tokio::sync::Mutex;
use vfsd_backend::{
    Answer, DirEntry, DirSink, Directory, EntrySink, Errno, FileKind, Name, Result,
};

use crate::listing_budget::Share;
use crate::merge::{Listed, list};
use crate::node::OverlayNode;

/// An open directory of the overlay. Its entries are listed in the order of their names' hashes, which
/// are the cookies: a listing can go on in a list that was made later, or in another open directory.
pub(crate) struct OverlayDirectory {
    node: Arc<OverlayNode>,
    listing: Mutex<Option<Kept>>,
}

/// A list that is kept for the next request.
struct Kept {
    list: Arc<[Placed]>,
    _share: Share,
}

impl OverlayDirectory {
    pub(crate) fn new(node: Arc<OverlayNode>) -> Self {
        Self {
            node,
            listing: Mutex::new(None),
        }
    }

    /// The entries, read anew from the layers at the start.
    async fn listing(&self, cookie: u64) -> Result<Arc<[Placed]>> {
        let mut listing = self.listing.lock().await;
        if let Some(known) = listing.as_ref()
            && cookie != 0
        {
            return Ok(known.list.clone());
        }
        let _names = self.node.shared.names.read().await;
        let parent = match self.node.place() {
            Some(place) => place.parent.number(),
            None => self.node.number(),
        };
        let mut dots = Vec::new();
        if self.node.is_removed() {
            return Err(Errno::NOENT.into());
        }
        for (name, inode) in [(&b"."[..], self.node.number()), (b"..", parent)] {
            dots.push(Listed {
                name: name.into(),
                inode,
                kind: Some(FileKind::Directory),
            });
        }
        let all: Arc<[Placed]> = placed(dots, list(&self.node).await?).into();
        // What was kept before makes room.
        drop(listing.take());
        let share = self.node.shared.listing_budget.take(size_of_list(&all));
        *listing = share.map(|share| Kept {
            list: all.clone(),
            _share: share,
        });
        Ok(all)
    }
}

/// An entry and its cookie.
struct Placed {
    cookie: u64,
    entry: Listed,
}

/// Bytes of memory that a list takes, about.
fn size_of_list(list: &[Placed]) -> usize {
    list.iter().fold(0, |sum: usize, placed| {
        sum.saturating_add(size_of::<Placed>())
            .saturating_add(placed.entry.name.len())
    })
}

/// The entries in the order of their cookies. Of a hundred thousand names two have one hash
/// once in a thousand million directories; the second then gets the number behind.
fn placed(dots: Vec<Listed>, entries: Vec<Listed>) -> Vec<Placed> {
    let mut all: Vec<Placed> = entries
        .into_iter()
        .map(|entry| Placed {
            cookie: hash(&entry.name),
            entry,
        })
        .collect();
    all.sort_unstable_by(|a, b| (a.cookie, &a.entry.name).cmp(&(b.cookie, &b.entry.name)));
    let dots = dots.into_iter().map(|entry| Placed { cookie: 0, entry });
    let mut all: Vec<Placed> = dots.chain(all).collect();
    let mut last: u64 = 0;
    for placed in &mut all {
        placed.cookie = placed.cookie.max(last.saturating_add(1));
        last = placed.cookie;
    }
    all
}

/// A positive number for 64-bit programs, the same for a name whenever the daemon runs.
fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish() >> 2
}

/// The entries from a cookie on.
fn from(listing: &[Placed], cookie: u64) -> impl Iterator<Item = DirEntry<'_>> {
    let start = listing.partition_point(|placed| placed.cookie <= cookie);
    let rest = listing.get(start..).unwrap_or_default();
    rest.iter().map(|Placed { cookie, entry }| DirEntry {
        name: &entry.name,
        inode: entry.inode,
        kind: entry.kind,
        next: *cookie,
    })
}

impl Directory for OverlayDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::later(async move {
            let listing = self.listing(cookie).await?;
            for entry in from(&listing, cookie) {
                if sink.entry(&entry).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        Answer::later(async move {
            let listing = self.listing(cookie).await?;
            for listed in from(&listing, cookie) {
                if !sink.has_room(listed.name) {
                    break;
                }
                let Ok(name) = Name::new(listed.name) else {
                    sink.entry(&listed, None);
                    continue;
                };
                let found = {
                    let _names = self.node.shared.names.read().await;
                    self.node.find(name).await
                };
                match found {
                    Ok(Some((node, attributes))) => {
                        sink.entry(&listed, Some(node.entry(attributes)));
                    }
                    Ok(None) => {}
                    Err(_) => sink.entry(&listed, None),
                }
            }
            Ok(())
        })
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        let Some(upper) = self.node.upper() else {
            return Answer::ok(());
        };
        upper.opendir().then(move |opened| match opened {
            Ok(directory) => Answer::later(async move { directory.fsync(data_only).await }),
            Err(error) => Answer::error(error),
        })
    }
}
