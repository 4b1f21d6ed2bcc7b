//! An open directory of the overlay.

use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell};
use vfsd_backend::{
    Answer, DirEntry, DirSink, Directory, EntrySink, Errno, Error, Name, Result, blocking_section,
};

use crate::ask::{Begun, OpenPart};
use crate::listing::Listing;
use crate::listing_budget::{ListingBudget, Share};
use crate::merge::list;
use crate::node::OverlayNode;
use crate::spot::{AtOnce, Spot};

/// An open directory of the overlay. Its entries are listed in the order of their names' hashes, which
/// are the cookies: a listing can go on in a list that was made later, or in another open directory.
pub(crate) struct OverlayDirectory {
    node: Arc<OverlayNode>,
    listing: Mutex<Option<Kept>>,
    /// Those of its layers, as they were when it was first listed with what the names are.
    layers: OnceCell<Vec<OpenPart>>,
}

/// A list, or a part of it, that is kept for the next request.
struct Kept {
    list: Arc<Listing>,
    /// It begins behind this cookie.
    after: u64,
    /// It goes to the end of the directory.
    to_the_end: bool,
    _share: Share,
}

/// Directories of layers that are open for one of the overlay, the topmost. In others names are looked up one by one.
const MOST_OPEN: usize = 8;

/// How much of a list is kept, as a divisor: the largest part that the budget has room for. A directory is then listed
/// at most so many times for one that reads all of it.
const PARTS: [usize; 4] = [1, 4, 16, 64];

impl Kept {
    /// Keeps what a reader that has come to `cookie` wants next, as much as there is room for.
    fn new(list: &Arc<Listing>, cookie: u64, budget: &Arc<ListingBudget>) -> Option<Self> {
        let start = list.index_behind(cookie);
        PARTS.into_iter().find_map(|part| {
            let count = list.len().div_ceil(part);
            let whole = part == 1;
            let kept = match whole {
                true => list.clone(),
                false => Arc::new(list.part(start, count)),
            };
            Some(Self {
                _share: budget.take(kept.size(), whole)?,
                list: kept,
                after: if whole { 0 } else { cookie },
                to_the_end: whole || start.saturating_add(count) >= list.len(),
            })
        })
    }

    /// Whether it has what follows a cookie.
    fn has(&self, cookie: u64) -> bool {
        cookie >= self.after && (cookie < self.list.last_cookie() || self.to_the_end)
    }
}

impl OverlayDirectory {
    pub(crate) fn new(node: Arc<OverlayNode>) -> Self {
        Self {
            node,
            listing: Mutex::new(None),
            layers: OnceCell::new(),
        }
    }

    /// Those of its layers that are open: all, or none where that is not possible. The names must not change meanwhile.
    async fn layers(&self) -> &[OpenPart] {
        let open = || async {
            let mut layers = Vec::new();
            for base in self.node.bases().take(MOST_OPEN) {
                let open = base.node.opendir().await?;
                let node = base.node.clone();
                layers.push(OpenPart { node, open });
            }
            Ok::<_, Error>(layers)
        };
        match self.layers.get_or_try_init(open).await {
            Ok(layers) => layers,
            Err(_) => &[],
        }
    }

    /// Tells what entries are, for as long as the layers tell at once and there is room. The names must not change
    /// meanwhile.
    fn pass<'a>(
        &'a self,
        entries: &mut impl Iterator<Item = DirEntry<'a>>,
        sink: &mut dyn EntrySink,
        open: &'a [OpenPart],
    ) -> Option<Unfinished<'a>> {
        for listed in entries {
            if !sink.has_room(listed.name) {
                break;
            }
            let Ok(name) = Name::new(listed.name) else {
                sink.entry(&listed, None);
                continue;
            };
            match self.node.spot_at_once(open, name) {
                AtOnce::Done(spot) => pass_one(sink, &listed, spot),
                AtOnce::Begun(begun) => return Some((listed, name, begun)),
            }
        }
        None
    }

    /// The entries, read anew from the layers at the start. `opens` says that the names will be looked up, too.
    async fn listing(&self, cookie: u64, opens: bool) -> Result<Arc<Listing>> {
        let mut listing = self.listing.lock().await;
        if let Some(known) = listing.as_ref()
            && cookie != 0
            && known.has(cookie)
        {
            return Ok(known.list.clone());
        }
        let _names = self.node.shared.names.read().await;
        let parent = match self.node.place() {
            Some(place) => place.parent.number(),
            None => self.node.number(),
        };
        // One that is open for longer may list what was there when it was opened.
        let open = match opens && self.layers.get().is_none() {
            true => self.layers().await,
            false => &[],
        };
        if self.node.is_removed() {
            return Err(Errno::NOENT.into());
        }
        let all = list(&self.node, open).await?;
        let all = Arc::new(all.with_dots(self.node.number(), parent));
        // What was kept before makes room.
        drop(listing.take());
        *listing = Kept::new(&all, cookie, &self.node.shared.listing_budget);
        Ok(all)
    }
}

/// An entry of which more has to be asked, and what was found of it so far.
type Unfinished<'a> = (DirEntry<'a>, Name<'a>, Begun<'a>);

/// Tells what an entry was found to be.
fn pass_one(sink: &mut dyn EntrySink, listed: &DirEntry<'_>, spot: Result<Spot>) {
    match spot.map(|spot| spot.found) {
        Ok(Some((node, attributes))) => sink.entry(listed, Some(node.entry(attributes))),
        Ok(None) => {}
        Err(_) => sink.entry(listed, None),
    }
}

impl Directory for OverlayDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::later(async move {
            let listing = self.listing(cookie, false).await?;
            for entry in listing.behind(cookie) {
                if sink.entry(&entry).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        Answer::later(async move {
            let listing = self.listing(cookie, true).await?;
            let mut entries = listing.behind(cookie);
            loop {
                let _names = self.node.shared.names.read().await;
                let open = self.layers().await;
                let pass = || self.pass(&mut entries, sink, open);
                // One section, or one piece of blocking work, where a layer would have one for each name.
                let begun = match blocking_section(pass) {
                    Ok(begun) => begun,
                    Err(mut pass) => Answer::blocking(move || Ok(pass())).await?,
                };
                let Some((listed, name, begun)) = begun else {
                    return Ok(());
                };
                // Who changes names waits for no more than one that takes longer.
                let spot = self.node.spot_later(open, name, begun).await;
                pass_one(sink, &listed, spot);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: u64) -> Arc<Listing> {
        let names: Vec<String> = (2..count).map(|inode| inode.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut list = Listing::default();
        list.add(0, &names);
        list.arrange();
        Arc::new(list.with_dots(0, 1))
    }

    /// Reads all of a directory, so many entries at once, and says how often it was listed.
    fn read_all(list: &Arc<Listing>, budget: &Arc<ListingBudget>) -> usize {
        let (mut cookie, mut made, mut seen) = (0, 0, Vec::new());
        let mut kept: Option<Kept> = None;
        loop {
            let known = kept.as_ref().filter(|kept| cookie != 0 && kept.has(cookie));
            let listing = match known {
                Some(kept) => kept.list.clone(),
                None => {
                    made += 1;
                    drop(kept.take());
                    kept = Kept::new(list, cookie, budget);
                    list.clone()
                }
            };
            let page: Vec<_> = listing
                .behind(cookie)
                .take(7)
                .map(|e| (e.inode, e.next))
                .collect();
            let Some((_, next)) = page.last() else {
                break;
            };
            cookie = *next;
            seen.extend(page.into_iter().map(|(inode, _)| inode));
        }
        let mut expected: Vec<_> = list.behind(0).map(|entry| entry.inode).collect();
        assert_eq!(seen, expected, "in the order of the cookies, each once");
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(expected.len(), list.len());
        made
    }

    #[test]
    fn a_directory_beyond_the_budget_is_listed_a_few_times_however_long_it_is() {
        for count in [2, 3, 500, 5000] {
            let list = list(count);
            let size = list.size();
            for (divisor, most) in [(2, 5), (8, 17), (32, 65)] {
                let budget = ListingBudget::new(size + size / divisor + 200);
                // Another directory has most of it.
                let other = budget.take(size, true);
                assert!(other.is_some());
                let made = read_all(&list, &budget);
                assert!(
                    made <= most + 1,
                    "{count} entries, 1/{divisor} left: {made}"
                );
            }
        }
    }
}
