//! Inode numbers: of the key, so that they are the same after a restart.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::node::FlatNode;

/// The root's number.
pub(super) const ROOT: u64 = 1;

/// The numbers of the files that a guest knows.
///
/// A number is the hash of a key. While two keys with the same hash are both known, the later one has
/// the next free number.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    live: HashMap<u64, Live>,
    /// Keys that files have which got their number from another key: renamed ones.
    moved: HashMap<Arc<str>, u64>,
}

impl Tables {
    /// The number of a key unless another key has it.
    fn first(&self, key: &str) -> u64 {
        match key {
            "" => ROOT,
            key => self.moved.get(key).copied().unwrap_or_else(|| hash(key)),
        }
    }
}

#[derive(Debug)]
struct Live {
    key: Arc<str>,
    node: Weak<FlatNode>,
}

/// The hash of a key, never one of the small numbers that mean something.
fn hash(key: &str) -> u64 {
    // SipHash with a fixed key: nothing here depends on who chose the names, see `Numbers`.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish().max(16)
}

fn following(number: u64) -> u64 {
    number.wrapping_add(1).max(16)
}

impl Numbers {
    /// The number that the file with this key has or would have.
    pub(super) fn number(&self, key: &str) -> u64 {
        let tables = self.tables.lock();
        let mut number = tables.first(key);
        while tables
            .live
            .get(&number)
            .is_some_and(|there| *there.key != *key)
        {
            number = following(number);
        }
        number
    }

    /// The node of this key, if it is known.
    pub(super) fn find(&self, key: &str) -> Option<Arc<FlatNode>> {
        let number = self.number(key);
        let tables = self.tables.lock();
        let there = tables.live.get(&number)?;
        (*there.key == *key).then(|| there.node.upgrade()).flatten()
    }

    /// The known node of this key that `fits`, or a new one.
    pub(super) fn node(
        &self,
        key: &str,
        fits: impl Fn(&FlatNode) -> bool,
        new: impl FnOnce(u64, Arc<str>, &Weak<FlatNode>) -> FlatNode,
    ) -> Arc<FlatNode> {
        // Dropped after the lock is: the last reference to a node asks for it.
        let mut replaced = None;
        let mut tables = self.tables.lock();
        let mut number = tables.first(key);
        let node = loop {
            match tables.live.get_mut(&number) {
                Some(there) if *there.key != *key => number = following(number),
                Some(there) => {
                    if let Some(node) = there.node.upgrade() {
                        if fits(&node) {
                            break node;
                        }
                        replaced = Some(node);
                    }
                    let key = there.key.clone();
                    let node = Arc::new_cyclic(|this| new(number, key, this));
                    there.node = Arc::downgrade(&node);
                    break node;
                }
                None => {
                    let key: Arc<str> = key.into();
                    let node = Arc::new_cyclic(|this| new(number, key.clone(), this));
                    let weak = Arc::downgrade(&node);
                    tables.live.insert(number, Live { key, node: weak });
                    break node;
                }
            }
        };
        drop(tables);
        drop(replaced);
        node
    }

    /// A node with this number is no more.
    pub(super) fn forget(&self, number: u64) {
        let mut tables = self.tables.lock();
        // A newer version of the file may have taken its place.
        if tables
            .live
            .get(&number)
            .is_some_and(|there| there.node.strong_count() == 0)
            && let Some(gone) = tables.live.remove(&number)
            && tables.moved.get(&gone.key) == Some(&number)
        {
            tables.moved.remove(&gone.key);
        }
    }

    /// The files that are known whose key is `key` or, for one that ends with `/`, begins with it.
    pub(super) fn known(&self, key: &str) -> Vec<Arc<FlatNode>> {
        let tables = self.tables.lock();
        let below = key.ends_with('/');
        let wanted = |own: &str| own == key || (below && own.starts_with(key));
        tables
            .live
            .values()
            .filter(|there| wanted(&there.key))
            .filter_map(|there| there.node.upgrade())
            .collect()
    }

    /// A file has another key from now on, and keeps its number.
    pub(super) fn rename(&self, number: u64, key: &Arc<str>) {
        let mut tables = self.tables.lock();
        let Some(there) = tables.live.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut there.key, key.clone());
        if tables.moved.get(&before) == Some(&number) {
            tables.moved.remove(&before);
        }
        tables.moved.insert(key.clone(), number);
    }

    /// How many files are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tables.lock().live.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_with_the_same_hash_have_different_numbers_while_both_are_known() {
        let numbers = Numbers::default();
        let own = numbers.number("a/b");
        assert_eq!(own, numbers.number("a/b"));
        let other = Live {
            key: "other".into(),
            node: Weak::new(),
        };
        numbers.tables.lock().live.insert(own, other);
        assert_eq!(numbers.number("a/b"), following(own));
        numbers.forget(own);
        assert_eq!(numbers.number("a/b"), own);
        assert_eq!(numbers.number(""), ROOT);
    }
}
