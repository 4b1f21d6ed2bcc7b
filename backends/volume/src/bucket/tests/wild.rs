//! A store whose requests take their time, and whose writes may be applied long after their sender gave up.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// Numbers from a seed.
#[derive(Debug)]
pub(super) struct Chance(Mutex<u64>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    /// One below `limit`.
    pub(super) fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) % limit
    }
}

#[derive(Debug)]
pub(super) struct Wild {
    inner: Arc<dyn ObjectStore>,
    chance: Chance,
    /// Writes in a thousand that are applied later, while their sender hears of a failure.
    late: u64,
    /// Ends of keys that no listing has yet.
    hidden: &'static [&'static str],
    /// Whether conditions of writes are ignored.
    careless: bool,
}

impl Wild {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, seed: u64, late: u64) -> Self {
        Self {
            inner,
            chance: Chance::new(seed),
            late,
            hidden: &[],
            careless: false,
        }
    }

    pub(super) fn hiding(self, hidden: &'static [&'static str]) -> Self {
        Self { hidden, ..self }
    }

    pub(super) fn careless(self) -> Self {
        Self {
            careless: true,
            ..self
        }
    }

    async fn wait(&self) {
        let pause = Duration::from_millis(self.chance.below(40));
        tokio::time::sleep(pause).await;
    }
}

impl std::fmt::Display for Wild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wild")
    }
}

#[async_trait]
impl ObjectStore for Wild {
    async fn put_opts(
        &self,
        key: &Path,
        body: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.wait().await;
        if self.careless {
            options.mode = PutMode::Overwrite;
        }
        if self.chance.below(1000) < self.late {
            let (inner, key) = (self.inner.clone(), key.clone());
            let delay = Duration::from_millis(self.chance.below(90_000));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                // Nobody waits for the answer any more.
                let _ = inner.put_opts(&key, body, options).await;
            });
            return Err(Error::Generic {
                store: "wild",
                source: "connection reset".into(),
            });
        }
        let put = self.inner.put_opts(key, body, options).await;
        self.wait().await;
        put
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.wait().await;
        let got = self.inner.get_opts(key, options).await;
        self.wait().await;
        got
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(key, ranges).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let pause = Duration::from_millis(self.chance.below(40));
        let keys = keys.then(move |key| async move {
            tokio::time::sleep(pause).await;
            key
        });
        self.inner.delete_stream(keys.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let hidden = self.hidden;
        let is_shown = move |listed: &Result<ObjectMeta>| {
            let shown = |meta: &ObjectMeta| {
                let key = meta.location.as_ref();
                !hidden.iter().any(|end| key.ends_with(end))
            };
            std::future::ready(listed.as_ref().map_or(true, shown))
        };
        self.inner.list(prefix).filter(is_shown).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wait().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
