//! A bucket in memory as files: every request counted, every failure told.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use tokio::time::advance;
use vfsd_backend::{
    Backend, BufferSink, DirEntry, Directory, Entry, EntrySink, Errno, Error, File, FileKind,
    Lookup, Name, Node, OpenFlags, OpenRequest, ReadRequest,
};
use vfsd_testkit::place::{ListSink, Listed};

use super::{DiskCache, FlatBucket, FlatOptions};
use crate::store::{Fault, FaultStore, Faults, Patience, Requests, Store};

const MIB: usize = 1 << 20;

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
        let store = Store::over(below.clone(), Patience::default());
        let bucket = FlatBucket::open(store, "", options).await.unwrap();
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

/// Bytes that are different everywhere.
fn content(length: usize) -> Vec<u8> {
    let words =
        (0..u64::MAX).flat_map(|word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(length).collect()
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_a_tree_of_files() {
    let scene = Scene::new(&[("a.txt", "hello"), ("d/e/f", "12"), ("d/g", "")]).await;
    let root = scene.bucket.root();
    assert_eq!(names(root.as_ref()).await, [".", "..", "a.txt", "d"]);
    let d = scene.find("d").await.unwrap();
    assert_eq!(
        (d.attributes.kind, d.attributes.permissions),
        (FileKind::Directory, 0o755)
    );
    assert_eq!(names(d.node.as_ref()).await, [".", "..", "e", "g"]);
    let f = scene.find("d/e/f").await.unwrap();
    assert_eq!((f.attributes.size, f.attributes.permissions), (2, 0o644));
    let file = scene.open("a.txt").await.unwrap();
    assert_eq!(read(file.as_ref(), 1, 100).await.unwrap(), b"ello");
    assert_eq!(read(file.as_ref(), 5, 100).await.unwrap(), b"");
    assert_eq!(read(file.as_ref(), 1 << 40, 100).await.unwrap(), b"");
    let empty = scene.open("d/g").await.unwrap();
    assert_eq!(read(empty.as_ref(), 0, 100).await.unwrap(), b"");
    assert!(matches!(scene.find("a.txt/x").await, Err(Errno::NOTDIR)));
    assert!(matches!(
        lookup(root.as_ref(), b"\xff").await,
        Err(Errno::NOENT)
    ));
    assert!(matches!(
        lookup(root.as_ref(), b"a\nb").await,
        Err(Errno::NOENT)
    ));
}

#[tokio::test(start_paused = true)]
async fn what_was_just_listed_is_looked_up_without_a_request() {
    let mut scene = Scene::new(&[("d/a", "1"), ("d/b", "1"), ("d/c/x", "1")]).await;
    let d = scene.find("d").await.unwrap().node;
    assert_eq!(
        scene.requests(),
        (1, 1, 0),
        "a lookup is one HEAD and one LIST"
    );
    names(d.as_ref()).await;
    assert_eq!(scene.requests(), (0, 1, 0));
    names(d.as_ref()).await;
    for name in ["a", "b", "c"] {
        let entry = lookup(d.as_ref(), name.as_bytes()).await.unwrap();
        entry.node.getattr().await.unwrap();
        if entry.attributes.kind == FileKind::Regular {
            open(entry.node.as_ref()).await.unwrap();
        }
    }
    assert!(lookup(d.as_ref(), b"nothing").await.is_err());
    assert_eq!(scene.requests(), (0, 0, 0));

    advance(Duration::from_secs(1)).await;
    assert!(lookup(d.as_ref(), b"nothing").await.is_err());
    assert_eq!(scene.requests(), (1, 1, 0));
    assert!(lookup(d.as_ref(), b"nothing").await.is_err());
    lookup(d.as_ref(), b"a").await.unwrap();
    lookup(d.as_ref(), b"a").await.unwrap();
    assert_eq!(
        scene.requests(),
        (1, 1, 0),
        "what is not there is remembered, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_and_a_directory_of_the_same_name_are_the_directory() {
    let scene = Scene::new(&[("a", "file"), ("a.b", "1"), ("a/b", "1")]).await;
    assert_eq!(
        scene.find("a").await.unwrap().attributes.kind,
        FileKind::Directory
    );
    assert_eq!(scene.bucket.hidden(), 1);
    let root = scene.bucket.root();
    assert_eq!(names(root.as_ref()).await, [".", "..", "a", "a.b"]);
    assert_eq!(scene.bucket.hidden(), 2);
    assert_eq!(
        scene.find("a").await.unwrap().attributes.kind,
        FileKind::Directory
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_directory_is_listed_page_by_page_each_name_once() {
    let mut scene = Scene::new(&[]).await;
    for number in 0..12_345 {
        put(&scene.below, &format!("d/{number}"), "1".to_owned()).await;
    }
    let d = scene.find("d").await.unwrap().node;
    scene.requests();
    let directory = d.opendir().await.unwrap();
    let mut seen = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = list(directory.as_ref(), cookie, 900).await.unwrap();
        let Some(last) = entries.last() else { break };
        cookie = last.next;
        seen.extend(entries);
    }
    assert_eq!(scene.requests(), (0, 13, 0));
    let mut names: Vec<_> = seen.iter().map(|entry| &entry.name).collect();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), seen.len()), (12_347, 12_347));
    // Lookups of what was listed need no request, however large the directory is.
    lookup(d.as_ref(), b"77").await.unwrap();
    assert_eq!(scene.requests(), (0, 0, 0));

    // Cookies hold on a handle that knows nothing, forwards and backwards.
    let other = d.opendir().await.unwrap();
    for place in [11_000, 40, 12_000, 5] {
        let entries = list(other.as_ref(), seen[place].next, 3).await.unwrap();
        assert_eq!(entries[0], seen[place + 1]);
    }
    assert!(list(other.as_ref(), u64::MAX, 3).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_open_directories_keep_few_names_and_go_on_all_the_same() {
    let scene = Scene::new(&[]).await;
    for number in 0..900 {
        put(&scene.below, &format!("d/{number}"), "1".to_owned()).await;
    }
    let d = scene.find("d").await.unwrap().node;
    let mut open = Vec::new();
    for _ in 0..100 {
        let directory = d.opendir().await.unwrap();
        let first = list(directory.as_ref(), 0, 10).await.unwrap();
        open.push((directory, first));
    }
    for (directory, mut seen) in open {
        let rest = list(directory.as_ref(), seen[9].next, 1000).await.unwrap();
        seen.extend(rest);
        let mut names: Vec<_> = seen.into_iter().map(|entry| entry.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 902);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_with_attributes_needs_no_request_for_each_file() {
    struct Sink(Vec<(Vec<u8>, Option<Entry>)>);
    impl EntrySink for Sink {
        fn has_room(&mut self, _name: &[u8]) -> bool {
            true
        }
        fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>) {
            if let Some(found) = &found {
                assert_eq!(found.attributes.inode, listed.inode);
                assert_eq!(Some(found.attributes.kind), listed.kind);
            }
            self.0.push((listed.name.to_vec(), found));
        }
    }
    let mut scene = Scene::new(&[("a", "123"), ("d/x", "1")]).await;
    let directory = scene.bucket.root().opendir().await.unwrap();
    let mut sink = Sink(Vec::new());
    directory.read_plus(0, &mut sink).await.unwrap();
    assert_eq!(scene.requests(), (0, 1, 0));
    assert_eq!(sink.0.len(), 4);
    for (name, entry) in sink.0.split_off(2) {
        let listed = entry.unwrap();
        let found = lookup(scene.bucket.root().as_ref(), &name).await.unwrap();
        assert_eq!(found.node.identity(), listed.node.identity());
        assert_eq!(found.attributes, listed.attributes);
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_of_other_tools_is_shown_once_the_object_was_looked_at() {
    let scene = Scene::new(&[]).await;
    let mut attributes = Attributes::new();
    for (name, value) in [
        ("mode", "33256"),
        ("uid", "7"),
        ("gid", "8"),
        ("mtime", "1600000000.5"),
    ] {
        attributes.insert(Attribute::Metadata(name.into()), value.into());
    }
    let options = PutOptions::from(attributes);
    scene
        .below
        .inner()
        .put_opts(&Path::from("f"), "1".into(), options)
        .await
        .unwrap();
    let check = |attributes: vfsd_backend::Attributes| {
        assert_eq!(
            (attributes.permissions, attributes.uid, attributes.gid),
            (0o750, 7, 8)
        );
        assert_eq!(attributes.modified.seconds, 1_600_000_000);
    };
    let found = scene.find("f").await.unwrap();
    check(found.attributes);
    // A listing knows nothing of it, but what is known stays known.
    names(scene.bucket.root().as_ref()).await;
    check(scene.find("f").await.unwrap().attributes);
    advance(Duration::from_secs(2)).await;
    names(scene.bucket.root().as_ref()).await;
    check(scene.find("f").await.unwrap().attributes);
}

#[tokio::test(start_paused = true)]
async fn an_open_file_never_shows_another_version() {
    let scene = Scene::new(&[]).await;
    let (old, new) = (content(4 * MIB), vec![7; 4 * MIB]);
    put(&scene.below, "f", old.clone()).await;
    let before = scene.find("f").await.unwrap();
    let file = open(before.node.as_ref()).await.unwrap();
    assert_eq!(read(file.as_ref(), 0, 4096).await.unwrap(), old[..4096]);
    put(&scene.below, "f", new.clone()).await;
    // What is in memory already is of the version that was opened.
    assert_eq!(
        read(file.as_ref(), 4096, 4096).await.unwrap(),
        old[4096..8192]
    );
    assert_eq!(read(file.as_ref(), 3 * MIB, 4096).await, Err(Errno::STALE));
    assert_eq!(file.getattr().await.unwrap().size, before.attributes.size);
    assert!(
        matches!(open(before.node.as_ref()).await, Err(Errno::STALE)),
        "the guest looks it up again"
    );

    advance(Duration::from_secs(1)).await;
    let after = scene.find("f").await.unwrap();
    assert_eq!(after.attributes.inode, before.attributes.inode);
    assert_ne!(after.node.identity(), before.node.identity());
    let file = open(after.node.as_ref()).await.unwrap();
    assert_eq!(read(file.as_ref(), 0, 4096).await.unwrap(), new[..4096]);
    assert_eq!(
        read(file.as_ref(), 3 * MIB, 4096).await.unwrap(),
        new[..4096]
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_deleted_or_replaced_is_stale_and_looked_up_anew() {
    let scene = Scene::new(&[("f", "one"), ("g", "one")]).await;
    let f = scene.find("f").await.unwrap().node;
    let g = scene.find("g").await.unwrap().node;
    scene.below.inner().delete(&Path::from("f")).await.unwrap();
    put(&scene.below, "g", "longer".to_owned()).await;
    f.getattr().await.unwrap();
    advance(Duration::from_secs(1)).await;
    assert!(f.getattr().await.unwrap_err().is(Errno::STALE));
    assert!(matches!(open(g.as_ref()).await, Err(Errno::STALE)));
    assert!(matches!(scene.find("f").await, Err(Errno::NOENT)));
    assert_eq!(scene.find("g").await.unwrap().attributes.size, 6);
}

#[tokio::test(start_paused = true)]
async fn a_file_read_in_sequence_costs_few_requests() {
    let mut scene = Scene::new(&[]).await;
    let body = content(40 * MIB + 77);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    let mut read_so_far = Vec::new();
    loop {
        let part = read(file.as_ref(), read_so_far.len(), 128 << 10)
            .await
            .unwrap();
        if part.is_empty() {
            break;
        }
        read_so_far.extend(part);
    }
    assert!(read_so_far == body);
    let (heads, lists, gets) = scene.requests();
    assert_eq!((heads, lists), (0, 0));
    assert!(gets <= 41, "{gets}");
    assert_eq!(
        scene.seen.bytes_read,
        u64::try_from(body.len()).unwrap(),
        "no byte twice"
    );
}

#[tokio::test(start_paused = true)]
async fn jumping_reads_fetch_a_block_each_and_no_block_twice() {
    let mut scene = Scene::new(&[]).await;
    let body = content(32 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    for _ in 0..2 {
        for place in [20, 3, 29, 11] {
            let offset = place * MIB + 5000;
            let got = read(file.as_ref(), offset, 4096).await.unwrap();
            assert_eq!(got, body[offset..offset + 4096]);
        }
    }
    assert_eq!(scene.requests(), (0, 0, 4));
    assert_eq!(scene.seen.bytes_read, 4 * (128 << 10));
}

#[tokio::test(start_paused = true)]
async fn a_block_that_many_wait_for_is_fetched_once_and_survives_who_gave_up() {
    let mut scene = Scene::new(&[]).await;
    let body = content(8 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    scene.below.next([Fault::Delay(Duration::from_secs(2))]);
    let given_up = tokio::time::timeout(Duration::from_secs(1), read(file.as_ref(), 5 * MIB, 4096));
    let others = (0..8).map(|_| read(file.as_ref(), 5 * MIB, 4096));
    let (given_up, others) = tokio::join!(given_up, futures_util::future::join_all(others));
    assert!(given_up.is_err());
    for got in others {
        assert_eq!(got.unwrap(), body[5 * MIB..5 * MIB + 4096]);
    }
    assert_eq!(scene.requests().2, 1);
}

#[tokio::test(start_paused = true)]
async fn memory_stays_below_its_bound() {
    let options = FlatOptions {
        memory: 8 << 20,
        ..FlatOptions::default()
    };
    let scene = Scene::with(&[], options, Vec::new()).await;
    let body = content(16 * MIB);
    for name in ["a", "b", "c", "d"] {
        put(&scene.below, name, body.clone()).await;
    }
    let mut files = Vec::new();
    for name in ["a", "b", "c", "d"] {
        files.push(scene.open(name).await.unwrap());
    }
    for offset in (0..16 * MIB).step_by(MIB) {
        let reads = files.iter().map(|file| read(file.as_ref(), offset, MIB));
        for got in futures_util::future::join_all(reads).await {
            assert!(got.unwrap() == body[offset..offset + MIB]);
        }
        assert!(
            scene.bucket.memory() <= 8 << 20,
            "{}",
            scene.bucket.memory()
        );
    }
    assert!(scene.bucket.memory() > 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn with_every_fault_bytes_are_right_and_names_complete() {
    let faults = vec![
        (Fault::LostReply, 80),
        (Fault::Unavailable, 80),
        (Fault::ShortBody, 80),
        (Fault::BrokenBody, 80),
        (Fault::Delay(Duration::from_secs(1)), 40),
        (Fault::Stall, 20),
    ];
    let scene = Scene::with(&[("x/y", "1")], FlatOptions::default(), faults).await;
    let body = content(6 * MIB);
    put(&scene.below, "f", body.clone()).await;
    for round in 0..30 {
        advance(Duration::from_secs(1)).await;
        assert_eq!(
            names(scene.bucket.root().as_ref()).await,
            [".", "..", "f", "x"]
        );
        let file = scene.open("f").await.unwrap();
        let offset = (round * 200_003) % (5 * MIB);
        let got = read(file.as_ref(), offset, MIB).await.unwrap();
        assert!(got == body[offset..offset + MIB]);
        // Another version each time, so that nothing is in memory.
        put(&scene.below, "f", body.clone()).await;
    }
    assert!(scene.below.met() > 15, "{}", scene.below.met());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_an_error_after_the_time_limit_and_heals_by_itself() {
    let scene = Scene::new(&[("f", "hello")]).await;
    let f = scene.find("f").await.unwrap();
    let file = open(f.node.as_ref()).await.unwrap();
    scene.below.outage(true);
    let begun = tokio::time::Instant::now();
    assert_eq!(read(file.as_ref(), 0, 10).await, Err(Errno::IO));
    assert!(matches!(scene.find("g").await, Err(Errno::IO)));
    assert!(begun.elapsed() <= Duration::from_secs(120));
    scene.below.outage(false);
    assert_eq!(read(file.as_ref(), 0, 10).await.unwrap(), b"hello");
    assert!(matches!(scene.find("g").await, Err(Errno::NOENT)));
}

#[tokio::test(start_paused = true)]
async fn files_that_nobody_knows_any_more_are_forgotten() {
    let scene = Scene::new(&[("d/a", "1"), ("d/b", "1")]).await;
    let numbers = |scene: &Scene| scene.bucket.bucket.numbers.len();
    let found = [
        scene.find("d/a").await.unwrap(),
        scene.find("d/b").await.unwrap(),
    ];
    assert_eq!(numbers(&scene), 3, "root and both");
    drop(found);
    assert_eq!(numbers(&scene), 1);
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_the_root() {
    let below = Arc::new(InMemory::new());
    for key in ["p/q/a", "p/q/d/x", "p/qq", "other"] {
        below.put(&Path::from(key), "1".into()).await.unwrap();
    }
    let store = Store::over(below, Patience::default());
    let bucket = FlatBucket::open(store, "p/q/", FlatOptions::default())
        .await
        .unwrap();
    let root = bucket.root();
    assert_eq!(names(root.as_ref()).await, [".", "..", "a", "d"]);
    let d = lookup(root.as_ref(), b"d").await.unwrap();
    assert_eq!(names(d.node.as_ref()).await, [".", "..", "x"]);
    let a = lookup(root.as_ref(), b"a").await.unwrap();
    let file = open(a.node.as_ref()).await.unwrap();
    assert_eq!(read(file.as_ref(), 0, 9).await.unwrap(), b"1");
}

#[tokio::test]
async fn what_the_disk_keeps_is_not_fetched_again_and_belongs_to_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let disk = DiskCache::open(dir.path(), 64 << 20).unwrap();
    let options = || FlatOptions {
        disk: Some(disk.clone()),
        ..FlatOptions::default()
    };
    let (old, new) = (content(3 * MIB + 5), vec![9; 3 * MIB + 5]);
    let below = Arc::new(InMemory::new());
    let scene = || async {
        let store = Store::over(below.clone(), Patience::default());
        let bucket = FlatBucket::open(store, "", options()).await.unwrap();
        let found = lookup(bucket.root().as_ref(), b"f").await.unwrap();
        let file = open(found.node.as_ref()).await.unwrap();
        let mut body = Vec::new();
        while body.len() < old.len() {
            body.extend(read(file.as_ref(), body.len(), MIB).await.unwrap());
        }
        // What is on its way to the disk has to come there.
        drop(bucket.bucket.blocks.kept().await);
        (body, bucket.store().counters().requests().gets)
    };
    below
        .put(&Path::from("f"), old.clone().into())
        .await
        .unwrap();
    let (body, gets) = scene().await;
    assert!(body == old && gets > 0);
    let (body, gets) = scene().await;
    assert!(body == old);
    assert_eq!(gets, 0);
    below
        .put(&Path::from("f"), new.clone().into())
        .await
        .unwrap();
    let (body, gets) = scene().await;
    assert!(body == new && gets > 0);
    // A daemon that finds damaged blocks fetches them.
    for folder in std::fs::read_dir(dir.path()).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
    let (body, gets) = scene().await;
    assert!(body == new && gets > 0);
}
