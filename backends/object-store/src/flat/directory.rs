//! An open directory, listed page by page.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use vfsd_backend::{Answer, DirEntry, DirSink, Directory, Entry, EntrySink, FileKind, Result};

use super::body::{Body, may_be_link};
use super::bucket::{Bucket, failed};
use super::content::Failure;
use super::known::{Bounded, Found, LARGEST_LISTING};
use super::names::{Child, Naming};
use crate::store::ListRequest;

/// Who asks for metadata within this time of a change may have been followed by another one of the same second.
const RECENT: Duration = Duration::from_secs(2);

/// Cookies of `.` and `..`; the others follow in the order of the listing.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// An open directory. Reading from the beginning lists it anew.
pub(super) struct OpenDirectory {
    bucket: Arc<Bucket>,
    key: Arc<str>,
    number: u64,
    parent_number: u64,
    state: Arc<Mutex<State>>,
    /// Among all open directories.
    id: u64,
}

/// How far the listing has come.
#[derive(Debug, Default)]
struct State {
    /// The cookie of the first child in `children`, less one.
    before: u64,
    children: VecDeque<Child>,
    /// Whether all were kept since the beginning.
    whole: bool,
    begun: Option<Instant>,
    naming: Naming,
    /// Files that were only pending when the listing began: they come last, whatever the bucket says.
    pending: Vec<Child>,
    /// Directories that stay without an object, as long as the listing has not told them.
    kept: BTreeSet<Box<str>>,
    token: Option<String>,
    ended: bool,
}

impl State {
    fn new(directory: &str) -> Self {
        Self {
            before: DOT_DOT,
            whole: true,
            naming: Naming::new(directory),
            ..Self::default()
        }
    }

    /// Takes note of what is there besides objects as the listing begins.
    fn begin(&mut self, bucket: &Bucket, directory: &str, at: Instant) {
        self.begun = Some(at);
        let Some(writer) = &bucket.writer else {
            return;
        };
        let pending = writer.pending_in(directory).into_iter();
        self.pending = pending
            .filter_map(|node| match &node.body {
                Body::File(file) => Some(Child {
                    name: node.key().get(directory.len()..)?.into(),
                    object: Some(file.version().0),
                }),
                Body::Directory(_) => None,
            })
            .collect();
        self.pending
            .sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.kept = writer.kept_in(directory);
    }

    /// These are the next ones that the bucket has.
    fn add(&mut self, children: impl IntoIterator<Item = Child>) {
        for child in children {
            self.kept.remove(&child.name);
            if !self.is_pending(&child.name) {
                self.children.push_back(child);
            }
        }
    }

    /// All children are there but those that are pending, or no object's.
    fn end(&mut self, bucket: &Bucket, directory: &str) {
        self.ended = true;
        if let Some(writer) = &bucket.writer {
            let mut kept = writer.kept_in(directory);
            match self.whole {
                // Some may have lost their last object meanwhile.
                true => {
                    for child in &self.children {
                        kept.remove(&child.name);
                    }
                }
                false => kept.retain(|name| self.kept.contains(name)),
            }
            kept.retain(|name| !self.is_pending(name));
            let directories = kept.into_iter().map(|name| Child { name, object: None });
            self.children.extend(directories);
        }
        self.children.extend(std::mem::take(&mut self.pending));
    }

    /// Whether a name was pending as the listing began.
    fn is_pending(&self, name: &str) -> bool {
        let place = self
            .pending
            .binary_search_by(|child| (*child.name).cmp(name));
        place.is_ok()
    }

    /// The cookie of the last child that is known.
    fn last(&self) -> u64 {
        self.before.saturating_add(count(self.children.len()))
    }

    /// The children after a cookie, each with its own.
    fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Child)> {
        let skip = usize::try_from(cookie.saturating_sub(self.before)).unwrap_or(usize::MAX);
        let numbers = self.before.saturating_add(1)..;
        numbers.zip(&self.children).skip(skip)
    }

    /// Whether what follows a cookie can be told without a request.
    fn has(&self, cookie: u64) -> bool {
        self.begun.is_some() && cookie >= self.before && (self.ended || cookie < self.last())
    }
}

/// Open directories that keep names. A guest may hold many open: those used the longest time ago
/// keep none, and list again when they are read on.
#[derive(Debug, Default)]
pub(super) struct Listings {
    last: AtomicU64,
    keeping: parking_lot::Mutex<Keeping>,
}

#[derive(Debug, Default)]
struct Keeping {
    names: usize,
    directories: Bounded<u64, (usize, Weak<Mutex<State>>)>,
}

/// How many names all open directories keep together.
const KEPT: usize = 50_000;

impl Listings {
    fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// This one keeps so many names now.
    fn used(&self, id: u64, names: usize, state: &Arc<Mutex<State>>) {
        let mut keeping = self.keeping.lock();
        // A directory without names has a state, too.
        let names = names.saturating_add(8);
        let replaced = keeping
            .directories
            .insert(id, (names, Arc::downgrade(state)));
        let before = replaced.map_or(0, |(names, _)| names);
        keeping.names = keeping.names.saturating_add(names).saturating_sub(before);
        while keeping.names > KEPT && keeping.directories.len() > 1 {
            let Some((names, oldest)) = keeping.directories.remove_oldest() else {
                return;
            };
            keeping.names = keeping.names.saturating_sub(names);
            // One that is being read is used, whatever the order says.
            if let Some(state) = oldest.upgrade()
                && let Ok(mut state) = state.try_lock()
            {
                *state = State::default();
            }
        }
    }

    fn closed(&self, id: u64) {
        let mut keeping = self.keeping.lock();
        if let Some((names, _)) = keeping.directories.remove(&id) {
            keeping.names = keeping.names.saturating_sub(names);
        }
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        self.bucket.listings.closed(self.id);
    }
}

impl OpenDirectory {
    pub(super) fn new(bucket: Arc<Bucket>, key: Arc<str>, number: u64, parent: &str) -> Self {
        Self {
            parent_number: bucket.numbers.number(parent),
            id: bucket.listings.next_id(),
            bucket,
            key,
            number,
            state: Arc::default(),
        }
    }

    /// The state in which the children after `cookie` are there, or the end is.
    fn ready(&self, cookie: u64) -> Option<OwnedMutexGuard<State>> {
        let mut state = self.state.clone().try_lock_owned().ok()?;
        if cookie == 0 {
            let listing = self.bucket.known.listing(&self.key)?;
            let mut known = State::new(&self.key);
            known.begin(&self.bucket, &self.key, listing.at);
            known.add(listing.children.iter().cloned());
            known.end(&self.bucket, &self.key);
            *state = known;
            let names = state.children.len();
            self.bucket.listings.used(self.id, names, &self.state);
        }
        state.has(cookie.max(DOT_DOT)).then_some(state)
    }

    async fn wait(&self, cookie: u64) -> Result<OwnedMutexGuard<State>> {
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let (state, id) = (self.state.clone(), self.id);
        self.bucket
            .run(async move {
                let mut state = state.lock_owned().await;
                let target = cookie.max(DOT_DOT);
                // From the beginning, or to where nothing is kept of any more.
                if cookie == 0 || state.begun.is_none() || target < state.before {
                    *state = State::new(&key);
                }
                while !state.has(target) && !state.ended {
                    list_on(&bucket, &key, &mut state).await?;
                }
                let held = OwnedMutexGuard::mutex(&state);
                bucket.listings.used(id, state.children.len(), held);
                Ok(state)
            })
            .await
    }

    fn dots(&self) -> [(u64, &'static [u8], u64); 2] {
        [
            (DOT, b".", self.number),
            (DOT_DOT, b"..", self.parent_number),
        ]
    }

    /// Tells what follows `cookie` of what is there. False if there was no room.
    fn tell(
        &self,
        state: &State,
        cookie: u64,
        tell: &mut dyn FnMut(&DirEntry<'_>, Option<&Child>) -> bool,
    ) {
        for (own, name, inode) in self.dots() {
            let entry = DirEntry {
                name,
                inode,
                kind: Some(FileKind::Directory),
                next: own,
            };
            if own > cookie && !tell(&entry, None) {
                return;
            }
        }
        for (own, child) in state.after(cookie.max(DOT_DOT)) {
            let (kind, slash) = match &child.object {
                // Where links are made, a listing does not tell whether it is one.
                Some(object) if self.bucket.writer.is_some() && may_be_link(object) => (None, ""),
                Some(_) => (Some(FileKind::Regular), ""),
                None => (Some(FileKind::Directory), "/"),
            };
            let key = format!("{}{}{slash}", self.key, child.name);
            let entry = DirEntry {
                name: child.name.as_bytes(),
                inode: self.bucket.numbers.number(&key),
                kind,
                next: own,
            };
            if !tell(&entry, Some(child)) {
                return;
            }
        }
    }

    fn names(&self, state: &State, cookie: u64, sink: &mut dyn DirSink) {
        self.tell(state, cookie, &mut |entry, _| {
            sink.entry(entry) == ControlFlow::Continue(())
        });
    }

    fn entries(&self, state: &State, cookie: u64, sink: &mut dyn EntrySink) {
        let at = state.begun.unwrap_or_else(Instant::now);
        self.tell(state, cookie, &mut |entry, child| {
            if !sink.has_room(entry.name) {
                return false;
            }
            let found = child.and_then(|child| self.entry_of(child, at));
            sink.entry(entry, found);
            true
        });
    }

    fn entry_of(&self, child: &Child, at: Instant) -> Option<Entry> {
        let node = match &child.object {
            Some(object) => {
                let key = &object.key;
                let pending = self.bucket.writer.as_ref().and_then(|own| own.pending(key));
                if let Some(node) = pending {
                    return Some(node.entry());
                }
                // A look at the object may have told more than the listing does.
                let posix = match self.bucket.known.find(&self.key, &child.name, key) {
                    Some((_, Found::File(there, posix))) if there == *object => posix,
                    _ => None,
                };
                let node = self.bucket.file(object, posix, at).ok()?;
                if let (None, Body::File(file)) = (posix, &node.body)
                    && file.posix().is_some()
                    && !file.is_told(object, RECENT)
                {
                    return None;
                }
                node
            }
            None => self
                .bucket
                .directory(&format!("{}{}/", self.key, child.name)),
        };
        node.is_known().then(|| node.entry())
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Lists one more page.
async fn list_on(bucket: &Bucket, key: &str, state: &mut State) -> Result<()> {
    let at = Instant::now();
    if state.begun.is_none() {
        state.begin(bucket, key, at);
    }
    let begun = state.begun.unwrap_or(at);
    let request = ListRequest {
        prefix: bucket.full_key(key),
        delimited: true,
        token: state.token.clone(),
        ..ListRequest::default()
    };
    let before = state.token.clone();
    let page = bucket.own_page(bucket.store.list(&request).await.map_err(failed)?);
    bucket.seen(key, at, &page);
    state.token = page.next.clone();
    let ended = page.next.is_none();
    if before.is_some() && before == state.token {
        // It would never end.
        return Err(Failure::Failed("a listing goes round in circles".to_owned()).into());
    }
    let children = state.naming.page(page);
    let large = state.children.len().saturating_add(children.len()) > LARGEST_LISTING;
    if large || !state.whole {
        // Names are remembered one by one, and only the last page is kept here.
        let was_whole = std::mem::replace(&mut state.whole, false);
        let kept = std::mem::take(&mut state.children);
        state.before = state.before.saturating_add(count(kept.len()));
        for child in kept.into_iter().filter(|_| was_whole) {
            learn(bucket, key, child, at);
        }
        for child in &children {
            learn(bucket, key, child.clone(), at);
        }
    }
    state.add(children);
    if ended {
        finish(bucket, key, state, begun);
        state.end(bucket, key);
    }
    Ok(())
}

fn learn(bucket: &Bucket, directory: &str, child: Child, at: Instant) {
    let key = format!("{directory}{}", child.name);
    let found = match child.object {
        Some(object) => Found::File(object, None),
        None => Found::Directory,
    };
    bucket.known.learn(&key, at, found);
}

/// The end of a listing was reached.
fn finish(bucket: &Bucket, key: &str, state: &mut State, begun: Instant) {
    // Those that were pending are left out of it.
    if state.whole && state.pending.is_empty() {
        let children = state.children.iter().cloned().collect();
        bucket.known.learn_listing(key, begun, children);
    }
    if let Some(example) = state.naming.example.take() {
        bucket.hide(key, state.naming.hidden, &example);
    }
}

impl Directory for OpenDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        if let Some(state) = self.ready(cookie) {
            self.names(&state, cookie, sink);
            return Answer::ok(());
        }
        Answer::later(async move {
            let state = self.wait(cookie).await?;
            self.names(&state, cookie, sink);
            Ok(())
        })
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        if let Some(state) = self.ready(cookie) {
            self.entries(&state, cookie, sink);
            return Answer::ok(());
        }
        Answer::later(async move {
            let state = self.wait(cookie).await?;
            self.entries(&state, cookie, sink);
            Ok(())
        })
    }
}
