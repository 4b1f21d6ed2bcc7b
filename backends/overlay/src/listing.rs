//! The entries of a directory, in memory.

use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;

use vfsd_backend::{DirEntry, DirSink, Directory, FileKind, Result};

/// The entries of a directory. Their names lie together: none has memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    entries: Vec<Listed>,
    names: Vec<u8>,
}

/// An entry of a [`Listing`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) inode: u64,
    pub(crate) kind: Option<FileKind>,
    /// Which of the directory's layers lists it, the topmost is 0.
    pub(crate) part: u32,
    /// Where a listing goes on behind it.
    cookie: u64,
    start: usize,
    end: usize,
}

impl Listed {
    fn name(self, names: &[u8]) -> &[u8] {
        names.get(self.start..self.end).unwrap_or_default()
    }
}

/// A positive number for 64-bit programs, the same for a name whenever the daemon runs.
fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish() >> 2
}

/// Takes all entries of a layer's directory.
struct Collect<'l> {
    listing: &'l mut Listing,
    part: u32,
    last: u64,
}

impl DirSink for Collect<'_> {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        self.last = entry.next;
        if !matches!(entry.name, b"." | b"..") {
            self.listing.push(entry, self.part, 0);
        }
        ControlFlow::Continue(())
    }
}

impl Listing {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.entries).saturating_add(self.names.len())
    }

    /// The names from the one with this index on.
    pub(crate) fn names_from(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let entries = self.entries.get(first..).unwrap_or_default();
        entries.iter().map(|entry| entry.name(&self.names))
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names_from(0)
    }

    /// Its entries without the names, which stay.
    pub(crate) fn take_entries(&mut self) -> Vec<Listed> {
        let room = Vec::with_capacity(self.entries.len());
        std::mem::replace(&mut self.entries, room)
    }

    /// The name of an entry that was taken.
    pub(crate) fn name_of(&self, taken: &Listed) -> &[u8] {
        taken.name(&self.names)
    }

    /// Puts an entry back that was taken.
    pub(crate) fn put(&mut self, taken: Listed) {
        self.entries.push(taken);
    }

    fn push(&mut self, entry: &DirEntry<'_>, part: u32, cookie: u64) {
        let start = self.names.len();
        self.names.extend_from_slice(entry.name);
        self.entries.push(Listed {
            inode: entry.inode,
            kind: entry.kind,
            part,
            cookie,
            start,
            end: self.names.len(),
        });
    }

    /// Adds all entries of a layer's open directory but `.` and `..`.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn add_all(&mut self, open: &dyn Directory, part: u32) -> Result<()> {
        let mut all = Collect {
            listing: self,
            part,
            last: 0,
        };
        loop {
            let from = all.last;
            open.read(from, &mut all).await?;
            if all.last == from {
                return Ok(());
            }
        }
    }

    /// Puts the entries in the order of their names' hashes. Of those with one name the topmost stays.
    pub(crate) fn arrange(&mut self) {
        let Self { entries, names } = self;
        for entry in &mut *entries {
            entry.cookie = hash(entry.name(names));
        }
        entries.sort_unstable_by(|a, b| {
            let by_name = || a.name(names).cmp(b.name(names));
            let order = a.cookie.cmp(&b.cookie).then_with(by_name);
            order.then(a.part.cmp(&b.part))
        });
        entries.dedup_by(|next, entry| {
            next.cookie == entry.cookie && next.name(names) == entry.name(names)
        });
    }

    /// Puts `.` and `..`, which have these inode numbers, before the arranged entries, and makes all cookies different. Of
    /// a hundred thousand names two have one hash once in a thousand million directories; the second then gets the
    /// number behind.
    pub(crate) fn with_dots(mut self, own: u64, parent: u64) -> Self {
        let mut all = Self {
            entries: Vec::with_capacity(self.entries.len().saturating_add(2)),
            names: std::mem::take(&mut self.names),
        };
        for (name, inode) in [(&b"."[..], own), (b"..", parent)] {
            let dots = DirEntry {
                name,
                inode,
                kind: Some(FileKind::Directory),
                next: 0,
            };
            all.push(&dots, 0, 0);
        }
        all.names.shrink_to_fit();
        all.entries.append(&mut self.entries);
        let mut last: u64 = 0;
        for entry in &mut all.entries {
            entry.cookie = entry.cookie.max(last.saturating_add(1));
            last = entry.cookie;
        }
        all
    }

    /// The index of the first entry behind a cookie.
    pub(crate) fn index_behind(&self, cookie: u64) -> usize {
        self.entries.partition_point(|entry| entry.cookie <= cookie)
    }

    /// The last cookie.
    pub(crate) fn last_cookie(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.cookie)
    }

    /// The entries behind a cookie.
    pub(crate) fn behind(&self, cookie: u64) -> impl Iterator<Item = DirEntry<'_>> {
        let rest = self.entries.get(self.index_behind(cookie)..);
        let rest = rest.unwrap_or_default().iter();
        rest.map(|entry| DirEntry {
            name: entry.name(&self.names),
            inode: entry.inode,
            kind: entry.kind,
            next: entry.cookie,
        })
    }

    /// So many entries, from the one with this index on.
    pub(crate) fn part(&self, first: usize, count: usize) -> Self {
        let mut part = Self::default();
        for entry in self.entries.iter().skip(first).take(count) {
            let listed = DirEntry {
                name: entry.name(&self.names),
                inode: entry.inode,
                kind: entry.kind,
                next: 0,
            };
            part.push(&listed, entry.part, entry.cookie);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Listing {
        /// Adds entries of a layer, whose inode numbers are in their names if there is a number.
        pub(crate) fn add(&mut self, part: u32, names: &[&str]) {
            for name in names {
                let entry = DirEntry {
                    name: name.as_bytes(),
                    inode: name.parse().unwrap_or(0),
                    kind: None,
                    next: 1,
                };
                self.push(&entry, part, 0);
            }
        }
    }

    #[test]
    fn of_entries_with_one_name_the_topmost_stays() {
        let mut all = Listing::default();
        all.add(0, &["b", "d"]);
        all.add(1, &["a", "b", "c"]);
        all.add(2, &["c", "b", "e"]);
        all.arrange();
        let mut found: Vec<_> = all
            .entries
            .iter()
            .map(|entry| (entry.name(&all.names), entry.part))
            .collect();
        found.sort_unstable();
        let expected = [("a", 1), ("b", 0), ("c", 1), ("d", 0), ("e", 2)];
        assert_eq!(found, expected.map(|(name, part)| (name.as_bytes(), part)));
    }

    #[test]
    fn entries_whose_names_have_one_hash_have_cookies_of_their_own_in_the_order_of_the_names() {
        let mut all = Listing::default();
        all.add(0, &["x", "y", "z"]);
        all.entries.iter_mut().for_each(|entry| entry.cookie = 2);
        let all = all.with_dots(7, 8);
        let found: Vec<_> = all
            .behind(0)
            .map(|entry| (entry.name.to_vec(), entry.next))
            .collect();
        let expected = [(".", 1), ("..", 2), ("x", 3), ("y", 4), ("z", 5)];
        assert_eq!(
            found,
            expected.map(|(name, cookie)| (name.as_bytes().to_vec(), cookie))
        );
        assert_eq!(all.behind(4).count(), 1);
        let part = all.part(1, 3);
        assert_eq!((part.last_cookie(), part.len()), (4, 3));
        assert_eq!(part.names().last(), Some(&b"y"[..]));
    }
}
