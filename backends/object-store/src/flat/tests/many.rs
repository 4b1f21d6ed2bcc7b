//! A directory of very many files: what it costs to list it, to find a name in it, and to remember it.

use std::fmt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::time::advance;

use super::*;
use crate::flat::{Overwrite, Staging, WriteOptions};
use crate::store::{ListPage, ListRequest, ListedObject, Lister};

/// How many objects there are, unless the environment says another number.
const OBJECTS: u64 = 60_000;
/// The same where memory is looked at: enough for all limits to be reached.
const OBJECTS_IN_MEMORY: u64 = 120_000;
const VARIABLE: &str = "VFSD_TEST_OBJECTS";
/// What a process that lists them may need more than one that does not, in KiB.
const MOST_KIB: u64 = 64 << 10;

fn objects(unless_given: u64) -> u64 {
    let given = std::env::var(VARIABLE).ok();
    given.map_or(unless_given, |text| text.parse().unwrap())
}

/// A bucket of so many empty objects `many/00000001` and so on, which nothing has to keep.
#[derive(Debug)]
struct Numbered(u64);

impl Numbered {
    fn key(number: u64) -> String {
        format!("many/{number:08}")
    }

    fn number(&self, key: &str) -> Option<u64> {
        let number = key.strip_prefix("many/")?.parse().ok()?;
        (number < self.0 && Self::key(number) == key).then_some(number)
    }
}

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbered")
    }
}

fn unused<T>() -> object_store::Result<T> {
    Err(Error::NotImplemented {
        operation: "this".to_owned(),
        implementer: "Numbered".to_owned(),
    })
}

#[async_trait]
impl Lister for Numbered {
    async fn page(&self, request: &ListRequest) -> object_store::Result<ListPage> {
        if "many/".starts_with(&request.prefix) && request.prefix.len() < 5 && request.delimited {
            return Ok(ListPage {
                prefixes: vec!["many/".to_owned()],
                ..ListPage::default()
            });
        }
        if request.prefix != "many/" {
            return Ok(ListPage::default());
        }
        let limit = u64::try_from(request.limit.unwrap_or(1000)).unwrap();
        let from = request
            .token
            .as_ref()
            .map_or(0, |token| token.parse().unwrap());
        let to = (from + limit).min(self.0);
        let object = |number| ListedObject {
            key: Self::key(number),
            size: 0,
            modified: SystemTime::UNIX_EPOCH,
            etag: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        };
        Ok(ListPage {
            objects: (from..to).map(object).collect(),
            prefixes: Vec::new(),
            next: (to < self.0).then(|| to.to_string()),
        })
    }
}

#[async_trait]
impl ObjectStore for Numbered {
    async fn get_opts(&self, path: &Path, _: GetOptions) -> object_store::Result<GetResult> {
        if self.number(path.as_ref()).is_none() {
            return Err(Error::NotFound {
                path: path.to_string(),
                source: "404".into(),
            });
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::empty().boxed()),
            meta: ObjectMeta {
                location: path.clone(),
                last_modified: SystemTime::UNIX_EPOCH.into(),
                size: 0,
                e_tag: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
                version: None,
            },
            range: 0..0,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    async fn put_opts(
        &self,
        _: &Path,
        _: PutPayload,
        _: PutOptions,
    ) -> object_store::Result<PutResult> {
        unused()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        unused()
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        paths.map(|_| unused()).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        stream::iter([unused()]).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> object_store::Result<ListResult> {
        unused()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        unused()
    }
}

/// Requests since the last call: HEAD and LIST.
struct Costs(Requests);

impl Costs {
    fn since(&mut self, bucket: &FlatBucket) -> (u64, u64) {
        let now = bucket.store().counters().requests();
        let before = std::mem::replace(&mut self.0, now);
        (now.heads - before.heads, now.lists - before.lists)
    }
}

fn shown(objects: u64, options: FlatOptions) -> (FlatBucket, Costs) {
    let store = Store::over(Arc::new(Numbered(objects)), RetryPolicy::default());
    let store = store.with_lister(Arc::new(Numbered(objects)));
    let costs = Costs(store.counters().requests());
    (FlatBucket::show(store, "", options), costs)
}

/// Lists a directory to its end. How many names it has.
async fn list_all(directory: &dyn Directory) -> u64 {
    let (mut cookie, mut names) = (0, 0);
    loop {
        let entries = list(directory, cookie, 500).await.unwrap();
        let Some(last) = entries.last() else {
            return names;
        };
        cookie = last.next;
        names += u64::try_from(entries.len()).unwrap();
    }
}

async fn name_of(directory: &dyn Node, number: u64) -> Result<Entry, Errno> {
    lookup(directory, format!("{number:08}").as_bytes()).await
}

#[tokio::test(start_paused = true)]
async fn a_name_among_very_many_is_one_head_and_one_list_and_none_after_a_listing() {
    let objects = objects(OBJECTS);
    let folder = tempfile::tempdir().unwrap();
    let writes = FlatOptions {
        write: Some(WriteOptions {
            staging: Staging::open(folder.path(), 1 << 20).unwrap(),
            overwrite: Overwrite::LastWins,
        }),
        ..FlatOptions::default()
    };
    let (bucket, mut costs) = shown(objects, FlatOptions::default());
    let many = lookup(bucket.root().as_ref(), b"many").await.unwrap().node;
    assert_eq!(costs.since(&bucket), (1, 1));
    for (number, there) in [
        (7, true),
        (objects - 1, true),
        (objects, false),
        (objects - 2, true),
    ] {
        for expected in [(1, 1), (0, 0)] {
            let found = name_of(many.as_ref(), number).await;
            assert_eq!(found.is_ok(), there, "{number}");
            assert_eq!(costs.since(&bucket), expected, "{number}");
        }
    }

    // The first names come before the last are known.
    let directory = many.opendir().await.unwrap();
    assert_eq!(list(directory.as_ref(), 0, 10).await.unwrap().len(), 10);
    assert_eq!(costs.since(&bucket), (0, 1));
    assert_eq!(list_all(directory.as_ref()).await, objects + 2);
    assert_eq!(costs.since(&bucket), (0, objects.div_ceil(1000)));
    name_of(many.as_ref(), objects - 1).await.unwrap();
    assert_eq!(costs.since(&bucket), (0, 0), "a listing just said so");
    advance(Duration::from_secs(2)).await;
    name_of(many.as_ref(), objects - 1).await.unwrap();
    assert_eq!(costs.since(&bucket), (1, 1), "that was long ago");

    let (bucket, mut costs) = shown(objects, writes);
    let many = lookup(bucket.root().as_ref(), b"many").await.unwrap().node;
    costs.since(&bucket);
    name_of(many.as_ref(), 7).await.unwrap();
    assert_eq!(costs.since(&bucket), (1, 1), "where it is written, too");
}

/// The memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.unwrap().split_whitespace().next();
    figure.unwrap().parse().unwrap()
}

#[test]
fn very_many_names_are_listed_in_little_memory() {
    let name = "flat::tests::many::lists_alone";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(VARIABLE, objects(OBJECTS_IN_MEMORY).to_string())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    let (_, rest) = printed.split_once("grown by ").unwrap();
    let grown: u64 = rest.split_once(" KiB").unwrap().0.parse().unwrap();
    println!("{} objects: {grown} KiB", objects(OBJECTS_IN_MEMORY));
    assert!(grown < MOST_KIB, "{grown} KiB");
}

#[tokio::test]
#[ignore = "very_many_names_are_listed_in_little_memory runs it in a process of its own"]
async fn lists_alone() {
    // Two directories are open, as two programs of a guest have it.
    let (bucket, _) = shown(objects(OBJECTS_IN_MEMORY), FlatOptions::default());
    let many = lookup(bucket.root().as_ref(), b"many").await.unwrap().node;
    let begin = resident();
    let (one, other) = (many.opendir().await.unwrap(), many.opendir().await.unwrap());
    for cookie in (0..20_000).step_by(500) {
        list(one.as_ref(), cookie, 500).await.unwrap();
    }
    let mut seen = 0;
    let (mut cookie, mut held) = (0, Vec::new());
    // A listing with attributes, of which a guest keeps the last thousand files.
    loop {
        let entries = entries_after(other.as_ref(), cookie).await;
        let Some((next, _)) = entries.last() else {
            break;
        };
        cookie = *next;
        seen += entries.len();
        held.extend(entries.into_iter().filter_map(|(_, entry)| entry));
        held.drain(..held.len().saturating_sub(1000));
    }
    assert_eq!(u64::try_from(seen).unwrap(), objects(OBJECTS_IN_MEMORY) + 2);
    println!("grown by {} KiB", resident().saturating_sub(begin));
}

/// Some entries after a cookie, with their own cookies.
async fn entries_after(directory: &dyn Directory, cookie: u64) -> Vec<(u64, Option<Entry>)> {
    struct Sink(Vec<(u64, Option<Entry>)>);
    impl EntrySink for Sink {
        fn has_room(&mut self, _name: &[u8]) -> bool {
            self.0.len() < 200
        }
        fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>) {
            self.0.push((listed.next, found));
        }
    }
    let mut sink = Sink(Vec::new());
    directory.read_plus(cookie, &mut sink).await.unwrap();
    sink.0
}
