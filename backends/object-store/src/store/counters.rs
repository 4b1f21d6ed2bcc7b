//! How many requests were sent, and how many bytes they moved. Requests are money.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Requests as they were sent, repeated ones included.
#[derive(Debug, Default)]
pub struct Counters {
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    copies: AtomicU64,
    markers: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// What [`Counters`] stood at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Reads of content.
    pub gets: u64,
    /// Reads of attributes.
    pub heads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Writes; a multipart upload counts as one when it begins.
    pub puts: u64,
    /// Deletions, one for each object.
    pub deletes: u64,
    /// Copies inside the store.
    pub copies: u64,
    /// Markers of directories that were written, read or removed.
    pub markers: u64,
    /// Bytes of content received.
    pub bytes_read: u64,
    /// Bytes of content sent in single writes.
    pub bytes_written: u64,
}

impl Counters {
    /// The present figures.
    pub fn requests(&self) -> Requests {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Requests {
            gets: value(&self.gets),
            heads: value(&self.heads),
            lists: value(&self.lists),
            puts: value(&self.puts),
            deletes: value(&self.deletes),
            copies: value(&self.copies),
            markers: value(&self.markers),
            bytes_read: value(&self.bytes_read),
            bytes_written: value(&self.bytes_written),
        }
    }

    pub(super) fn marked(&self) {
        self.markers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn copied(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what goes to the store below.
#[derive(Debug)]
pub(super) struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    counters: Arc<Counters>,
}

impl CountingStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

impl std::fmt::Display for CountingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.counters.puts.fetch_add(1, Ordering::Relaxed);
        let length = u64::try_from(payload.content_length()).unwrap_or(u64::MAX);
        self.counters
            .bytes_written
            .fetch_add(length, Ordering::Relaxed);
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.counters.puts.fetch_add(1, Ordering::Relaxed);
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let counter = match options.head {
            true => &self.counters.heads,
            false => &self.counters.gets,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut result = self.inner.get_opts(location, options).await?;
        if let GetResultPayload::Stream(stream) = result.payload {
            let counters = self.counters.clone();
            let counted = stream.inspect(move |chunk| {
                let length = chunk.as_ref().map_or(0, Bytes::len);
                let length = u64::try_from(length).unwrap_or(u64::MAX);
                counters.bytes_read.fetch_add(length, Ordering::Relaxed);
            });
            result.payload = GetResultPayload::Stream(counted.boxed());
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.counters.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let counters = self.counters.clone();
        let counted = locations.inspect(move |_| {
            counters.deletes.fetch_add(1, Ordering::Relaxed);
        });
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counters.listed();
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counters.listed();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.counters.copies.fetch_add(1, Ordering::Relaxed);
        self.inner.copy_opts(from, to, options).await
    }
}
