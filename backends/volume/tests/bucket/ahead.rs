//! What is read of a file that is in the bucket alone, and what comes along.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{Hosts, PREFIX, impatient_store, make_volume, open, options, root, store, sync};
use crate::care::noise;

/// So much of what is asked for comes.
const COMES: usize = 512 << 10;
const SIZE: usize = 8 << 20;

/// A store whose replies hang after a while, from some time on.
#[derive(Debug)]
struct Hanging {
    objects: InMemory,
    hangs: AtomicBool,
}

impl fmt::Display for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Hanging {
    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.objects.put_opts(key, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.objects.get_opts(key, options).await?;
        if self.hangs.load(Ordering::SeqCst)
            && let GetResultPayload::Stream(body) = result.payload
        {
            let bytes: Vec<Bytes> = body.try_collect().await?;
            let bytes = bytes.concat();
            let rest = bytes.len() > COMES;
            let first = Bytes::from(bytes);
            let first = first.slice(..first.len().min(COMES));
            let first = stream::once(async { Ok(first) });
            result.payload = GetResultPayload::Stream(match rest {
                true => first.chain(stream::pending()).boxed(),
                false => first.boxed(),
            });
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[test]
fn who_reads_a_little_does_not_wait_for_what_comes_along() {
    let objects = Arc::new(Hanging {
        objects: InMemory::new(),
        hangs: AtomicBool::new(false),
    });
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let content = noise(1, SIZE);
    let writer = open(&bucket, &hosts.fresh());
    root(&writer).put("file", &content).unwrap();
    sync(&writer);
    drop(writer);
    let options = RemoteOptions {
        cache_size: None,
        ..options()
    };
    let bucket = impatient_store(objects.clone());
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &options).unwrap();
    let file = root(&volume).lookup("file").unwrap();
    let file = file.open(vfsd_backend::OpenFlags::READ).unwrap();
    let check = |offset: usize, length: usize| {
        let read = file.read(u64::try_from(offset).unwrap(), length).unwrap();
        assert!(read == content[offset..offset + length], "{offset}");
    };
    // So much of it is here then that all that follows what is read comes along.
    for mebibyte in [0, 3, 1] {
        check(mebibyte << 20, 1 << 20);
    }
    objects.hangs.store(true, Ordering::SeqCst);
    check(4 << 20, 4096);
}

/// How many requests a cold file of 32 MiB takes that is read here and there, until nearly all of it is here.
#[test]
fn who_reads_at_random_makes_few_requests() {
    const SIZE: usize = 32 << 20;
    const BLOCK: usize = 4096;
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let content = noise(5, SIZE);
    // One round, so that it lies in as few segments as can be.
    let options = RemoteOptions {
        cache_size: None,
        lag: Duration::from_secs(3600),
        ..options()
    };
    let writer = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &options).unwrap();
    root(&writer).put("file", &content).unwrap();
    sync(&writer);
    drop(writer);
    let bucket = store(objects);
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &options).unwrap();
    let file = root(&volume).lookup("file").unwrap();
    let file = file.open(vfsd_backend::OpenFlags::READ).unwrap();
    let before = bucket.counters().requests();
    let places = noise(6, 2 * 600);
    for place in places.chunks_exact(2) {
        let block = usize::from(u16::from_le_bytes([place[0], place[1]])) % (SIZE / BLOCK);
        let at = block * BLOCK;
        let read = file.read(u64::try_from(at).unwrap(), BLOCK).unwrap();
        assert!(read == content[at..at + BLOCK], "{block}");
    }
    let now = bucket.counters().requests();
    let (gets, read) = (now.gets - before.gets, now.bytes_read - before.bytes_read);
    assert!(read < (SIZE + (1 << 20)) as u64, "{read}");
    // 128 frames, of which each would take one by itself.
    assert!(gets <= 38, "{gets}");
}
