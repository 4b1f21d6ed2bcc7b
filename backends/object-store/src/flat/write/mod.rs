//! Writing: files are staged on a disk of the host, and become objects as a whole.
//!
//! The first change of a file brings its content into a [staged file](staging). What `close`, `fsync` or `sync`
//! waits for is the [upload](commit) of all of it, under the condition that the object still is the
//! one that was changed. [Names](names) change at once, with a request each; [moves](rename) are copies.
//!
//! What changed and is not in the bucket is *pending*. A file stays pending, and can be read, until an upload
//! succeeds: every second those that nobody has open for writing are tried again, and all at the [end](finish).

mod attributes;
mod commit;
mod finish;
mod handle;
mod inode;
mod kept;
mod names;
mod rename;
mod staging;
mod xattrs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub(super) use self::inode::Writing;
pub(super) mod answers {
    //! The operations as the trait has them: checked, and done on the runtime.

    pub(in crate::flat) use super::names::answers::*;
    pub(in crate::flat) use super::xattrs::{change_xattr, getxattr, listxattr};
}
use self::kept::Kept;
pub use self::staging::Staging;
use super::body::FileBody;
use super::bucket::Bucket;
use super::node::FlatNode;

/// Uploads of one daemon at the same time, besides those that somebody waits for.
const AT_ONCE: usize = 8;
/// What uploads hold in memory, all of them together, in KiB.
const SENDING: u32 = 32 << 10;
/// How often pending files are looked through.
const PERIOD: Duration = Duration::from_secs(1);

/// How a bucket is written to.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Where files are until they are objects.
    pub staging: Staging,
    /// What happens when another client wrote the same object.
    pub overwrite: Overwrite,
}

/// Whose version stays when two clients write the same object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// The other's. The guest gets EIO, and its version another name: `NAME.vfsd-conflict-NUMBER`.
    #[default]
    Refuse,
    /// The one that is uploaded last.
    LastWins,
}

/// What all written files of a bucket have in common.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) options: WriteOptions,
    /// Files that are not in the bucket as they are, by their keys.
    pending: Mutex<BTreeMap<Arc<str>, Arc<FlatNode>>>,
    /// Directories that stay although no object makes them one.
    kept: Mutex<Kept>,
    /// What uploads may still hold in memory, in KiB.
    sending: Semaphore,
    /// Held by who moves names, which takes the turns of several files.
    moving: Turn<()>,
}

impl Writer {
    pub(super) fn new(options: WriteOptions) -> Self {
        Self {
            options,
            pending: Mutex::default(),
            kept: Mutex::default(),
            sending: Semaphore::new(usize::try_from(SENDING).unwrap_or(0)),
            moving: Turn::default(),
        }
    }

    /// Waits until an upload may hold so many bytes in memory, which it may while it keeps what is given.
    async fn may_hold(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let wanted = u32::try_from(bytes.div_ceil(1024)).unwrap_or(SENDING);
        // What is larger than all goes alone. The semaphore is never closed.
        let permit = self.sending.acquire_many(wanted.min(SENDING)).await;
        permit.ok()
    }

    /// How many bytes uploads may hold in memory now.
    pub(super) fn held(&self) -> u64 {
        let left = u64::try_from(self.sending.available_permits()).unwrap_or(0);
        u64::from(SENDING).saturating_sub(left).saturating_mul(1024)
    }

    /// The file with this key, if it is pending.
    pub(super) fn pending(&self, key: &str) -> Option<Arc<FlatNode>> {
        self.pending.lock().get(key).cloned()
    }

    /// The pending files right in a directory.
    pub(super) fn pending_in(&self, directory: &str) -> Vec<Arc<FlatNode>> {
        let here = |key: &str| !key.get(directory.len()..).unwrap_or("/").contains('/');
        self.pending_below(directory)
            .into_iter()
            .filter(|node| here(&node.key()))
            .collect()
    }

    /// Whether there are pending files anywhere below a directory.
    pub(super) fn is_pending_below(&self, directory: &str) -> bool {
        below(&self.pending.lock(), directory).next().is_some()
    }

    /// The pending files anywhere below a directory.
    fn pending_below(&self, directory: &str) -> Vec<Arc<FlatNode>> {
        let pending = self.pending.lock();
        below(&pending, directory)
            .map(|(_, node)| node.clone())
            .collect()
    }

    fn insert(&self, node: &Arc<FlatNode>) {
        self.pending.lock().insert(node.key(), node.clone());
    }

    fn remove(&self, node: &FlatNode) {
        let mut pending = self.pending.lock();
        let key = node.key();
        if pending
            .get(&key)
            .is_some_and(|own| std::ptr::eq(Arc::as_ptr(own), node))
        {
            pending.remove(&key);
        }
    }

    /// A file has another key from now on, in the place of the one that had it. Who calls has its turn.
    fn rename(&self, node: &Arc<FlatNode>, file: &FileBody, key: &Arc<str>) {
        // What changes meanwhile is pending under the one key or the other.
        let state = file.writing.state();
        let mut pending = self.pending.lock();
        let before = node.set_key(key);
        if pending
            .get(&before)
            .is_some_and(|there| Arc::ptr_eq(there, node))
        {
            pending.remove(&before);
        }
        if state.is_dirty() {
            pending.insert(key.clone(), node.clone());
        }
        drop(pending);
        drop(state);
        node.keep_number();
    }

    /// A directory of which the last object may be gone.
    fn keep(&self, directory: &str) {
        self.kept.lock().keep(directory);
    }

    fn let_go(&self, directory: &str) {
        self.kept.lock().let_go(directory);
    }

    /// A directory and all below it have another key.
    fn move_kept(&self, from: &str, to: &str) {
        self.kept.lock().rename(from, to);
    }

    /// The bucket was asked `at` this time what is below a directory, and has something.
    pub(super) fn has_objects(&self, directory: &str, at: Instant) {
        self.kept.lock().has_objects(directory, at);
    }

    /// Whether a directory stays although no object makes it one, or none yet.
    pub(super) fn is_kept(&self, directory: &str) -> bool {
        self.kept.lock().is_kept(directory) || self.is_pending_below(directory)
    }

    /// The names of those right in a directory.
    pub(super) fn kept_in(&self, directory: &str) -> BTreeSet<Box<str>> {
        let mut names = self.kept.lock().names_in(directory);
        let pending = self.pending.lock();
        let keys = below(&pending, directory);
        names.extend(keys.filter_map(|(key, _)| kept::name_in(directory, key)));
        names
    }

    /// Uploads everything that is pending.
    pub(super) async fn sync(&self) -> vfsd_backend::Result<()> {
        let all = self.pending_below("");
        let mut results = futures_util::stream::iter(all)
            .map(|node| async move { node.commit().await })
            .buffer_unordered(AT_ONCE);
        let mut first = Ok(());
        while let Some(result) = results.next().await {
            first = first.and(result);
        }
        first
    }
}

/// What a map of keys has anywhere below a directory.
fn below<'a, T>(
    map: &'a BTreeMap<Arc<str>, T>,
    directory: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a T)> {
    let from = (Bound::Included(directory), Bound::Unbounded);
    map.range::<str, _>(from)
        .take_while(move |(key, _)| key.starts_with(directory))
}

/// Uploads what is pending and not open for writing, again and again, as long as the bucket is there.
pub(super) async fn upload_pending(bucket: Weak<Bucket>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(bucket) = bucket.upgrade() else {
            return;
        };
        let Some(writer) = &bucket.writer else {
            return;
        };
        let due = writer.pending_below("");
        futures_util::stream::iter(due)
            .filter(|node| std::future::ready(node.is_due()))
            .for_each_concurrent(AT_ONCE, |node| async move {
                if let Err(error) = node.commit().await {
                    node.failed_in_background();
                    tracing::warn!(key = %node.key().escape_debug(), %error, "an upload failed; it is tried again");
                }
            })
            .await;
    }
}
