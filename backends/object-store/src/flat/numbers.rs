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
    live: Mutex<HashMap<u64, Live>>,
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
        if key.is_empty() {
            return ROOT;
        }
        let live = self.live.lock();
        let mut number = hash(key);
        while live.get(&number).is_some_and(|there| *there.key != *key) {
            number = following(number);
        }
        number
    }

    /// The known node of this key that `fits`, or a new one.
    pub(super) fn node(
        &self,
        key: &str,
        fits: impl Fn(&FlatNode) -> bool,
        new: impl FnOnce(u64, Arc<str>) -> FlatNode,
    ) -> Arc<FlatNode> {
        // Dropped after the lock is: the last reference to a node asks for it.
        let mut replaced = None;
        let mut live = self.live.lock();
        let mut number = match key {
            "" => ROOT,
            key => hash(key),
        };
        let node = loop {
            match live.get_mut(&number) {
                Some(there) if *there.key != *key => number = following(number),
                Some(there) => {
                    if let Some(node) = there.node.upgrade() {
                        if fits(&node) {
                            break node;
                        }
                        replaced = Some(node);
                    }
                    let node = Arc::new(new(number, there.key.clone()));
                    there.node = Arc::downgrade(&node);
                    break node;
                }
                None => {
                    let key: Arc<str> = key.into();
                    let node = Arc::new(new(number, key.clone()));
                    let weak = Arc::downgrade(&node);
                    live.insert(number, Live { key, node: weak });
                    break node;
                }
            }
        };
        drop(live);
        drop(replaced);
        node
    }

    /// A node with this number is no more.
    pub(super) fn forget(&self, number: u64) {
        let mut live = self.live.lock();
        // A newer version of the file may have taken its place.
        if live
            .get(&number)
            .is_some_and(|there| there.node.strong_count() == 0)
        {
            live.remove(&number);
        }
    }

    /// How many files are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live.lock().len()
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
        numbers.live.lock().insert(own, other);
        assert_eq!(numbers.number("a/b"), following(own));
        numbers.forget(own);
        assert_eq!(numbers.number("a/b"), own);
        assert_eq!(numbers.number(""), ROOT);
    }
}
