//! Rows that are in the journal and not yet in SQLite's tables: the last image of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::Change;
use super::journal::Lsn;
use super::row::{EntryRow, NodeRow};

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
