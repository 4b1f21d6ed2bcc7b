//! A store that fails as services do, at random from a seed or when told.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use parking_lot::Mutex;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is applied, its reply is lost.
    LostReply,
    /// The request is not applied: the service is overloaded (503).
    Unavailable,
    /// The request is not applied: a conflict that passes (409).
    Conflict,
    /// A body ends too early, without an error.
    ShortBody,
    /// A body breaks off with an error.
    BrokenBody,
    /// The reply comes later.
    Delay(Duration),
    /// No reply comes.
    Stall,
}

/// How often each fault happens, in a thousand requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Which faults, each with its number in a thousand.
    pub per_mille: Vec<(Fault, u32)>,
    /// Where the random numbers begin; the same seed and requests give the same faults.
    pub seed: u64,
}

/// Passes requests on to another store, with faults.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    random: u64,
    next: VecDeque<Fault>,
    outage: bool,
    met: u64,
    /// How much older than they are objects look.
    older: Duration,
}

impl State {
    /// The fault of a request. Only a write can meet a conflict.
    fn draw(&mut self, write: bool) -> Option<Fault> {
        let fault = match self.choose() {
            Some(Fault::Conflict) if !write => Some(Fault::Unavailable),
            fault => fault,
        };
        self.met = self.met.saturating_add(u64::from(fault.is_some()));
        fault
    }

    fn choose(&mut self) -> Option<Fault> {
        if self.outage {
            return Some(Fault::Unavailable);
        }
        if let Some(fault) = self.next.pop_front() {
            return Some(fault);
        }
        // splitmix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut drawn = u32::try_from((mixed ^ (mixed >> 31)).checked_rem(1000)?).ok()?;
        for (fault, share) in &self.faults.per_mille {
            match drawn.checked_sub(*share) {
                Some(rest) => drawn = rest,
                None => return Some(*fault),
            }
        }
        None
    }
}

fn failed(text: &'static str) -> Error {
    Error::Generic {
        store: "fault",
        source: text.into(),
    }
}

impl FaultStore {
    /// A store that fails at random. Without `faults` only when told.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults) -> Self {
        let state = State {
            random: faults.seed,
            faults,
            ..State::default()
        };
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What the next requests meet, one each, before chance decides again.
    pub fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().next.extend(faults);
    }

    /// Begins or ends an outage: no request is applied.
    pub fn outage(&self, down: bool) {
        self.state.lock().outage = down;
    }

    /// All objects look so much older than they are, from now on.
    pub fn age(&self, older: Duration) {
        self.state.lock().older = older;
    }

    fn aged(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let modified = SystemTime::from(meta.last_modified);
        let aged = modified.checked_sub(self.state.lock().older);
        meta.last_modified = aged.unwrap_or(modified).into();
        meta
    }

    /// How many requests met a fault.
    pub fn met(&self) -> u64 {
        self.state.lock().met
    }

    /// The store without faults.
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn with_fault<T>(
        &self,
        written: Option<&Path>,
        request: impl Future<Output = Result<T>>,
    ) -> Result<(T, Option<Fault>)> {
        let fault = self.state.lock().draw(written.is_some());
        match fault {
            Some(Fault::Unavailable) => return Err(failed("503 SlowDown")),
            Some(Fault::Conflict) => {
                return Err(Error::AlreadyExists {
                    path: written.map(ToString::to_string).unwrap_or_default(),
                    source: "409 ConditionalRequestConflict".into(),
                });
            }
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::Stall) => std::future::pending::<()>().await,
            _ => {}
        }
        let value = request.await?;
        match fault {
            Some(Fault::LostReply) => Err(failed("connection reset")),
            fault => Ok((value, fault)),
        }
    }
}

/// An upload in parts whose end may fail. The client library repeats parts.
#[derive(Debug)]
struct FaultUpload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    store: FaultStore,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let complete = self.upload.complete();
        Ok(self
            .store
            .with_fault(Some(&self.location), complete)
            .await?
            .0)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// All of a body but its last byte.
fn shortened(
    body: BoxStream<'static, Result<Bytes>>,
    broken: bool,
) -> BoxStream<'static, Result<Bytes>> {
    let cut = body.map(|chunk| chunk.map(|chunk| chunk.slice(..chunk.len().saturating_sub(1))));
    match broken {
        true => cut
            .take(1)
            .chain(stream::iter([Err(failed("connection reset"))]))
            .boxed(),
        false => cut.take(1).boxed(),
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, options);
        Ok(self.with_fault(Some(location), put).await?.0)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let put = self.inner.put_multipart_opts(location, options);
        let (upload, _) = self.with_fault(Some(location), put).await?;
        Ok(Box::new(FaultUpload {
            upload,
            location: location.clone(),
            store: self.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = self.inner.get_opts(location, options);
        let (mut result, fault) = self.with_fault(None, get).await?;
        result.meta = self.aged(result.meta);
        let broken = fault == Some(Fault::BrokenBody);
        if broken || fault == Some(Fault::ShortBody) {
            result.payload = match result.payload {
                GetResultPayload::Stream(body) => GetResultPayload::Stream(shortened(body, broken)),
                payload => payload,
            };
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let get = self.inner.get_ranges(location, ranges);
        Ok(self.with_fault(None, get).await?.0)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let fault = self.state.lock().draw(false);
        match fault {
            Some(Fault::Unavailable | Fault::Conflict) => {
                locations.map(|_| Err(failed("503 SlowDown"))).boxed()
            }
            Some(Fault::LostReply) => self
                .inner
                .delete_stream(locations)
                .map(|_| Err(failed("connection reset")))
                .boxed(),
            Some(Fault::Stall) => stream::pending().boxed(),
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.lock().draw(false) {
            Some(Fault::Stall) => stream::pending().boxed(),
            Some(Fault::Unavailable | Fault::LostReply | Fault::Conflict) => {
                stream::iter([Err(failed("503 SlowDown"))]).boxed()
            }
            _ => {
                let store = self.clone();
                let listed = self.inner.list(prefix);
                listed.map_ok(move |meta| store.aged(meta)).boxed()
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let list = self.inner.list_with_delimiter(prefix);
        let mut listed = self.with_fault(None, list).await?.0;
        let objects = listed.objects.into_iter();
        listed.objects = objects.map(|meta| self.aged(meta)).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = self.inner.copy_opts(from, to, options);
        self.with_fault(Some(to), copy).await?;
        Ok(())
    }
}

#[cfg(test)]
#[async_trait]
impl super::attributes::AttributeStore for FaultStore {
    async fn replace(
        &self,
        location: &Path,
        etag: &str,
        attributes: &object_store::Attributes,
    ) -> Result<Option<String>> {
        let copy = async {
            let bare = |etag: &str| etag.trim_matches('"').to_owned();
            let found = self.inner.get_opts(location, GetOptions::default()).await?;
            let there = found.meta.e_tag.clone();
            if there.as_deref().map(bare) != Some(bare(etag)) {
                return Err(Error::Precondition {
                    path: location.to_string(),
                    source: "412".into(),
                });
            }
            let options = PutOptions::from(attributes.clone());
            let body = found.bytes().await?.into();
            Ok(self.inner.put_opts(location, body, options).await?.e_tag)
        };
        Ok(self.with_fault(Some(location), copy).await?.0)
    }
}
