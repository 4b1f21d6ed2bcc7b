//! An open directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::{Answer, DirEntry, DirSink, Directory, FileKind, Result};

use crate::inode::Inode;
use crate::namespace::{DOT_COOKIE, DOT_DOT_COOKIE};
use crate::node::MemoryNode;

/// How many entries are looked at in one go: the namespace is not locked while a sink works.
const BATCH: usize = 128;

pub(crate) struct OpenDirectory {
    node: MemoryNode,
    /// The first cookie that the listing leaves out, 0 before it begins. What is made or renamed after
    /// its begin comes behind all else: a listing that went on to it would not end while each entry is
    /// renamed that it tells of.
    end: AtomicU64,
}

/// An entry, copied out of the namespace.
struct Listed {
    name: Arc<[u8]>,
    inode: u64,
    kind: FileKind,
    cookie: u64,
}

impl OpenDirectory {
    pub(crate) fn new(node: MemoryNode) -> Self {
        Self {
            node,
            end: AtomicU64::new(0),
        }
    }

    /// The entries that follow `cookie`: none at the end. A directory that was removed has ENOENT, as
    /// getdents(2) answers.
    fn batch(&self, cookie: u64) -> Result<Vec<Listed>> {
        let namespace = self.node.file_system().namespace.read();
        let number = self.node.inode().number;
        let entries = namespace.entries(number)?;
        if cookie == 0 || self.end.load(Ordering::Relaxed) == 0 {
            self.end.store(entries.next_cookie(), Ordering::Relaxed);
        }
        let end = self.end.load(Ordering::Relaxed);
        let dots = [
            (DOT_COOKIE, &b"."[..], number),
            (DOT_DOT_COOKIE, b"..", entries.parent()),
        ];
        let dots =
            dots.into_iter()
                .filter(|(own, ..)| *own > cookie)
                .map(|(cookie, name, inode)| Listed {
                    name: name.into(),
                    inode,
                    kind: FileKind::Directory,
                    cookie,
                });
        let named = entries
            .list(cookie.max(DOT_DOT_COOKIE), BATCH)
            .into_iter()
            .filter(|(cookie, ..)| *cookie < end)
            .map(
                |(cookie, name, inode): (u64, Arc<[u8]>, Arc<Inode>)| Listed {
                    name,
                    inode: inode.number,
                    kind: inode.kind,
                    cookie,
                },
            );
        Ok(dots.chain(named).collect())
    }
}

impl Directory for OpenDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::now(|| {
            let mut cookie = cookie;
            let mut batch = self.batch(cookie)?;
            self.node.inode().touch_access_time();
            loop {
                if batch.is_empty() {
                    return Ok(());
                }
                for listed in batch {
                    let entry = DirEntry {
                        name: &listed.name,
                        inode: listed.inode,
                        kind: Some(listed.kind),
                        next: listed.cookie,
                    };
                    if sink.entry(&entry).is_break() {
                        return Ok(());
                    }
                    cookie = listed.cookie;
                }
                batch = self.batch(cookie)?;
            }
        })
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }
}
