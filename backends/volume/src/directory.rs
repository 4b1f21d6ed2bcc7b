//! An open directory.

use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::{Answer, DirEntry, DirSink, Directory, EntrySink, FileKind, Result};

use crate::core::check_directory;
use crate::meta::tables::Named;
use crate::meta::{EntryRow, FIRST_COOKIE};
use crate::node::VolumeNode;

/// How many entries are looked at in one go: entries are not locked while a sink works.
const BATCH: usize = 128;
const DOT_COOKIE: u64 = 1;
const DOT_DOT_COOKIE: u64 = 2;

pub(crate) struct OpenDirectory {
    node: VolumeNode,
    /// The first cookie that the listing leaves out, 0 before it begins. What is made or renamed after
    /// its begin comes behind all else: a listing that went on to it would not end while each entry is
    /// renamed that it tells of.
    end: AtomicU64,
}

impl OpenDirectory {
    pub(crate) fn new(node: VolumeNode) -> Self {
        Self {
            node,
            end: AtomicU64::new(0),
        }
    }

    /// The entries that follow `cookie`: none at the end. A directory that was removed has ENOENT, as
    /// getdents(2) answers.
    fn batch(&self, cookie: u64) -> Result<Vec<Named>> {
        let inode = &self.node.inode;
        check_directory(inode)?;
        let (parent, next_cookie) = {
            let state = inode.state.read();
            (state.row.parent, state.row.next_cookie)
        };
        if cookie == 0 || self.end.load(Ordering::Relaxed) == 0 {
            self.end.store(next_cookie, Ordering::Relaxed);
        }
        let end = self.end.load(Ordering::Relaxed);
        let dots = [
            (DOT_COOKIE, &b"."[..], inode.ino),
            (DOT_DOT_COOKIE, b"..", parent),
        ];
        let mut batch: Vec<Named> = dots
            .into_iter()
            .filter(|(own, ..)| *own > cookie)
            .map(|(cookie, name, ino)| {
                let kind = FileKind::Directory;
                (name.into(), EntryRow { ino, kind, cookie })
            })
            .collect();
        let after = cookie.max(FIRST_COOKIE.saturating_sub(1));
        let named = self.node.core().list(inode, after, BATCH)?;
        batch.extend(named.into_iter().filter(|(_, row)| row.cookie < end));
        Ok(batch)
    }

    /// Gives entries to `take` until it has no room.
    fn list(&self, cookie: u64, mut take: impl FnMut(&DirEntry<'_>) -> Result<bool>) -> Result<()> {
        let mut cookie = cookie;
        let mut batch = self.batch(cookie)?;
        self.node.inode.touch_access_time();
        loop {
            if batch.is_empty() {
                return Ok(());
            }
            for (name, row) in batch {
                let entry = DirEntry {
                    name: &name,
                    inode: row.ino,
                    kind: Some(row.kind),
                    next: row.cookie,
                };
                if !take(&entry)? {
                    return Ok(());
                }
                cookie = row.cookie;
            }
            batch = self.batch(cookie)?;
        }
    }
}

impl Directory for OpenDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::brief(move || self.list(cookie, |entry| Ok(sink.entry(entry).is_continue())))
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        Answer::brief(move || {
            self.list(cookie, |listed| {
                if !sink.has_room(listed.name) {
                    return Ok(false);
                }
                let found = match vfsd_backend::Name::new(listed.name) {
                    // `.` and `..`, which are no names.
                    Err(_) => None,
                    Ok(name) => match self.node.find(name)? {
                        Some(inode) => Some(self.node.entry(inode)),
                        // Removed meanwhile: left out.
                        None => return Ok(true),
                    },
                };
                sink.entry(listed, found);
                Ok(true)
            })
        })
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        self.node.core().names_synced()
    }
}
