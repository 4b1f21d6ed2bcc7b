//! The files that a plugin has told of: how they are called here, there, and by name.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vfsd_backend::{Errno, FileKind, Name, Result};
use vfsd_fuse::wire::{EntryOut, NodeId};
use vfsd_fuse::{Opcode, ROOT_ID};

use crate::link::Link;
use crate::reply::{Breach, Checked, Found, Named, named};
use crate::request::{Request, Undo};
use crate::shared::Shared;

/// Names by which a file with hard links is known. More are not needed to find it again.
const MAX_NAMES: usize = 8;

/// The longest path, in names, by which a file is found again.
const MAX_DEPTH: usize = 4096;

/// A file that a plugin has told of. It keeps its own number here over all plugins that come and go.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its number here.
    pub(crate) id: u64,
    pub(crate) kind: FileKind,
    pub(crate) shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where it is; the last is tried first. Empty for the root, and for a file without a name.
    names: Vec<Place>,
    /// The link for which the number counts; 0 is none.
    generation: u64,
    /// The plugin's number.
    number: NodeId,
    /// How often the plugin has told of it.
    lookups: u64,
    inode: u64,
}

#[derive(Debug, Clone)]
struct Place {
    parent: Arc<Record>,
    name: Box<[u8]>,
}

impl Place {
    fn key(&self) -> Key {
        (self.parent.id, self.name.clone())
    }
}

/// A directory's number here, and a name in it.
type Key = (u64, Box<[u8]>);

/// All records.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    generation: u64,
    by_number: HashMap<NodeId, Known>,
    by_name: HashMap<Key, Known>,
}

/// A record, and its number here.
#[derive(Debug, Clone)]
struct Known {
    id: u64,
    record: Weak<Record>,
}

impl Known {
    fn of(record: &Arc<Record>) -> Self {
        Self {
            id: record.id,
            record: Arc::downgrade(record),
        }
    }
}

impl Record {
    fn new(shared: &Arc<Shared>, kind: FileKind) -> Arc<Self> {
        Arc::new(Self {
            id: shared.next_record(),
            kind,
            shared: Arc::clone(shared),
            state: Mutex::default(),
        })
    }

    /// The root, which every plugin knows by the same number.
    pub(crate) fn root(shared: &Arc<Shared>, kind: FileKind) -> Arc<Self> {
        let root = Self::new(shared, kind);
        root.state.lock().number = ROOT_ID;
        root
    }

    /// The plugin's number, if it knows the file.
    fn number_at(&self, link: &Link) -> Option<NodeId> {
        let state = self.state.lock();
        (state.generation == link.generation || state.number == ROOT_ID).then_some(state.number)
    }

    fn place(&self) -> Option<Place> {
        self.state.lock().names.last().cloned()
    }

    /// The plugin's number. If the plugin has come back since, it is found again by its names from the root on.
    ///
    /// # Errors
    /// ESTALE for what is not there any more, or is another file; EIO.
    pub(crate) async fn bind(self: &Arc<Self>, link: &Arc<Link>) -> Result<NodeId> {
        if let Some(number) = self.number_at(link) {
            return Ok(number);
        }
        let mut path = Vec::new();
        let mut at = Arc::clone(self);
        let mut number = loop {
            if let Some(number) = at.number_at(link) {
                break number;
            }
            let place = at.place().filter(|_| path.len() < MAX_DEPTH);
            let Place { parent, name } = place.ok_or(Errno::STALE)?;
            path.push((std::mem::replace(&mut at, parent), name));
        };
        while let Some((record, name)) = path.pop() {
            let name = Name::new(&name)?;
            let found = match look_up(link, number, name).await {
                Ok(Named::Found(found)) => found,
                Ok(Named::Missing(_)) => return Err(Errno::STALE.into()),
                Err(error) if error.is(Errno::NOENT) => return Err(Errno::STALE.into()),
                Err(error) => return Err(error),
            };
            let there = link.checked(adopt(&at, Some(name), link, &found))?;
            if there.id != record.id {
                return Err(Errno::STALE.into());
            }
            number = found.number;
            at = there;
        }
        Ok(number)
    }

    /// Takes the record out of the tables and tells the plugin. Gives what has to be dropped.
    fn detach(&mut self) -> Vec<Place> {
        let state = std::mem::take(self.state.get_mut());
        {
            let mut tables = self.shared.tables.lock();
            for place in &state.names {
                tables.forget_name(&place.key(), self.id);
            }
            let known = tables.by_number.get(&state.number);
            if known.is_some_and(|known| known.id == self.id) {
                tables.by_number.remove(&state.number);
            }
        }
        if state.lookups != 0
            && let Ok(link) = self.shared.link()
            && link.generation == state.generation
        {
            link.forget(state.number, state.lookups);
        }
        state.names
    }
}

impl Drop for Record {
    /// Goes up to the root by a loop, because a path may be as long as a guest likes.
    fn drop(&mut self) {
        let mut rest = self.detach();
        while let Some(place) = rest.pop() {
            if let Some(mut parent) = Arc::into_inner(place.parent) {
                rest.extend(parent.detach());
            }
        }
    }
}

impl Tables {
    fn forget_name(&mut self, key: &Key, id: u64) {
        if self.by_name.get(key).is_some_and(|known| known.id == id) {
            self.by_name.remove(key);
        }
    }

    /// The record that a name leads to. To be dropped when the tables are not locked any more.
    fn named(&self, key: &Key) -> Option<Arc<Record>> {
        self.by_name
            .get(key)
            .and_then(|known| known.record.upgrade())
    }

    /// Takes a name away from the record that has it.
    fn take_name(&mut self, key: &Key) -> (Option<Arc<Record>>, Vec<Place>) {
        let record = self.named(key);
        self.by_name.remove(key);
        let dropped = record.as_ref().map_or_else(Vec::new, |record| {
            let mut state = record.state.lock();
            state
                .names
                .extract_if(.., |place| place.key() == *key)
                .collect()
        });
        (record, dropped)
    }

    /// Gives a name to a record. Gives what has to be dropped when the tables are not locked any more.
    fn give_name(&mut self, record: &Arc<Record>, place: Place) -> Vec<Place> {
        let mut dropped = Vec::new();
        let mut gone = Vec::new();
        {
            let mut state = record.state.lock();
            let most = match record.kind {
                FileKind::Directory => 1,
                _ => MAX_NAMES,
            };
            while state.names.len() >= most {
                gone.push(state.names.remove(0));
            }
            self.by_name.insert(place.key(), Known::of(record));
            state.names.push(place);
        }
        for place in gone {
            self.forget_name(&place.key(), record.id);
            dropped.push(place);
        }
        dropped
    }
}

/// Whether a directory is, or is below, another.
fn is_below(directory: &Arc<Record>, ancestor: &Record) -> (bool, Vec<Place>) {
    let mut seen = Vec::new();
    let mut id = directory.id;
    let mut next = directory.place();
    while id != ancestor.id {
        match next {
            Some(place) if seen.len() < MAX_DEPTH => {
                id = place.parent.id;
                next = place.parent.place();
                seen.push(place);
            }
            // A path this long is no path that is found again.
            _ => return (next.is_some(), seen),
        }
    }
    (true, seen)
}

/// The record of a file that a plugin has told of, as what a name leads to, if it has one.
///
/// # Errors
/// When the plugin had said something else of it.
pub(crate) fn adopt(
    parent: &Arc<Record>,
    name: Option<Name<'_>>,
    link: &Link,
    found: &Found,
) -> Checked<Arc<Record>> {
    let shared = &parent.shared;
    let kind = found.attributes.kind;
    // Dropped last: no record may go while the tables are locked.
    let mut dropped: Vec<Place> = Vec::new();
    let mut held: Vec<Arc<Record>> = Vec::new();
    let mut tables = shared.tables.lock();
    if tables.generation < link.generation {
        tables.generation = link.generation;
        tables.by_number.clear();
    } else if tables.generation > link.generation {
        return Err(Breach("a reply comes after another plugin's"));
    }
    let place = name.map(|name| Place {
        parent: Arc::clone(parent),
        name: name.as_bytes().into(),
    });
    let key = place.as_ref().map(Place::key);
    let known = tables.by_number.get(&found.number);
    let known = known.and_then(|known| known.record.upgrade());
    let by_name = key.as_ref().and_then(|key| tables.named(key));
    held.extend(by_name.iter().cloned());
    held.extend(known.iter().cloned());
    let again = |old: &Arc<Record>| {
        let state = old.state.lock();
        let unbound = state.generation != link.generation;
        unbound && old.kind == kind && state.inode == found.attributes.inode
    };
    let record = match known {
        Some(known) if known.kind != kind => {
            return Err(Breach("one file has two types"));
        }
        Some(known) => known,
        None => match by_name.clone().filter(again) {
            Some(old) => old,
            None => Record::new(shared, kind),
        },
    };
    held.push(Arc::clone(&record));
    let is_new_name = by_name.is_none_or(|old| {
        let other = old.id != record.id;
        held.push(old);
        other
    });
    if let (Some(place), Some(key), true) = (place, key, is_new_name) {
        if kind == FileKind::Directory {
            let (below, seen) = is_below(parent, &record);
            dropped.extend(seen);
            if below {
                dropped.push(place);
                return Err(Breach("a directory is inside itself"));
            }
        }
        let (old, gone) = tables.take_name(&key);
        held.extend(old);
        dropped.extend(gone);
        dropped.extend(tables.give_name(&record, place));
    }
    {
        let mut state = record.state.lock();
        if state.generation != link.generation {
            state.generation = link.generation;
            state.lookups = 0;
        }
        state.number = found.number;
        state.lookups = state.lookups.saturating_add(1);
        state.inode = found.attributes.inode;
    }
    tables.by_number.insert(found.number, Known::of(&record));
    drop(tables);
    Ok(record)
}

/// A name is gone.
pub(crate) fn name_removed(parent: &Arc<Record>, name: Name<'_>) {
    let key = (parent.id, name.as_bytes().into());
    let gone = parent.shared.tables.lock().take_name(&key);
    drop(gone);
}

/// A name was moved, or exchanged with another.
pub(crate) fn name_moved(
    from: (&Arc<Record>, Name<'_>),
    to: (&Arc<Record>, Name<'_>),
    exchange: bool,
) {
    let place = |(parent, name): (&Arc<Record>, Name<'_>)| Place {
        parent: Arc::clone(parent),
        name: name.as_bytes().into(),
    };
    let (old, new) = (place(from), place(to));
    let mut dropped: Vec<Place> = Vec::new();
    let mut held: Vec<Arc<Record>> = Vec::new();
    let mut tables = from.0.shared.tables.lock();
    let (moved, gone) = tables.take_name(&old.key());
    dropped.extend(gone);
    let (replaced, gone) = tables.take_name(&new.key());
    dropped.extend(gone);
    let mut give = |record: Option<Arc<Record>>, place: Place| {
        let Some(record) = record else {
            dropped.push(place);
            return;
        };
        let inside = record.kind == FileKind::Directory && {
            let (below, seen) = is_below(&place.parent, &record);
            dropped.extend(seen);
            below
        };
        // A plugin that says so lies; the file is then not found again.
        if inside {
            dropped.push(place);
        } else {
            dropped.extend(tables.give_name(&record, place));
        }
        held.push(record);
    };
    give(moved, new);
    if exchange {
        give(replaced, old);
    } else {
        held.extend(replaced);
        dropped.push(old);
    }
    drop(tables);
}

/// Asks what a name in a directory leads to.
pub(crate) async fn look_up(link: &Arc<Link>, parent: NodeId, name: Name<'_>) -> Result<Named> {
    let request = Request::new(Opcode::Lookup, parent)
        .name(name)
        .fixed::<EntryOut>()
        .undo(Undo::Entry);
    let body = link.ask(request).await?;
    link.checked(named(&body))
}
