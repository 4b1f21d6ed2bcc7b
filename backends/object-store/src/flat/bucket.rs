//! What all files of a bucket have in common, and how a name is found in it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::join;
use object_store::Error;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use vfsd_backend::{Errno, Timestamp};

use super::FlatOptions;
use super::asked::Asked;
use super::blocks::BlockCache;
use super::body::{Body, DirectoryBody, FileBody};
use super::content::{Content, Failure, bare};
use super::directory::Listings;
use super::known::{Bounded, Found, Known};
use super::names::{Naming, is_name};
use super::node::FlatNode;
use super::numbers::Numbers;
use super::posix::Posix;
use super::write::{Writer, Writing};
use crate::store::{ListPage, ListRequest, ListedObject, Store, found, head};

/// Contents that are recognised when they are met again, so that their blocks are not fetched again.
const CONTENTS: usize = 16_384;
/// S3 takes no request of a client whose clock differs by more than a quarter of an hour. Metadata that was asked so long after
/// the time of its object is of no earlier second, whatever the clocks show.
const SETTLED: Duration = Duration::from_secs(16 * 60);
/// Directories that the log tells of, at most.
const TOLD: usize = 1000;

/// An open bucket. Keys in here are without the prefix; those of directories end with `/`, the root's is empty.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) store: Store,
    /// Empty, or ends with `/`.
    prefix: String,
    pub(super) options: FlatOptions,
    /// Where it is written to.
    pub(super) writer: Option<Writer>,
    pub(super) runtime: Handle,
    pub(super) numbers: Numbers,
    pub(super) known: Known,
    asked: Mutex<Asked>,
    pub(super) blocks: BlockCache,
    pub(super) listings: Listings,
    pub(super) hidden: AtomicU64,
    /// Directories whose hidden keys the log knows.
    told: Mutex<HashSet<String>>,
    contents: Mutex<Contents>,
    /// The time of directories, of which the service keeps none.
    pub(super) opened: Timestamp,
}

#[derive(Debug, Default)]
struct Contents {
    last: u64,
    ids: Bounded<(Arc<str>, String), u64>,
}

impl Bucket {
    pub(super) fn new(store: Store, prefix: String, options: FlatOptions, runtime: Handle) -> Self {
        if let (Some(write), Some(disk)) = (&options.write, &options.disk) {
            write.staging.goes_before(disk);
        }
        Self {
            blocks: BlockCache::new(store.clone(), runtime.clone(), &options),
            known: Known::new(options.lifetime),
            asked: Mutex::default(),
            writer: options.write.clone().map(Writer::new),
            store,
            prefix,
            options,
            runtime,
            numbers: Numbers::default(),
            listings: Listings::default(),
            hidden: AtomicU64::new(0),
            told: Mutex::default(),
            contents: Mutex::default(),
            opened: Timestamp::now(),
        }
    }

    /// Does something on the runtime, whoever waits for it: a thread that serves a queue has none.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = vfsd_backend::Result<T>> + Send + 'static,
    ) -> vfsd_backend::Result<T> {
        self.runtime
            .spawn(work)
            .await
            .unwrap_or(Err(Errno::IO.into()))
    }

    /// The key as the service has it.
    pub(super) fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn path(&self, key: &str) -> Result<Path, Errno> {
        Path::parse(self.full_key(key)).map_err(|_| Errno::NOENT)
    }

    /// A page of a listing, with keys as they are in here.
    pub(super) fn own_page(&self, mut page: ListPage) -> ListPage {
        for object in &mut page.objects {
            object.key = self.own_key(&object.key);
            object.modified = whole_seconds(object.modified);
        }
        for prefix in &mut page.prefixes {
            *prefix = self.own_key(prefix);
        }
        page
    }

    fn own_key(&self, key: &str) -> String {
        key.strip_prefix(&self.prefix).unwrap_or(key).to_owned()
    }

    /// What is known of a name without a request, and since when.
    pub(super) fn known(&self, directory: &str, name: &str) -> Option<(Instant, Found)> {
        if !is_name(name) {
            return Some((Instant::now(), Found::Nothing));
        }
        let key = format!("{directory}{name}");
        match self.known.find(directory, name, &key)? {
            // A listing does not tell of it.
            (at, Found::Nothing) if self.is_kept(&format!("{key}/")) => {
                Some((at, Found::Directory))
            }
            known => Some(known),
        }
    }

    /// What a name stands for, with what only a look at the object tells where that is needed.
    pub(super) async fn find_all(
        &self,
        directory: &str,
        name: &str,
    ) -> vfsd_backend::Result<Found> {
        let found = match self.known(directory, name) {
            Some((_, found)) => found,
            None => self.find(directory, name).await?,
        };
        if !matches!(&found, Found::File(object, None) if self.has_to_ask(object)) {
            return Ok(found);
        }
        let (key, at) = (format!("{directory}{name}"), Instant::now());
        match self.look(&key).await? {
            Some((object, posix)) => {
                let found = Found::File(object, Some(posix));
                self.known.learn(&key, at, found.clone());
                Ok(found)
            }
            None => self.find_alone(directory, name).await,
        }
    }

    /// Whether the metadata has to be asked of an object that a listing has told of. Where nobody writes it is only asked again.
    pub(super) fn has_to_ask(&self, object: &ListedObject) -> bool {
        let node = self.numbers.find(&object.key);
        match node.as_ref().map(|node| &node.body) {
            Some(Body::File(file)) if file.posix().is_some() && file.is(object, None) => {
                !file.is_told(object, SETTLED)
            }
            _ => self.writer.is_some(),
        }
    }

    /// What a name stands for.
    pub(super) async fn find(&self, directory: &str, name: &str) -> vfsd_backend::Result<Found> {
        // A listing has no modes, owners and times of other tools: where nobody writes, it gains nothing to hide them by one.
        let many =
            self.writer.is_some() && self.asked.lock().one_more(directory, self.options.lifetime);
        if many {
            self.list_page(directory).await?;
            if let Some((_, found)) = self.known(directory, name) {
                return Ok(found);
            }
        }
        self.find_alone(directory, name).await
    }

    /// Gets to know all names of a directory, unless there are more than a page of them.
    async fn list_page(&self, directory: &str) -> vfsd_backend::Result<()> {
        let at = Instant::now();
        let request = ListRequest {
            prefix: self.full_key(directory),
            delimited: true,
            ..ListRequest::default()
        };
        let page = self.own_page(self.store.list(&request).await.map_err(failed)?);
        self.seen(directory, at, &page);
        let whole = page.next.is_none();
        self.asked.lock().listed(directory, whole);
        if whole {
            let mut naming = Naming::new(directory);
            let children = naming.page(page);
            self.known.learn_listing(directory, at, children);
            if let Some(example) = naming.example {
                self.hide(directory, naming.hidden, &example);
            }
        }
        Ok(())
    }

    /// What a name stands for: with one look at the object and one at what its directory would hold.
    pub(super) async fn find_alone(
        &self,
        directory: &str,
        name: &str,
    ) -> vfsd_backend::Result<Found> {
        let key = format!("{directory}{name}");
        let at = Instant::now();
        let below = ListRequest {
            prefix: self.full_key(&format!("{key}/")),
            limit: Some(1),
            ..ListRequest::default()
        };
        let (object, listed) = join(self.look(&key), self.store.list(&below)).await;
        let listed = listed.map_err(failed)?;
        self.seen(&format!("{key}/"), at, &listed);
        let found = if !listed.objects.is_empty() || !listed.prefixes.is_empty() {
            if matches!(object, Ok(Some(_))) {
                self.hidden.fetch_add(1, Ordering::Relaxed);
            }
            Found::Directory
        } else {
            match object? {
                Some((object, posix)) => Found::File(object, Some(posix)),
                None if self.is_kept(&format!("{key}/")) => Found::Directory,
                None => Found::Nothing,
            }
        };
        self.known.learn(&key, at, found.clone());
        Ok(found)
    }

    /// What the bucket answered when it was asked `at` this time what is below a directory.
    pub(super) fn seen(&self, directory: &str, at: Instant, page: &ListPage) {
        let any = !page.objects.is_empty() || !page.prefixes.is_empty();
        if let Some(writer) = self.writer.as_ref().filter(|_| any) {
            writer.has_objects(directory, at);
        }
    }

    fn is_kept(&self, directory: &str) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| writer.is_kept(directory))
    }

    /// The object with this key, if there is one.
    pub(super) async fn look(
        &self,
        key: &str,
    ) -> vfsd_backend::Result<Option<(ListedObject, Posix)>> {
        let objects = self.store.objects();
        let seen = found(objects.get_opts(&self.path(key)?, head()).await).map_err(failed)?;
        Ok(seen.map(|seen| {
            let object = ListedObject {
                key: key.to_owned(),
                size: seen.meta.size,
                modified: whole_seconds(seen.meta.last_modified.into()),
                etag: seen.meta.e_tag,
            };
            (object, Posix::of(&seen.attributes))
        }))
    }

    /// Counts the keys that a listing of a directory hid, and says so once for each directory.
    pub(super) fn hide(&self, directory: &str, count: u64, example: &str) {
        self.hidden.fetch_add(count, Ordering::Relaxed);
        let mut told = self.told.lock();
        // A guest lists as often as it likes, and must not fill the log.
        if told.len() >= TOLD || !told.insert(directory.to_owned()) {
            return;
        }
        tracing::warn!(
            store = self.store.name(),
            directory = %directory.escape_debug(),
            count,
            example = %example.escape_debug(),
            "keys that are no file names, or hidden by a directory of the same name, are not shown"
        );
    }

    /// The node of a directory.
    pub(super) fn directory(self: &Arc<Self>, key: &str) -> Arc<FlatNode> {
        let bucket = self.clone();
        self.numbers.node(
            key,
            |node| matches!(node.body, Body::Directory(_)),
            |number, key, this| {
                let body = Body::Directory(DirectoryBody::default());
                FlatNode::new(bucket, number, key, body, this)
            },
        )
    }

    /// The node of an object: the one that is known while it is the same content.
    pub(super) fn file(
        self: &Arc<Self>,
        object: &ListedObject,
        posix: Option<Posix>,
        at: Instant,
    ) -> Result<Arc<FlatNode>, Errno> {
        let path = self.path(&object.key)?;
        let fits = |node: &FlatNode| match &node.body {
            Body::File(file) => file.is(object, posix),
            Body::Directory(_) => false,
        };
        let bucket = self.clone();
        let symlink = self.writer.is_some() && posix.is_some_and(|posix| posix.symlink);
        let node = self.numbers.node(&object.key, fits, |number, key, this| {
            let (id, generation) = bucket.content_id(&key, object);
            let content = Arc::new(Content::new(id, path, object, bucket.store.identity()));
            let writing = Writing::default();
            let file = FileBody::new(object.clone(), content, generation, symlink, writing, at);
            FlatNode::new(bucket, number, key, Body::File(Box::new(file)), this)
        });
        if let Body::File(file) = &node.body {
            file.confirm(posix.map(|posix| (object, posix)), at);
        }
        Ok(node)
    }

    /// The node of a file that is not in the bucket yet.
    pub(super) fn new_file(
        self: &Arc<Self>,
        key: &str,
        posix: Posix,
        writing: Writing,
    ) -> Result<Arc<FlatNode>, Errno> {
        let path = self.path(key)?;
        let object = ListedObject {
            key: key.to_owned(),
            size: 0,
            modified: modified_now(),
            etag: None,
        };
        let bucket = self.clone();
        let node = self.numbers.node(
            key,
            |_| false,
            |number, key, this| {
                let (id, generation) = bucket.content_id(&key, &object);
                let content = Arc::new(Content::new(id, path, &object, bucket.store.identity()));
                let at = Instant::now();
                let file = FileBody::new(object, content, generation, posix.symlink, writing, at);
                FlatNode::new(bucket, number, key, Body::File(Box::new(file)), this)
            },
        );
        if let Body::File(file) = &node.body {
            file.change_posix(|own| *own = posix);
        }
        Ok(node)
    }

    /// A file is another version of its object from now on, by our own doing.
    pub(super) fn set_version(&self, file: &FileBody, key: &Arc<str>, object: &ListedObject) {
        let Ok(path) = self.path(key) else {
            return;
        };
        let object = ListedObject {
            key: key.to_string(),
            ..object.clone()
        };
        let (id, _) = self.content_id(key, &object);
        let content = Content::new(id, path, &object, self.store.identity());
        file.set_version(object, Arc::new(content));
    }

    /// The number of a content, which is the same one when the content is met again, and one that was never given before.
    fn content_id(&self, key: &Arc<str>, object: &ListedObject) -> (u64, u64) {
        let mut contents = self.contents.lock();
        contents.last = contents.last.wrapping_add(1);
        let new = contents.last;
        // Without an ETag nobody knows.
        let Some(etag) = &object.etag else {
            return (new, new);
        };
        let known = (key.clone(), format!("{} {}", object.size, bare(etag)));
        if let Some(id) = contents.ids.get(&known) {
            return (*id, new);
        }
        contents.ids.insert(known, new);
        if contents.ids.len() > CONTENTS {
            contents.ids.remove_oldest();
        }
        (new, new)
    }
}

/// The present time as the service tells it.
pub(super) fn modified_now() -> SystemTime {
    whole_seconds(SystemTime::now())
}

/// A listing tells fractions of a second, a look at the object does not.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let whole = Duration::from_secs(since.map_or(0, |since| since.as_secs()));
    SystemTime::UNIX_EPOCH.checked_add(whole).unwrap_or(time)
}

/// What the guest is told of a failed request.
pub(super) fn failed(error: Error) -> vfsd_backend::Error {
    match error {
        Error::NotFound { .. } => Errno::NOENT.into(),
        Error::AlreadyExists { .. } => Errno::EXIST.into(),
        error => Failure::from(error).into(),
    }
}
