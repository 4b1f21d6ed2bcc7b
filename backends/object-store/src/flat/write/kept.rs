//! Directories that stay without an object.
//!
//! A directory whose keys have no marker ends with the last of them. Who has removed that, and lists, moves or removes the
//! directory next, finds it all the same: it stays until it is removed, or this daemon ends. Where the bucket was seen to
//! have something below it since, it is as other clients leave it: they may empty it, and it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::below;

/// Directories that are remembered.
const MOST: usize = 50_000;

/// Directories of which we have removed an object, by their keys, and when that was the last time.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<Arc<str>, Instant>);

impl Kept {
    /// An object of it was removed, perhaps the last one.
    pub(super) fn keep(&mut self, directory: &str) {
        if self.0.len() < MOST || self.0.contains_key(directory) {
            self.0.insert(directory.into(), Instant::now());
        }
    }

    /// It is gone, or something else makes it a directory.
    pub(super) fn let_go(&mut self, directory: &str) {
        self.0.remove(directory);
    }

    /// The bucket was asked `at` this time what is below it, and has something.
    pub(super) fn has_objects(&mut self, directory: &str, at: Instant) {
        if self.0.get(directory).is_some_and(|kept| *kept < at) {
            self.0.remove(directory);
        }
    }

    /// Whether it stays: as one of these, or because one of these is below it.
    pub(super) fn is_kept(&self, directory: &str) -> bool {
        below(&self.0, directory).next().is_some()
    }

    /// The names of those right in a directory.
    pub(super) fn names_in(&self, directory: &str) -> BTreeSet<Box<str>> {
        below(&self.0, directory)
            .filter_map(|(key, _)| name_in(directory, key))
            .collect()
    }

    /// A directory has another key, which a marker makes one; what is below it moves along.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let moved: Vec<_> = below(&self.0, from).map(|(key, _)| key.clone()).collect();
        for key in moved {
            let kept = self.0.remove(&key);
            if let (Some(kept), Some(rest)) = (kept, key.strip_prefix(from))
                && !rest.is_empty()
            {
                self.0.insert(format!("{to}{rest}").into(), kept);
            }
        }
        self.let_go(to);
    }
}

/// The name of the directory right in a directory that a key is in or below.
pub(super) fn name_in(directory: &str, key: &str) -> Option<Box<str>> {
    let (name, _) = key.get(directory.len()..)?.split_once('/')?;
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(kept: &Kept, directory: &str) -> Vec<String> {
        let names = kept.names_in(directory).into_iter();
        names.map(String::from).collect()
    }

    #[test]
    fn what_is_above_a_kept_directory_is_kept_too_and_moves_with_it() {
        let mut kept = Kept::default();
        for directory in ["a/b/c/", "a/b/d/", "a.b/", "a/e/"] {
            kept.keep(directory);
        }
        assert_eq!(names(&kept, ""), ["a", "a.b"]);
        assert_eq!(names(&kept, "a/"), ["b", "e"]);
        assert!(kept.is_kept("a/b/") && !kept.is_kept("a/b/e/"));
        kept.rename("a/b/", "x/");
        assert_eq!(names(&kept, "x/"), ["c", "d"]);
        assert_eq!(names(&kept, "a/"), ["e"]);
        kept.let_go("a/e/");
        assert!(!kept.is_kept("a/"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_had_something_after_the_removal_is_left_to_the_bucket() {
        let mut kept = Kept::default();
        let before = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        kept.keep("a/");
        kept.has_objects("a/", before);
        assert!(kept.is_kept("a/"), "it was asked too early");
        tokio::time::advance(Duration::from_millis(1)).await;
        kept.has_objects("a/", Instant::now());
        assert!(!kept.is_kept("a/"));
    }
}
