//! Requests are repeated, and what was applied is known although its reply got lost.
//!
//! A conditional write is marked with a [nonce](Nonce). When its repetition is told that the object exists, or is
//! another than expected, the nonce of what is there says whether that is the write itself, applied by an
//! attempt whose reply got lost.
//!
//! A body that breaks off is read on from where it broke, under the condition that the object is the same.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UpdateVersion,
};
use tokio::time::timeout;

use super::copies::Copies;
use super::head::{found, head};
use super::nonce::Nonce;
use super::parts::PartRetries;
use super::retry_policy::{RetryPolicy, silent, to_send};

/// Objects that are deleted with one request, where the service can.
const DELETED_AT_ONCE: usize = 1000;

/// Repeats what may be repeated.
#[derive(Debug, Clone)]
pub(super) struct RetryingStore {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) policy: Arc<RetryPolicy>,
    copies: Arc<Copies>,
    /// The service replaces an object under the condition of its version, not of its ETag.
    by_version: bool,
}

/// Which conditional write is to be told from another's.
struct Write<'a> {
    location: &'a Path,
    payload: PutPayload,
    options: PutOptions,
    nonce: Nonce,
    limit: Duration,
}

impl RetryingStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, policy: Arc<RetryPolicy>) -> Self {
        Self {
            inner,
            policy,
            copies: Arc::default(),
            by_version: false,
        }
    }

    /// What is known of copies under a condition.
    pub(super) fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }

    /// The same for a service that takes versions for conditions, if it does.
    pub(super) fn by_version(self, by_version: bool) -> Self {
        Self { by_version, ..self }
    }

    /// The version that has this ETag, as a condition. Fails as the condition would.
    async fn version(&self, location: &Path, etag: Option<&str>) -> Result<UpdateVersion> {
        let there = self
            .policy
            .run(|| self.inner.get_opts(location, head()))
            .await?
            .meta;
        let bare = |etag: Option<&str>| etag.map(|etag| etag.trim_matches('"').to_owned());
        if bare(there.e_tag.as_deref()) != bare(etag) {
            return Err(Error::Precondition {
                path: location.to_string(),
                source: "the object is another by now".into(),
            });
        }
        Ok(UpdateVersion {
            e_tag: there.e_tag,
            version: there.version,
        })
    }

    async fn attempt(&self, write: &Write<'_>) -> Result<PutResult> {
        let put = self
            .inner
            .put_opts(write.location, write.payload.clone(), write.options.clone());
        timeout(write.limit, put)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    async fn create(&self, write: Write<'_>) -> Result<PutResult> {
        let mut pauses = self.policy.pauses();
        loop {
            match self.attempt(&write).await {
                Ok(done) => return Ok(done),
                Err(error @ Error::AlreadyExists { .. }) => match self.look(&write).await? {
                    Seen::Own(done) => return Ok(done),
                    Seen::Other => return Err(error),
                    // The service answers a passing conflict (409) with the same error.
                    Seen::Nothing => pauses.conflict(error).await?,
                },
                Err(error) => pauses.after(error).await?,
            }
        }
    }

    async fn update(&self, write: Write<'_>) -> Result<PutResult> {
        let mut pauses = self.policy.pauses();
        let mut maybe_applied = false;
        loop {
            match self.attempt(&write).await {
                Ok(done) => return Ok(done),
                Err(error @ Error::Precondition { .. }) if maybe_applied => {
                    return match self.look(&write).await? {
                        Seen::Own(done) => Ok(done),
                        Seen::Other | Seen::Nothing => Err(error),
                    };
                }
                // A passing conflict (409).
                Err(error @ Error::AlreadyExists { .. }) => pauses.conflict(error).await?,
                Err(error) => {
                    pauses.after(error).await?;
                    maybe_applied = true;
                }
            }
        }
    }

    /// What stands where a conditional write wanted to go.
    async fn look(&self, write: &Write<'_>) -> Result<Seen> {
        let there = self
            .policy
            .run(|| self.inner.get_opts(write.location, head()))
            .await;
        Ok(match found(there)? {
            Some(there) if write.nonce.marks(&there.attributes) => Seen::Own(PutResult {
                e_tag: there.meta.e_tag,
                version: there.meta.version,
                extensions: Default::default(),
            }),
            Some(_) => Seen::Other,
            None => Seen::Nothing,
        })
    }

    async fn delete_all(self, locations: Vec<Path>) -> Vec<Result<Path>> {
        let wanted = stream::iter(locations.clone()).map(Ok).boxed();
        let tried = timeout(
            self.policy.attempt.saturating_mul(3),
            self.inner.delete_stream(wanted).collect::<Vec<_>>(),
        );
        let done: Vec<Path> = tried
            .await
            .unwrap_or_default()
            .into_iter()
            .flatten()
            .collect();
        let mut results = Vec::with_capacity(locations.len());
        for location in locations {
            if done.contains(&location) {
                results.push(Ok(location));
                continue;
            }
            let deleted = self.policy.run(|| self.inner.delete(&location)).await;
            results.push(match deleted {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(location),
                Err(error) => Err(error),
            });
        }
        results
    }
}

/// What was found by [`RetryingStore::look`].
enum Seen {
    Own(PutResult),
    Other,
    Nothing,
}

impl std::fmt::Display for RetryingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

/// A body that is read on where it broke off.
struct Resumed {
    store: RetryingStore,
    location: Path,
    options: GetOptions,
    left: Range<u64>,
    body: BoxStream<'static, Result<Bytes>>,
}

impl Resumed {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let policy = self.store.policy.clone();
        let mut pauses = policy.pauses();
        loop {
            let next = timeout(policy.attempt, self.body.next()).await;
            let error = match next {
                Ok(Some(Ok(chunk))) => {
                    let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                    self.left.start = self.left.start.saturating_add(length);
                    return Ok(Some(chunk));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => error,
                Err(_) => silent(),
            };
            // Without an ETag nobody knows whether it would be the rest of the same content.
            if self.options.if_match.is_none() {
                return Err(error);
            }
            pauses.after(error).await?;
            while let Err(error) = self.ask_for_the_rest().await {
                pauses.after(error).await?;
            }
        }
    }

    async fn ask_for_the_rest(&mut self) -> Result<()> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.left.clone())),
            ..self.options.clone()
        };
        let asked = self.store.inner.get_opts(&self.location, options);
        let result = timeout(self.store.policy.attempt, asked)
            .await
            .unwrap_or_else(|_| Err(silent()))?;
        if result.range != self.left {
            return Err(silent());
        }
        self.body = result.into_stream();
        Ok(())
    }
}

fn resumed(body: Resumed) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(body, |mut body| async move {
        if body.left.is_empty() {
            return Ok(None);
        }
        Ok(body.next().await?.map(|chunk| (chunk, body)))
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for RetryingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let limit = to_send(self.policy.attempt, payload.content_length());
        let given = options.extensions.remove::<Nonce>();
        if options.mode == PutMode::Overwrite {
            let put = || {
                self.inner
                    .put_opts(location, payload.clone(), options.clone())
            };
            return self.policy.run_for(limit, put).await;
        }
        if self.by_version
            && let PutMode::Update(update) = &options.mode
            && update.version.is_none()
        {
            let version = self.version(location, update.e_tag.as_deref()).await?;
            options.mode = PutMode::Update(version);
        }
        let nonce = given.unwrap_or_else(Nonce::new);
        nonce.mark(&mut options.attributes);
        let create = options.mode == PutMode::Create;
        let write = Write {
            location,
            payload,
            options,
            nonce,
            limit,
        };
        match create {
            true => self.create(write).await,
            false => self.update(write).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let options = options.with_retry_policy(Arc::new(PartRetries(self.policy.clone())));
        self.policy
            .run(|| self.inner.put_multipart_opts(location, options.clone()))
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self
            .policy
            .run(|| self.inner.get_opts(location, options.clone()))
            .await?;
        if options.head {
            return Ok(result);
        }
        let GetResultPayload::Stream(body) = result.payload else {
            return Ok(result);
        };
        let body = Resumed {
            store: self.clone(),
            location: location.clone(),
            options: GetOptions {
                if_match: result.meta.e_tag.clone(),
                version: result.meta.version.clone().or(options.version),
                ..GetOptions::default()
            },
            left: result.range.clone(),
            body,
        };
        result.payload = GetResultPayload::Stream(resumed(body));
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.policy
            .run(|| self.inner.get_ranges(location, ranges))
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .ready_chunks(DELETED_AT_ONCE)
            .then(move |chunk| {
                let store = store.clone();
                async move {
                    let mut results = Vec::new();
                    let mut wanted = Vec::new();
                    for location in chunk {
                        match location {
                            Ok(location) => wanted.push(location),
                            Err(error) => results.push(Err(error)),
                        }
                    }
                    results.extend(store.delete_all(wanted).await);
                    stream::iter(results)
                }
            })
            .flatten()
            .boxed()
    }

    /// Not repeated: whoever needs that lists by pages.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.policy
            .run(|| self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode == CopyMode::Create {
            return self.copy_new(from, to, options).await;
        }
        self.policy
            .run_for(self.policy.give_up, || {
                self.inner.copy_opts(from, to, options.clone())
            })
            .await
    }
}
