//! An open directory of the overlay.

use std::sync::Arc;

use tokio::sync::Mutex;
use vfsd_backend::{
    Answer, DirEntry, DirSink, Directory, EntrySink, Errno, FileKind, Name, Result,
};

use crate::merge::{Listed, list};
use crate::node::OverlayNode;

/// An open directory of the overlay. A cookie is a place in the list of its entries, which is made when
/// the listing begins and stays until it begins anew.
pub(crate) struct OverlayDirectory {
    node: Arc<OverlayNode>,
    listing: Mutex<Option<Arc<[Listed]>>>,
}

impl OverlayDirectory {
    pub(crate) fn new(node: Arc<OverlayNode>) -> Self {
        Self {
            node,
            listing: Mutex::new(None),
        }
    }

    /// The entries, read anew from the layers at the start.
    async fn listing(&self, cookie: u64) -> Result<Arc<[Listed]>> {
        let mut listing = self.listing.lock().await;
        if let Some(known) = listing.as_ref()
            && cookie != 0
        {
            return Ok(known.clone());
        }
        let _names = self.node.shared.names.read().await;
        let parent = match self.node.place() {
            Some(place) => place.parent.number(),
            None => self.node.number(),
        };
        let mut all = Vec::new();
        if self.node.is_removed() {
            return Err(Errno::NOENT.into());
        }
        for (name, inode) in [(&b"."[..], self.node.number()), (b"..", parent)] {
            all.push(Listed {
                name: name.into(),
                inode,
                kind: Some(FileKind::Directory),
            });
        }
        all.extend(list(&self.node).await?);
        let all: Arc<[Listed]> = all.into();
        *listing = Some(all.clone());
        Ok(all)
    }
}

/// The entries from a cookie on.
fn from(listing: &[Listed], cookie: u64) -> impl Iterator<Item = DirEntry<'_>> {
    let start = usize::try_from(cookie).unwrap_or(usize::MAX);
    (1..)
        .zip(listing)
        .skip(start)
        .map(|(next, entry)| DirEntry {
            name: &entry.name,
            inode: entry.inode,
            kind: entry.kind,
            next,
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
