//! Files of lower layers that have several names, and are in the upper by now.
//!
//! All lower names of such a file find the one copy. The kernel's overlayfs has it in `index` beside its work
//! directory, by the file handle of the lower file (`origin`) in hexadecimal digits, with `index=on`; so has this
//! one, where the lower layer has handles and the kernel could follow. Other copies are in a directory of our own,
//! by inode number and layer.

use std::collections::HashSet;
use std::fmt::Write;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use vfsd_backend::{Errno, FileKind, Lookup, Name, Node, RenameFlags, Result};

use crate::Namespace;
use crate::merge::entries_of;
use crate::origin::handle_of;
use crate::work::{Temporary, WorkDirectory, directory_in};
use crate::xattr::{INDEXED, ORIGIN};

/// The name of our own directory.
const OWN: &str = "vfsd-index";

/// The name of the kernel's.
const KERNELS: &str = "index";

/// Files of lower layers that have several names, and are in the upper by now.
pub(crate) struct Index {
    namespace: Namespace,
    /// The upper's root, which is marked: without the copies its files are not what they were.
    root: Arc<dyn Node>,
    is_marked: AtomicBool,
    /// By [`Number::key`](crate::numbers::Number).
    own: Copies<u64>,
    /// By `origin`. With `user.overlay.*` the kernel has none.
    kernels: Copies<Vec<u8>>,
    /// Whether an earlier run, or the kernel, has left a directory of them.
    is_there: bool,
}

/// A directory of copies, made when the first comes into it.
struct Copies<K> {
    outer: Arc<dyn Node>,
    directory: &'static str,
    name: fn(&K) -> String,
    known: Mutex<HashSet<K>>,
    node: OnceLock<Arc<dyn Node>>,
}

impl Index {
    /// Looks what is there.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn open(
        outer: &Arc<dyn Node>,
        root: &Arc<dyn Node>,
        namespace: Namespace,
    ) -> Result<Self> {
        let own = Copies {
            outer: outer.clone(),
            directory: OWN,
            name: |key| format!("{key:x}"),
            known: Mutex::default(),
            node: OnceLock::new(),
        };
        let mut is_there = own.read(|name| u64::from_str_radix(name, 16).ok()).await?;
        let kernels = Copies {
            outer: outer.clone(),
            directory: KERNELS,
            name: |origin: &Vec<u8>| hexadecimal(origin),
            known: Mutex::default(),
            node: OnceLock::new(),
        };
        is_there |= kernels.read(from_hexadecimal).await?;
        let is_marked = namespace.get(root.as_ref(), INDEXED).await?.is_some();
        Ok(Self {
            namespace,
            root: root.clone(),
            is_marked: AtomicBool::new(is_marked),
            is_there,
            own,
            kernels,
        })
    }

    /// The attribute of the upper's root that says of copies which are not here: they are in another work directory.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn lacking(&self) -> Result<Option<&'static str>> {
        if self.is_there {
            return Ok(None);
        }
        if self.is_marked.load(Ordering::Relaxed) {
            return Ok(Some(INDEXED));
        }
        // With `index=on`, and only then, the kernel notes which lower root it belongs to (ovl_get_indexdir).
        let noted = self.namespace.get(self.root.as_ref(), ORIGIN).await?;
        Ok(noted.map(|_| ORIGIN))
    }

    /// The copy of a lower file with this key.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn find(&self, key: u64, lower: &dyn Node) -> Result<Option<Arc<dyn Node>>> {
        if let Some(copy) = self.own.find(&key).await? {
            return Ok(Some(copy));
        }
        // A handle costs a call of the lower layer.
        if self.kernels.is_empty() {
            return Ok(None);
        }
        match handle_of(lower).await? {
            Some(origin) => self.kernels.find(&origin).await,
            None => Ok(None),
        }
    }

    /// Moves a copy here from the work directory. `origin` is what it says of the lower file.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn enter(
        &self,
        work: &WorkDirectory,
        temporary: &Temporary,
        key: u64,
        origin: Option<Vec<u8>>,
    ) -> Result<()> {
        match (origin, self.namespace) {
            (Some(origin), Namespace::Trusted) => {
                self.kernels.directory().await?;
                self.mark().await?;
                self.kernels.enter(work, temporary, origin).await
            }
            _ => {
                self.own.directory().await?;
                self.mark().await?;
                self.own.enter(work, temporary, key).await
            }
        }
    }

    /// Says in the upper that there are copies, when their directory is there and before the first of them is.
    async fn mark(&self) -> Result<()> {
        if !self.is_marked.load(Ordering::Relaxed) {
            let root = self.root.as_ref();
            self.namespace.set(root, INDEXED, b"y").await?;
            self.is_marked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets a copy that has no name any more.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn remove(&self, key: u64, copy: &dyn Node) -> Result<()> {
        self.own.remove(&key).await?;
        if self.kernels.is_empty() {
            return Ok(());
        }
        match self.namespace.get(copy, ORIGIN).await? {
            Some(origin) => self.kernels.remove(&origin).await,
            None => Ok(()),
        }
    }
}

impl<K: Eq + Hash> Copies<K> {
    /// Takes note of what an earlier run, or the kernel, has left, and says whether they did. Of other names nothing is
    /// known here.
    async fn read(&self, key: impl Fn(&str) -> Option<K>) -> Result<bool> {
        let name = Name::new(self.directory.as_bytes())?;
        let Lookup::Found(entry) = self.outer.lookup(name).await? else {
            return Ok(false);
        };
        let entries = entries_of(&entry.node).await?;
        let names = entries
            .names()
            .filter_map(|name| std::str::from_utf8(name).ok());
        self.known.lock().extend(names.filter_map(key));
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.known.lock().is_empty()
    }

    async fn directory(&self) -> Result<Arc<dyn Node>> {
        if let Some(node) = self.node.get() {
            return Ok(node.clone());
        }
        let node = directory_in(&self.outer, self.directory).await?;
        Ok(self.node.get_or_init(|| node).clone())
    }

    async fn find(&self, key: &K) -> Result<Option<Arc<dyn Node>>> {
        if !self.known.lock().contains(key) {
            return Ok(None);
        }
        let name = (self.name)(key);
        match self
            .directory()
            .await?
            .lookup(Name::new(name.as_bytes())?)
            .await?
        {
            // The kernel has directories there as well, and whiteouts, with `nfs_export`.
            Lookup::Found(entry) if entry.node.kind() != FileKind::Directory => {
                let whiteout = crate::whiteout::is_device(&entry.attributes);
                Ok((!whiteout).then_some(entry.node))
            }
            _ => Ok(None),
        }
    }

    async fn enter(&self, work: &WorkDirectory, temporary: &Temporary, key: K) -> Result<()> {
        let name = (self.name)(&key);
        let (name, flags) = (Name::new(name.as_bytes())?, RenameFlags::empty());
        work.rename_to(temporary, &self.directory().await?, name, flags)
            .await?;
        self.known.lock().insert(key);
        Ok(())
    }

    async fn remove(&self, key: &K) -> Result<()> {
        if !self.known.lock().remove(key) {
            return Ok(());
        }
        let name = (self.name)(key);
        match self
            .directory()
            .await?
            .unlink(Name::new(name.as_bytes())?)
            .await
        {
            Err(error) if error.is(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn from_hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                u8::try_from(digit(high)? << 4 | digit(low)?).ok()
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_digits_of_handles() {
        let handle = [0, 0xfb, 0x1d, 7];
        assert_eq!(hexadecimal(&handle), "00fb1d07");
        assert_eq!(from_hexadecimal("00fb1d07").as_deref(), Some(&handle[..]));
        for other in ["#1f", "00f", "xx", "0\u{e9}"] {
            assert_eq!(from_hexadecimal(other), None, "{other}");
        }
    }
}
