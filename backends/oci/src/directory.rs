//! An open directory of an image.

use std::sync::Arc;

use vfsd_backend::{Answer, DirEntry, DirSink, Directory, EntrySink, FileKind};

use crate::backend::Shared;
use crate::tree::NodeId;

/// A listing: `.`, `..`, then the names in the order of their bytes. A cookie is the number of entries that were
/// listed, so that it means the same in every open directory, on every host.
pub(crate) struct ImageDirectory {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: NodeId,
    pub(crate) parent: NodeId,
}

impl ImageDirectory {
    /// The entries after `cookie`, each with its node.
    fn entries(&self, cookie: u64) -> impl Iterator<Item = (DirEntry<'_>, NodeId)> + '_ {
        let listed = usize::try_from(cookie).unwrap_or(usize::MAX);
        let dots = [(&b"."[..], self.id), (&b".."[..], self.parent)];
        let children = self
            .shared
            .tree
            .children(self.id, listed.saturating_sub(dots.len()));
        let entries = dots.into_iter().skip(listed).chain(children);
        entries.zip(1..).map(move |((name, node), number)| {
            let entry = DirEntry {
                name,
                inode: node.inode(),
                kind: Some(self.shared.tree.kind(node)),
                next: cookie.saturating_add(number),
            };
            (entry, node)
        })
    }
}

impl Directory for ImageDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        for (entry, _) in self.entries(cookie) {
            if sink.entry(&entry).is_break() {
                break;
            }
        }
        Answer::ok(())
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        for (entry, node) in self.entries(cookie) {
            if !sink.has_room(entry.name) {
                break;
            }
            let is_dots =
                entry.kind == Some(FileKind::Directory) && matches!(entry.name, b"." | b"..");
            let found = (!is_dots).then(|| self.shared.entry(node));
            sink.entry(&entry, found);
        }
        Answer::ok(())
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }
}
