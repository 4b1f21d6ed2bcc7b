//! The entries of a directory, in memory.
//!
//! A directory that is used has all of its entries in memory, unless it is [too large](MOST); so a name
//! that does not exist is known without a look at the tables.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::meta::EntryRow;
use crate::meta::tables::Named;

/// A directory with more entries stays in the tables: names are looked up one by one.
pub(crate) const MOST: u64 = if cfg!(test) { 6 } else { 100_000 };

/// All entries of one directory.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    by_name: HashMap<Arc<[u8]>, EntryRow>,
    /// The order of a listing: that of creation. A cookie is never used twice, so that a listing
    /// goes on where it was, whatever is made and removed meanwhile.
    by_cookie: BTreeMap<u64, Arc<[u8]>>,
}

impl Entries {
    pub(crate) fn new(all: Vec<Named>) -> Self {
        let mut entries = Self::default();
        for (name, row) in all {
            entries.put(name, Some(row));
        }
        entries
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<EntryRow> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Replaces or removes an entry.
    pub(crate) fn put(&mut self, name: Arc<[u8]>, row: Option<EntryRow>) {
        let before = match row {
            Some(row) => {
                self.by_cookie.insert(row.cookie, name.clone());
                self.by_name.insert(name, row)
            }
            None => self.by_name.remove(&name),
        };
        if let Some(before) = before
            && row.is_none_or(|row| row.cookie != before.cookie)
        {
            self.by_cookie.remove(&before.cookie);
        }
    }

    /// Up to `count` entries after `cookie`.
    pub(crate) fn list(&self, cookie: u64, count: usize) -> Vec<Named> {
        let Some(first) = cookie.checked_add(1) else {
            return Vec::new();
        };
        self.by_cookie
            .range(first..)
            .filter_map(|(_, name)| Some((name.clone(), *self.by_name.get(name)?)))
            .take(count)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_backend::FileKind;

    fn row(ino: u64, cookie: u64) -> EntryRow {
        EntryRow {
            ino,
            kind: FileKind::Regular,
            cookie,
        }
    }

    #[test]
    fn listings_go_by_cookie_whatever_changes_meanwhile() {
        let name = |name: &str| Arc::<[u8]>::from(name.as_bytes());
        let mut entries = Entries::new(vec![(name("b"), row(2, 4)), (name("a"), row(1, 3))]);
        entries.put(name("c"), Some(row(3, 9)));
        entries.put(name("b"), Some(row(7, 4)));
        let listed = |entries: &Entries, cookie| {
            let list = entries.list(cookie, 2).into_iter();
            list.map(|(_, row)| row.ino).collect::<Vec<_>>()
        };
        assert_eq!(listed(&entries, 0), [1, 7]);
        entries.put(name("b"), None);
        assert_eq!(listed(&entries, 3), [3]);
        assert_eq!(listed(&entries, u64::MAX), [0; 0]);
        assert_eq!((entries.len(), entries.get(b"b")), (2, None));
    }
}
