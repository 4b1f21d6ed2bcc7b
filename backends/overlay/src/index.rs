//! Files of lower layers that have several names, and are in the upper by now.
//!
//! All lower names of such a file find the one copy, by its inode number and layer: a directory
//! beside the work directory has it under that key. It is the overlay's own, not the kernel's, which
//! knows files by handles that only a directory of the host has.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use vfsd_backend::{Errno, Lookup, Name, Node, RenameFlags, Result};

use crate::merge::entries_of;
use crate::work::{Temporary, WorkDirectory, directory_in};

/// The name of its directory.
const DIRECTORY: &str = "vfsd-index";

/// Files of lower layers that have several names, and are in the upper by now.
pub(crate) struct Index {
    directory: Arc<dyn Node>,
    known: Mutex<HashSet<u64>>,
}

impl Index {
    /// Finds or makes it.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn open(outer: &Arc<dyn Node>) -> Result<Self> {
        let directory = directory_in(outer, DIRECTORY).await?;
        let entries = entries_of(&directory).await?;
        let number = |name: &[u8]| u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok();
        let known = entries.iter().filter_map(|entry| number(&entry.name));
        Ok(Self {
            known: Mutex::new(known.collect()),
            directory,
        })
    }

    /// The file with this key.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn find(&self, key: u64) -> Result<Option<Arc<dyn Node>>> {
        if !self.known.lock().contains(&key) {
            return Ok(None);
        }
        match self.directory.lookup(Name::new(&name(key))?).await? {
            Lookup::Found(entry) => Ok(Some(entry.node)),
            Lookup::Missing { .. } => Ok(None),
        }
    }

    /// Moves a file here from the work directory.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn enter(
        &self,
        work: &WorkDirectory,
        temporary: &Temporary,
        key: u64,
    ) -> Result<()> {
        let name = name(key);
        let (name, flags) = (Name::new(&name)?, RenameFlags::empty());
        work.rename_to(temporary, &self.directory, name, flags)
            .await?;
        self.known.lock().insert(key);
        Ok(())
    }

    /// Forgets a file that has no name any more.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn remove(&self, key: u64) -> Result<()> {
        if !self.known.lock().remove(&key) {
            return Ok(());
        }
        match self.directory.unlink(Name::new(&name(key))?).await {
            Err(error) if error.is(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

fn name(key: u64) -> Vec<u8> {
    format!("{key:x}").into_bytes()
}
