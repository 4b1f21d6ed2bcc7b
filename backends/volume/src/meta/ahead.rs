//! Rows that are in the journal and not yet in SQLite's tables: the last image of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::change::Change;
use super::journal::Lsn;
use super::row::{EntryRow, NodeRow};
use super::tables::{self, Attribute, Named};

type Names<T> = BTreeMap<Arc<[u8]>, Option<T>>;

/// The last images of rows. `None` in a table is a row that is gone.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    pub(crate) nodes: BTreeMap<u64, Option<NodeRow>>,
    pub(crate) entries: BTreeMap<u64, Names<EntryRow>>,
    pub(crate) attributes: BTreeMap<u64, Names<Arc<[u8]>>>,
    pub(crate) orphans: BTreeMap<u64, bool>,
    pub(crate) unsettled: BTreeMap<u64, bool>,
    /// The last record that is here.
    pub(crate) last: Lsn,
    /// How many changes came, those included that another one replaced.
    pub(crate) changes: usize,
    /// About how many bytes of names and values are kept.
    pub(crate) bytes: usize,
}

impl Ahead {
    /// Takes in a record.
    pub(crate) fn add(&mut self, lsn: Lsn, changes: Vec<Change>) {
        self.last = lsn;
        self.changes = self.changes.saturating_add(changes.len());
        for change in changes {
            match change {
                Change::Node(ino, row) => {
                    if row.is_none() {
                        self.attributes.remove(&ino);
                    }
                    self.nodes.insert(ino, row);
                }
                Change::Entry(parent, name, row) => {
                    self.bytes = self.bytes.saturating_add(name.len());
                    self.entries.entry(parent).or_default().insert(name, row);
                }
                Change::Xattr(ino, name, value) => {
                    let length = value.as_ref().map_or(0, |value| value.len());
                    self.bytes = self.bytes.saturating_add(name.len()).saturating_add(length);
                    self.attributes.entry(ino).or_default().insert(name, value);
                }
                Change::Orphan(ino, there) => {
                    self.orphans.insert(ino, there);
                }
                Change::Unsettled(ino, there) => {
                    self.unsettled.insert(ino, there);
                }
                Change::Hole(..) => {}
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes == 0
    }

    pub(crate) fn node(&self, ino: u64) -> Option<&Option<NodeRow>> {
        self.nodes.get(&ino)
    }

    pub(crate) fn entry(&self, parent: u64, name: &[u8]) -> Option<Option<EntryRow>> {
        self.entries.get(&parent)?.get(name).copied()
    }
}

/// The last images of several, of which the older ones come first.
fn last<'a, T: 'a>(
    names: impl Iterator<Item = Option<&'a Names<T>>>,
) -> BTreeMap<&'a Arc<[u8]>, &'a Option<T>> {
    names.flatten().flatten().collect()
}

/// Up to `count` entries of a directory after `cookie`, in the order of their cookies: those of tables with what is ahead of
/// them, the older first.
pub(super) fn entries_over(
    db: &Connection,
    ahead: [&Ahead; 2],
    parent: u64,
    cookie: u64,
    count: u64,
) -> rusqlite::Result<Vec<Named>> {
    let changed = last(ahead.iter().map(|ahead| ahead.entries.get(&parent)));
    // As many of the tables are left out at most.
    let more = u64::try_from(changed.len()).unwrap_or(u64::MAX);
    let limit = count.saturating_add(more).min(u64::MAX >> 1);
    let mut entries = tables::entries(db, parent, cookie, limit)?;
    entries.retain(|(name, _)| !changed.contains_key(name));
    let new = changed
        .into_iter()
        .filter_map(|(name, row)| Some((name.clone(), (*row)?)));
    entries.extend(new.filter(|(_, row)| row.cookie > cookie));
    entries.sort_unstable_by_key(|(_, row)| row.cookie);
    entries.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    Ok(entries)
}

/// The extended attributes of an inode: those of tables with what is ahead of them, the older first.
pub(super) fn attributes_over(
    db: &Connection,
    ahead: [&Ahead; 2],
    ino: u64,
) -> rusqlite::Result<Vec<Attribute>> {
    let changed = last(ahead.iter().map(|ahead| ahead.attributes.get(&ino)));
    let mut attributes = tables::attributes(db, ino)?;
    attributes.retain(|(name, _)| !changed.contains_key(name));
    let new = changed.into_iter();
    attributes.extend(new.filter_map(|(name, value)| Some((name.clone(), value.clone()?))));
    Ok(attributes)
}
