//! The entries of all directories.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vfsd_backend::{Errno, Name};

use crate::inode::Inode;
use crate::space::Space;

/// What an entry costs beside the bytes of its name.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// Cookies of the entries that each directory has from the start.
pub(crate) const DOT_COOKIE: u64 = 1;
/// See [`DOT_COOKIE`].
pub(crate) const DOT_DOT_COOKIE: u64 = 2;

struct Slot {
    inode: Arc<Inode>,
    cookie: u64,
}

/// The entries of one directory.
pub(crate) struct Entries {
    /// Inode number of the directory above; the root is its own.
    parent: u64,
    by_name: HashMap<Arc<[u8]>, Slot>,
    /// The order of a listing: that of creation. A cookie is never used twice, so that a listing
    /// goes on where it was, whatever is made and removed meanwhile.
    by_cookie: BTreeMap<u64, Arc<[u8]>>,
    next_cookie: u64,
}

/// All directories that have a name, by inode number. One without an entry here was removed.
#[derive(Default)]
pub(crate) struct Namespace {
    directories: HashMap<u64, Entries>,
}

fn cost(name: &[u8]) -> u64 {
    u64::try_from(name.len())
        .unwrap_or(u64::MAX)
        .saturating_add(ENTRY_OVERHEAD_BYTES)
}

impl Entries {
    fn new(parent: u64) -> Self {
        Self {
            parent,
            by_name: HashMap::new(),
            by_cookie: BTreeMap::new(),
            next_cookie: DOT_DOT_COOKIE.saturating_add(1),
        }
    }

    pub(crate) fn parent(&self) -> u64 {
        self.parent
    }

    pub(crate) fn get(&self, name: Name<'_>) -> Option<&Arc<Inode>> {
        self.by_name.get(name.as_bytes()).map(|slot| &slot.inode)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Bytes that the directory seems to have.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.by_name.len())
            .unwrap_or(u64::MAX)
            .saturating_mul(ENTRY_OVERHEAD_BYTES)
    }

    /// A cookie that no entry has yet: all that will be made have it or greater ones.
    pub(crate) fn next_cookie(&self) -> u64 {
        self.next_cookie
    }

    /// Makes `name` stand for `inode`, and answers what it stood for before. An entry that changes
    /// its inode keeps its place in listings.
    ///
    /// # Errors
    /// ENOSPC when the name is new and there is no space for it.
    pub(crate) fn put(
        &mut self,
        name: Name<'_>,
        inode: Arc<Inode>,
        space: &Space,
    ) -> Result<Option<Arc<Inode>>, Errno> {
        if let Some(slot) = self.by_name.get_mut(name.as_bytes()) {
            return Ok(Some(std::mem::replace(&mut slot.inode, inode)));
        }
        space.charge(cost(name.as_bytes()))?;
        let bytes: Arc<[u8]> = name.as_bytes().into();
        let cookie = self.next_cookie;
        self.next_cookie = cookie.saturating_add(1);
        self.by_cookie.insert(cookie, bytes.clone());
        self.by_name.insert(bytes, Slot { inode, cookie });
        Ok(None)
    }

    /// Takes an entry away.
    pub(crate) fn remove(&mut self, name: Name<'_>, space: &Space) -> Option<Arc<Inode>> {
        let slot = self.by_name.remove(name.as_bytes())?;
        self.by_cookie.remove(&slot.cookie);
        space.refund(cost(name.as_bytes()));
        Some(slot.inode)
    }

    /// Up to `count` entries after the one with `cookie`, each with its own cookie.
    pub(crate) fn list(&self, cookie: u64, count: usize) -> Vec<(u64, Arc<[u8]>, Arc<Inode>)> {
        let Some(first) = cookie.checked_add(1) else {
            return Vec::new();
        };
        self.by_cookie
            .range(first..)
            .filter_map(|(&cookie, name)| {
                let slot = self.by_name.get(name)?;
                Some((cookie, name.clone(), slot.inode.clone()))
            })
            .take(count)
            .collect()
    }
}

impl Namespace {
    /// The entries of a directory.
    ///
    /// # Errors
    /// ENOENT when it was removed.
    pub(crate) fn entries(&self, directory: u64) -> Result<&Entries, Errno> {
        self.directories.get(&directory).ok_or(Errno::NOENT)
    }

    /// As [`entries`](Self::entries), to change them.
    pub(crate) fn entries_mut(&mut self, directory: u64) -> Result<&mut Entries, Errno> {
        self.directories.get_mut(&directory).ok_or(Errno::NOENT)
    }

    /// Notes a new, empty directory.
    pub(crate) fn add(&mut self, directory: u64, parent: u64) {
        self.directories.insert(directory, Entries::new(parent));
    }

    /// Forgets an empty directory.
    pub(crate) fn remove(&mut self, directory: u64) {
        self.directories.remove(&directory);
    }

    /// Notes that a directory has moved.
    pub(crate) fn set_parent(&mut self, directory: u64, parent: u64) {
        if let Some(entries) = self.directories.get_mut(&directory) {
            entries.parent = parent;
        }
    }

    /// Whether `ancestor` is `directory` or a directory above it.
    pub(crate) fn is_within(&self, directory: u64, ancestor: u64) -> bool {
        let mut at = directory;
        loop {
            if at == ancestor {
                return true;
            }
            match self.directories.get(&at) {
                Some(entries) if entries.parent != at => at = entries.parent,
                _ => return false,
            }
        }
    }
}
