//! What was found out about names a moment ago.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::names::Child;
use super::posix::Posix;
use crate::store::ListedObject;

/// Names that were looked up one by one, or listed in a directory that was too large to keep.
const NAMES: usize = 50_000;
/// Names of listings that are kept as a whole.
const LISTED: usize = 100_000;
/// A larger listing is not kept as a whole.
pub(super) const LARGEST_LISTING: usize = 10_000;
/// Changes of our own that are remembered for listings that are on their way.
const CHANGES: usize = 4096;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    File(ListedObject, Option<Posix>),
    Directory,
    Nothing,
}

/// Answers that are believed for a while: of lookups and of listings.
#[derive(Debug)]
pub(super) struct Known {
    lifetime: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the whole key, without a `/` at its end.
    names: Bounded<Arc<str>, (Instant, Found)>,
    /// By the directory's key.
    listings: Bounded<Arc<str>, Arc<Listing>>,
    listed: usize,
    /// The last changes of our own, in their order.
    changes: VecDeque<Change>,
    /// When the last one of those was made that are not among them any more.
    forgotten: Option<Instant>,
}

/// A name that was changed by ourselves: a listing that began before may have missed it.
#[derive(Debug)]
struct Change {
    at: Instant,
    directory: Arc<str>,
    name: Box<str>,
    /// What the name stands for now.
    found: Found,
}

/// A whole directory.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) at: Instant,
    /// Sorted by name.
    pub(super) children: Vec<Child>,
}

impl Listing {
    /// Makes a name what it was changed to.
    fn change(&mut self, name: &str, found: Found) {
        let object = match found {
            Found::File(object, _) => Some(object),
            Found::Directory => None,
            Found::Nothing => {
                self.children.retain(|child| *child.name != *name);
                return;
            }
        };
        let find = |child: &Child| (*child.name).cmp(name);
        match self.children.binary_search_by(find) {
            Ok(place) => {
                if let Some(child) = self.children.get_mut(place) {
                    child.object = object;
                }
            }
            Err(place) => {
                let name = name.into();
                self.children.insert(place, Child { name, object });
            }
        }
    }

    fn find(&self, name: &str) -> Found {
        let place = self
            .children
            .binary_search_by(|child| (*child.name).cmp(name));
        match place.ok().and_then(|place| self.children.get(place)) {
            Some(Child { object: None, .. }) => Found::Directory,
            Some(Child {
                object: Some(object),
                ..
            }) => Found::File(object.clone(), None),
            None => Found::Nothing,
        }
    }
}

impl Known {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            state: Mutex::default(),
        }
    }

    fn is_fresh(&self, at: Instant) -> bool {
        at.elapsed() < self.lifetime
    }

    /// What is known of a name in a directory, and since when.
    pub(super) fn find(&self, directory: &str, name: &str, key: &str) -> Option<(Instant, Found)> {
        let mut state = self.state.lock();
        if let Some((at, found)) = state.names.get(key)
            && self.is_fresh(*at)
        {
            return Some((*at, found.clone()));
        }
        let listing = state.listings.get(directory)?;
        self.is_fresh(listing.at)
            .then(|| (listing.at, listing.find(name)))
    }

    /// Keeps what a lookup or a page of a listing found `at` this time.
    pub(super) fn learn(&self, key: &str, at: Instant, found: Found) {
        if self.lifetime.is_zero() {
            return;
        }
        let mut state = self.state.lock();
        // A change of our own may have been quicker.
        if state.names.get(key).is_some_and(|(there, _)| *there > at) {
            return;
        }
        // A listing does not say what a look at the object said.
        if let Found::File(object, None) = &found
            && let Some((_, Found::File(there, Some(posix)))) = state.names.get(key)
            && there == object
        {
            let found = Found::File(there.clone(), Some(*posix));
            state.names.insert(key.into(), (at, found));
            return;
        }
        state.names.insert(key.into(), (at, found));
        while state.names.len() > NAMES {
            state.names.remove_oldest();
        }
    }

    /// The object behind a key is not what was known.
    pub(super) fn unlearn(&self, directory: &str, key: &str) {
        let mut state = self.state.lock();
        state.names.remove(key);
        if let Some(listing) = state.listings.remove(directory) {
            state.listed = state.listed.saturating_sub(listing.children.len());
        }
    }

    /// A name was changed by ourselves: what is known of its directory goes on to hold.
    pub(super) fn change(&self, directory: &str, name: &str, key: &str, found: Found) {
        let at = Instant::now();
        self.learn(key, at, found.clone());
        let mut state = self.state.lock();
        if let Some(listing) = state.listings.get(directory) {
            let before = listing.children.len();
            if self.is_fresh(listing.at) && before < LARGEST_LISTING {
                let listing = Arc::make_mut(listing);
                listing.change(name, found.clone());
                let after = listing.children.len();
                state.listed = state.listed.saturating_add(after).saturating_sub(before);
            } else {
                state.listings.remove(directory);
                state.listed = state.listed.saturating_sub(before);
            }
        }
        if state.changes.len() >= CHANGES {
            state.forgotten = state.changes.pop_front().map(|change| change.at);
        }
        state.changes.push_back(Change {
            at,
            directory: directory.into(),
            name: name.into(),
            found,
        });
    }

    /// Nothing is known any more.
    pub(super) fn forget_all(&self) {
        *self.state.lock() = State {
            forgotten: Some(Instant::now()),
            ..State::default()
        };
    }

    /// The whole of a directory, if it was listed a moment ago.
    pub(super) fn listing(&self, directory: &str) -> Option<Arc<Listing>> {
        let mut state = self.state.lock();
        let listing = state.listings.get(directory)?;
        self.is_fresh(listing.at).then(|| listing.clone())
    }

    /// Keeps a whole directory, which was listed from `at` on, with what we changed in it meanwhile.
    pub(super) fn learn_listing(&self, directory: &str, at: Instant, mut children: Vec<Child>) {
        if self.lifetime.is_zero() || children.len() > LARGEST_LISTING {
            return;
        }
        children.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut listing = Listing { at, children };
        let mut state = self.state.lock();
        if state.forgotten.is_some_and(|forgotten| forgotten >= at) {
            return;
        }
        let missed = |change: &&Change| change.at >= at && *change.directory == *directory;
        for change in state.changes.iter().filter(missed) {
            listing.change(&change.name, change.found.clone());
        }
        state.listed = state.listed.saturating_add(listing.children.len());
        let replaced = state.listings.insert(directory.into(), Arc::new(listing));
        if let Some(replaced) = replaced {
            state.listed = state.listed.saturating_sub(replaced.children.len());
        }
        while state.listed > LISTED || state.listings.len() > LISTED / 10 {
            match state.listings.remove_oldest() {
                Some(removed) => {
                    state.listed = state.listed.saturating_sub(removed.children.len());
                }
                None => break,
            }
        }
    }
}

/// A map that knows which entry was used the longest time ago.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    entries: HashMap<K, (u64, V)>,
    used: BTreeMap<u64, K>,
    clock: u64,
    /// Goes below all that the clock shows.
    unused: u64,
}

/// What the clock begins with.
const BEGIN: u64 = 1 << 63;

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            used: BTreeMap::new(),
            clock: BEGIN,
            unused: 0,
        }
    }
}

impl<K: std::hash::Hash + Eq + Clone, V> Bounded<K, V> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        let (used, value) = self.entries.get_mut(key)?;
        if let Some(key) = self.used.remove(used) {
            self.clock = self.clock.wrapping_add(1);
            *used = self.clock;
            self.used.insert(self.clock, key);
        }
        Some(value)
    }

    /// As [`get`](Self::get), which does not count as use.
    pub(super) fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        Some(&self.entries.get(key)?.1)
    }

    pub(super) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.entries.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.clock = self.clock.wrapping_add(1);
        self.used.insert(self.clock, key.clone());
        let (used, value) = self.entries.insert(key, (self.clock, value))?;
        self.used.remove(&used);
        Some(value)
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        let (used, value) = self.entries.remove(key)?;
        self.used.remove(&used);
        Some(value)
    }

    /// Counts it as if it had not been used at all.
    pub(super) fn make_oldest<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        if let Some((used, _)) = self.entries.get_mut(key)
            && let Some(key) = self.used.remove(used)
        {
            self.unused = self.unused.wrapping_add(1);
            *used = self.unused;
            self.used.insert(self.unused, key);
        }
    }

    pub(super) fn remove_oldest(&mut self) -> Option<V> {
        Some(self.take_oldest()?.1)
    }

    /// As [`remove_oldest`](Self::remove_oldest), with its key.
    pub(super) fn take_oldest(&mut self) -> Option<(K, V)> {
        let (_, key) = self.used.pop_first()?;
        let (_, value) = self.entries.remove(&key)?;
        Some((key, value))
    }

    /// The keys, those used the longest time ago first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = &K> {
        self.used.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut map = Bounded::default();
        for key in ["a", "b", "c"] {
            map.insert(key, key.len());
        }
        map.get("a");
        map.insert("b", 7);
        assert_eq!(map.oldest().copied().collect::<Vec<_>>(), ["c", "a", "b"]);
        for key in ["b", "a"] {
            map.make_oldest(key);
        }
        assert_eq!(map.oldest().copied().collect::<Vec<_>>(), ["b", "a", "c"]);
        for key in ["a", "b"] {
            map.get(key);
        }
        map.remove_oldest();
        assert_eq!(map.remove("a"), Some(1));
        assert_eq!(
            (map.len(), map.peek("c"), map.peek("b")),
            (1, None, Some(&7))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_answers_for_names_that_are_and_are_not_until_it_is_old() {
        let known = Known::new(Duration::from_secs(1));
        let child = Child {
            name: "b".into(),
            object: None,
        };
        let now = Instant::now();
        known.learn_listing("d/", now, vec![child]);
        assert_eq!(known.find("d/", "b", "d/b"), Some((now, Found::Directory)));
        assert_eq!(known.find("d/", "c", "d/c"), Some((now, Found::Nothing)));
        assert_eq!(known.find("e/", "c", "e/c"), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(known.find("d/", "b", "d/b"), None);
        assert!(known.listing("d/").is_none());
    }
    #[tokio::test(start_paused = true)]
    async fn a_listing_that_missed_changes_of_our_own_has_them_all_the_same() {
        let known = Known::new(Duration::from_secs(1));
        let child = |name: &str| Child {
            name: name.into(),
            object: None,
        };
        let change = |name: &str, found| known.change("d/", name, &format!("d/{name}"), found);
        change("before", Found::Directory);
        tokio::time::advance(Duration::from_millis(1)).await;
        let begun = Instant::now();
        change("made", Found::Directory);
        change("gone", Found::Nothing);
        known.change("e/", "other", "e/other", Found::Directory);
        known.learn_listing("d/", begun, vec![child("gone"), child("there")]);
        change("later", Found::Directory);
        let names = || {
            let listing = known.listing("d/")?;
            let names = listing.children.iter().map(|child| child.name.to_string());
            Some(names.collect::<Vec<_>>())
        };
        assert_eq!(names().unwrap(), ["later", "made", "there"]);
        // More than are remembered: whether it missed one is not known.
        for number in 0..=CHANGES {
            change(&number.to_string(), Found::Nothing);
        }
        known.unlearn("d/", "");
        known.learn_listing("d/", begun, Vec::new());
        assert_eq!(names(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        known.learn_listing("d/", Instant::now(), Vec::new());
        assert_eq!(names().unwrap(), Vec::<String>::new());
    }
}
