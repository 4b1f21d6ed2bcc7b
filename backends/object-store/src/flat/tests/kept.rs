//! What is read from the disk, where memory has no room.

use std::future::Future;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use vfsd_backend::{
    Backend, BufferSink, Errno, File, ReadRequest, ReadSink, Result as BackendResult, Wait,
};

use super::content::content;
use super::{lookup, open, read};
use crate::flat::{DiskCache, FlatBucket, FlatOptions};
use crate::store::{RetryPolicy, Store};

const MIB: usize = 1 << 20;
const BLOCK: usize = 128 << 10;

/// An object `f`, a directory that keeps blocks, and memory for less than both.
struct Kept {
    below: Arc<InMemory>,
    directory: TempDir,
}

impl Kept {
    async fn new(body: &[u8]) -> Self {
        let this = Self {
            below: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
        };
        this.put(body).await;
        this
    }

    async fn put(&self, body: &[u8]) {
        let body = body.to_vec().into();
        self.below.put(&Path::from("f"), body).await.unwrap();
    }

    /// As a daemon opens it that was just started. Without readahead everything that is read comes to the disk, however
    /// slow that is.
    async fn open(&self, readahead: u64) -> (FlatBucket, Arc<dyn File>) {
        self.open_with(readahead, self.disk()).await
    }

    fn disk(&self) -> DiskCache {
        DiskCache::open(self.directory.path(), 1 << 30).unwrap()
    }

    async fn open_with(&self, readahead: u64, disk: DiskCache) -> (FlatBucket, Arc<dyn File>) {
        let options = FlatOptions {
            memory: 8 << 20,
            readahead,
            disk: Some(disk),
            ..FlatOptions::default()
        };
        let store = Store::over(self.below.clone(), RetryPolicy::default());
        let bucket = FlatBucket::open(store, "", options).await.unwrap();
        let found = lookup(bucket.root().as_ref(), b"f").await.unwrap();
        let file = open(found.node.as_ref()).await.unwrap();
        (bucket, file)
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let folders = std::fs::read_dir(self.directory.path()).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Changes the last byte of each file, so that it shows.
    fn damage(&self) {
        for path in self.files() {
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            let changed = || {
                let metadata = std::fs::metadata(&path).unwrap();
                (metadata.ctime(), metadata.ctime_nsec())
            };
            let before = changed();
            // The clock of a file system may be a slow one.
            while changed() == before {
                std::fs::write(&path, &bytes).unwrap();
            }
        }
    }
}

/// All of a file, in pieces of this length; what is kept of each has come to the disk before the next one is read.
async fn read_all(bucket: &FlatBucket, file: &dyn File, length: usize) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let part = read(file, body.len(), length).await.unwrap();
        if part.is_empty() {
            break;
        }
        body.extend(part);
        assert!(bucket.memory() <= 8 << 20);
        assert!(bucket.bucket.blocks.allocated() <= 8 << 20);
        drop(bucket.bucket.blocks.kept().await);
    }
    body
}

fn gets(bucket: &FlatBucket) -> u64 {
    bucket.store().counters().requests().gets
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_keeps_is_not_fetched_again_and_belongs_to_its_version() {
    let (old, new) = (content(3 * MIB + 5), vec![9; 3 * MIB + 5]);
    let kept = Kept::new(&old).await;
    let read_new = || async {
        let (bucket, file) = kept.open(0).await;
        let body = read_all(&bucket, file.as_ref(), MIB).await;
        (body, gets(&bucket))
    };
    let (body, gets) = read_new().await;
    assert!(body == old && gets > 0);
    let (body, gets) = read_new().await;
    assert!(body == old);
    assert_eq!(gets, 0);
    kept.put(&new).await;
    let (body, gets) = read_new().await;
    assert!(body == new && gets > 0);
    // A daemon that finds damaged blocks fetches them.
    kept.damage();
    let (body, gets) = read_new().await;
    assert!(body == new && gets > 0);
    let (body, gets) = read_new().await;
    assert!(body == new);
    assert_eq!(gets, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_memory_has_no_room_for_is_read_from_the_disk() {
    let body = content(20 * MIB + 77);
    let kept = Kept::new(&body).await;
    let first = kept.open(0).await;
    assert!(read_all(&first.0, first.1.as_ref(), MIB).await == body);
    for (bucket, file) in [first, kept.open(32 << 20).await] {
        let before = gets(&bucket);
        // Jumps first: a page each, and what begins in one block and ends in another.
        for number in 0..100 {
            let (offset, length) = (number * 7_777_777 % body.len(), 1 + number * 333);
            let got = read(file.as_ref(), offset, length).await.unwrap();
            let end = (offset + length).min(body.len());
            assert!(got == body[offset..end], "{offset}");
        }
        for length in [MIB, BLOCK, 100_003] {
            assert!(read_all(&bucket, file.as_ref(), length).await == body);
        }
        for number in 0..200 {
            let offset = number * 977_777 % body.len();
            let got = read(file.as_ref(), offset, 200_000).await.unwrap();
            let end = (offset + 200_000).min(body.len());
            assert!(got == body[offset..end], "{offset}");
        }
        assert_eq!(gets(&bucket), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_damaged_while_their_file_is_open_are_fetched() {
    let body = content(20 * MIB + 77);
    let kept = Kept::new(&body).await;
    let (bucket, file) = kept.open(0).await;
    assert!(read_all(&bucket, file.as_ref(), MIB).await == body);
    let before = gets(&bucket);
    kept.damage();
    assert!(read_all(&bucket, file.as_ref(), MIB).await == body);
    assert!(gets(&bucket) > before);
    // As if somebody had cleaned up.
    for path in kept.files() {
        std::fs::write(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    assert!(read_all(&bucket, file.as_ref(), MIB).await == body);
}

/// A sink of a file system that always has to wait for the disk.
struct Waiting<'a>(BufferSink<'a>);

impl ReadSink for Waiting<'_> {
    fn room(&self) -> usize {
        self.0.room()
    }

    fn put(&mut self, bytes: &[u8]) -> BackendResult<usize> {
        self.0.put(bytes)
    }

    fn put_from(
        &mut self,
        _: BorrowedFd<'_>,
        _: u64,
        _: usize,
        wait: Wait,
    ) -> BackendResult<usize> {
        assert_eq!(wait, Wait::Refused, "what was not checked just now");
        Err(Errno::AGAIN.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_be_waited_for_is_checked() {
    let body = content(20 * MIB + 77);
    let kept = Kept::new(&body).await;
    let (bucket, file) = kept.open(0).await;
    assert!(read_all(&bucket, file.as_ref(), MIB).await == body);
    let before = gets(&bucket);
    for number in 0..50 {
        let (offset, length) = (number * 977_777 % (19 * MIB), 300_000);
        let mut buffer = vec![0; length];
        let mut sink = Waiting(BufferSink::new(&mut buffer));
        let request = ReadRequest {
            offset: u64::try_from(offset).unwrap(),
            length,
        };
        let got = file.read(request, &mut sink).await.unwrap();
        assert_eq!((got, sink.0.filled()), (length, length));
        assert!(buffer == body[offset..offset + length], "{offset}");
    }
    assert_eq!(gets(&bucket), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_opens_no_file_and_another_thread_reads_the_pages() {
    let body = content(4 * MIB);
    let kept = Kept::new(&body).await;
    let (bucket, file) = kept.open(0).await;
    assert!(read_all(&bucket, file.as_ref(), MIB).await == body);
    let disk = kept.disk();
    let (bucket, file) = kept.open_with(0, disk.clone()).await;
    let mut buffer = vec![0; 5000];
    let mut sink = BufferSink::new(&mut buffer);
    let request = ReadRequest {
        offset: 3 << 20,
        length: 5000,
    };
    let mut answer = file.read(request, &mut sink);
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(&mut answer).poll(&mut context).is_pending());
    assert!(disk.open_groups().is_empty());
    assert_eq!(answer.await.unwrap(), 5000);
    assert!(buffer == body[3 << 20..][..5000]);
    assert_eq!(disk.open_groups().len(), 1);
    assert_eq!((gets(&bucket), bucket.memory()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_had_and_had_not_is_counted() {
    let body = content(3 * BLOCK);
    let kept = Kept::new(&body).await;
    let disk = kept.disk();
    assert_eq!((disk.look().hits, disk.look().bytes), (0, None));
    let (bucket, file) = kept.open_with(0, disk.clone()).await;
    assert!(read_all(&bucket, file.as_ref(), body.len()).await == body);
    drop(bucket.bucket.blocks.kept().await);
    let first = disk.look();
    assert_eq!((first.hits, first.misses), (0, 3));
    assert_eq!(first.written, body.len() as u64);
    assert!(first.bytes.unwrap() >= first.written, "{first:?}");
    assert_eq!((first.evicted, first.limit), (0, 1 << 30));

    let disk = kept.disk();
    let (bucket, file) = kept.open_with(0, disk.clone()).await;
    assert!(read_all(&bucket, file.as_ref(), body.len()).await == body);
    let again = disk.look();
    assert_eq!((again.hits, again.misses, again.written), (3, 0, 0));
    assert_eq!(gets(&bucket), 0);
}
