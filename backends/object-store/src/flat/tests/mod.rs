//! A bucket in memory as files: every request counted, every failure told.

mod attributes;
mod content;
mod kept;
mod lost;
mod many;
mod meanwhile;
mod names;
mod tree;
mod writable;
mod write;

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use vfsd_backend::{
    Backend, BufferSink, DirEntry, Directory, Entry, EntrySink, Errno, Error, File, Lookup, Name,
    Node, OpenFlags, OpenRequest, ReadRequest,
};
use vfsd_testkit::place::{ListSink, Listed};

use super::{FlatBucket, FlatOptions};
use crate::store::{Fault, FaultStore, Faults, Requests, RetryPolicy, Store};

struct Scene {
    bucket: FlatBucket,
    below: Arc<FaultStore>,
    seen: Requests,
}

impl Scene {
    async fn new(objects: &[(&str, &str)]) -> Self {
        Self::with(objects, FlatOptions::default(), Vec::new()).await
    }

    async fn with(
        objects: &[(&str, &str)],
        options: FlatOptions,
        per_mille: Vec<(Fault, u32)>,
    ) -> Self {
        let faults = Faults {
            per_mille,
            seed: 42,
        };
        let below = Arc::new(FaultStore::new(Arc::new(InMemory::new()), faults));
        for (key, body) in objects {
            put(&below, key, (*body).to_owned()).await;
        }
        let store = Store::over(below.clone(), RetryPolicy::default());
        let store = store.with_attributes(below.clone());
        // Faults are for what follows: a probe takes a conflict for an answer.
        store.check("").await.unwrap();
        let bucket = FlatBucket::show(store, "", options);
        let seen = bucket.store().counters().requests();
        Self {
            bucket,
            below,
            seen,
        }
    }

    /// HEAD, LIST and GET requests since the last call.
    fn requests(&mut self) -> (u64, u64, u64) {
        let now = self.bucket.store().counters().requests();
        let before = std::mem::replace(&mut self.seen, now);
        (
            now.heads - before.heads,
            now.lists - before.lists,
            now.gets - before.gets,
        )
    }

    async fn find(&self, path: &str) -> Result<Entry, Errno> {
        let mut node = self.bucket.root();
        let mut found = None;
        for name in path.split('/') {
            let entry = lookup(node.as_ref(), name.as_bytes()).await?;
            node = entry.node.clone();
            found = Some(entry);
        }
        found.ok_or(Errno::NOENT)
    }

    async fn open(&self, path: &str) -> Result<Arc<dyn File>, Errno> {
        open(self.find(path).await?.node.as_ref()).await
    }
}

async fn put(store: &FaultStore, key: &str, body: impl Into<object_store::PutPayload>) {
    store
        .inner()
        .put(&Path::from(key), body.into())
        .await
        .unwrap();
}

fn errno(error: Error) -> Errno {
    match error {
        Error::Errno(errno) => errno,
        Error::NotSupported => Errno::OPNOTSUPP,
        Error::Storage(_) => Errno::IO,
    }
}

/// A listing with attributes, without `.` and `..`.
async fn list_plus(directory: &dyn Directory) -> Vec<(Vec<u8>, Option<Entry>)> {
    struct Sink(Vec<(Vec<u8>, Option<Entry>)>);
    impl EntrySink for Sink {
        fn has_room(&mut self, _name: &[u8]) -> bool {
            true
        }
        fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>) {
            if let Some(found) = &found {
                assert_eq!(found.attributes.inode, listed.inode);
                assert!(listed.kind.is_none_or(|kind| kind == found.attributes.kind));
            }
            self.0.push((listed.name.to_vec(), found));
        }
    }
    let mut sink = Sink(Vec::new());
    directory.read_plus(0, &mut sink).await.unwrap();
    sink.0.split_off(2)
}

async fn lookup(node: &dyn Node, name: &[u8]) -> Result<Entry, Errno> {
    match node.lookup(Name::new(name)?).await.map_err(errno)? {
        Lookup::Found(entry) => Ok(entry),
        Lookup::Missing { .. } => Err(Errno::NOENT),
    }
}

async fn open(node: &dyn Node) -> Result<Arc<dyn File>, Errno> {
    let request = OpenRequest {
        flags: OpenFlags::READ,
        kill_privileges: false,
    };
    Ok(node.open(request).await.map_err(errno)?.file)
}

async fn read(file: &dyn File, offset: usize, length: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; length];
    let mut sink = BufferSink::new(&mut buffer);
    let offset = u64::try_from(offset).unwrap();
    let read = file
        .read(ReadRequest { offset, length }, &mut sink)
        .await
        .map_err(errno)?;
    assert_eq!(read, sink.filled());
    buffer.truncate(read);
    Ok(buffer)
}

async fn list(directory: &dyn Directory, cookie: u64, room: usize) -> Result<Vec<Listed>, Errno> {
    let mut sink = ListSink::new(room);
    directory.read(cookie, &mut sink).await.map_err(errno)?;
    Ok(sink.entries)
}

async fn names(node: &dyn Node) -> Vec<String> {
    let directory = node.opendir().await.unwrap();
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = list(directory.as_ref(), cookie, 7).await.unwrap();
        let Some(last) = entries.last() else {
            names.sort();
            return names;
        };
        cookie = last.next;
        names.extend(
            entries
                .into_iter()
                .map(|entry| String::from_utf8(entry.name).unwrap()),
        );
    }
}
