//! A bucket's objects as files.
//!
//! Other tools read and write the same bucket. What a file that is open shows is one version of its object: each read
//! names the version it wants, and fails with ESTALE once that is gone; the next open has the new one. Names and
//! attributes are believed for [`FlatOptions::lifetime`].
//!
//! Which names a bucket's keys have is said in `names.rs`.

mod asked;
mod blocks;
mod body;
mod bucket;
mod content;
mod directory;
mod disk;
mod extended;
mod fetch;
mod file;
mod known;
mod names;
mod node;
mod numbers;
mod pace;
mod posix;
mod readahead;
mod reading;
mod regions;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use vfsd_backend::{Backend, Capabilities, Node};

use self::bucket::Bucket;
pub use self::disk::{DiskCache, DiskUse};
use self::write::Writer;
pub use self::write::{Overwrite, Staging, WriteOptions};
use crate::store::{OpenError, Store, probe};

/// How a bucket is shown.
#[derive(Debug, Clone)]
pub struct FlatOptions {
    /// Owner of everything whose metadata names none.
    pub uid: u32,
    /// Group of everything whose metadata names none.
    pub gid: u32,
    /// Permissions of files whose metadata names none.
    pub file_permissions: u32,
    /// Permissions of directories.
    pub directory_permissions: u32,
    /// How long a lookup or a listing is believed without asking again. Zero asks each time.
    pub lifetime: Duration,
    /// Bytes of content in memory, those on their way included; at least 8 MiB.
    pub memory: u64,
    /// Where content is kept for the next time, besides memory.
    pub disk: Option<DiskCache>,
    /// Bytes that are asked for before they are read, for each open file; at most a quarter of `memory`.
    pub readahead: u64,
    /// How it is written to; `None` where it is only read.
    pub write: Option<WriteOptions>,
}

impl Default for FlatOptions {
    /// User and group 0, files 0644, directories 0755, a second of belief, 128 MiB of memory, no
    /// disk, 32 MiB of readahead, read-only.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            file_permissions: 0o644,
            directory_permissions: 0o755,
            lifetime: Duration::from_secs(1),
            memory: 128 << 20,
            disk: None,
            readahead: 32 << 20,
            write: None,
        }
    }
}

/// The storage. Serve it read-only unless it has [`WriteOptions`].
pub struct FlatBucket {
    bucket: Arc<Bucket>,
    root: Arc<dyn Node>,
}

impl FlatBucket {
    /// Shows the objects below `prefix`, which is empty or ends with `/`
    /// ([`StoreUrl::prefix`](crate::StoreUrl::prefix)). All requests are made on the runtime that this is awaited on, which needs
    /// its timers and its I/O enabled; answers may be awaited anywhere.
    ///
    /// # Errors
    /// The bucket cannot be listed, or would be written with [`Overwrite::Refuse`] and does not keep the conditions
    /// of writes, which about 60 requests tell. The text is one line that says what to do.
    pub async fn open(store: Store, prefix: &str, options: FlatOptions) -> Result<Self, OpenError> {
        store.check(prefix).await?;
        let write = options.write.as_ref();
        if write.is_some_and(|write| write.overwrite == Overwrite::Refuse) {
            let report = probe(&store, prefix).await;
            let report = report.map_err(|error| OpenError::writing(store.name(), &error))?;
            if !report.is_safe() {
                return Err(OpenError::Careless(report));
            }
        }
        Ok(Self::show(store, prefix, options))
    }

    /// Shows a store that was tried.
    fn show(store: Store, prefix: &str, options: FlatOptions) -> Self {
        let bucket = Bucket::new(store, prefix.to_owned(), options, Handle::current());
        let bucket = Arc::new(bucket);
        if bucket.writer.is_some() {
            tokio::spawn(write::upload_pending(Arc::downgrade(&bucket)));
        }
        Self {
            root: bucket.directory(""),
            bucket,
        }
    }

    /// The store below, for its counters.
    pub fn store(&self) -> &Store {
        &self.bucket.store
    }

    /// How many keys listings and lookups met that have no name, counted each time.
    pub fn hidden(&self) -> u64 {
        self.bucket.hidden.load(Ordering::Relaxed)
    }

    async fn finish(&self) -> vfsd_backend::Result<()> {
        match &self.bucket.writer {
            Some(writer) => writer.finish().await,
            None => Ok(()),
        }
    }

    /// Bytes of content in memory or on their way, in either direction.
    pub fn memory(&self) -> u64 {
        let sending = self.bucket.writer.as_ref().map_or(0, Writer::held);
        self.bucket.blocks.bytes().saturating_add(sending)
    }
}

impl fmt::Debug for FlatBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlatBucket")
            .field(&self.bucket.store)
            .finish()
    }
}

impl Backend for FlatBucket {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        match self.bucket.writer {
            Some(_) => Capabilities::XATTR,
            None => Capabilities::empty(),
        }
    }

    fn close(&self) -> vfsd_backend::Result<()> {
        self.bucket.runtime.block_on(self.finish())
    }
}
