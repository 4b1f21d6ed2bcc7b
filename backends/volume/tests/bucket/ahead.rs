//! What is read of a file that is in the bucket alone, and what comes along.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{Hosts, PREFIX, impatient_store, make_volume, open, options, root, store, sync};
use crate::care::noise;

/// A request for more is a long one.
const LONG: u64 = 512 << 10;
const SIZE: usize = 8 << 20;

/// A store on which long requests hang, from some time on.
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
        let is_long = match &options.range {
            Some(GetRange::Bounded(range)) => range.end - range.start > LONG,
            _ => false,
        };
        if is_long && self.hangs.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        self.objects.get_opts(key, options).await
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
    // So much of it is here then that all around what is read comes along.
    for mebibyte in [0, 3, 1] {
        check(mebibyte << 20, 1 << 20);
    }
    objects.hangs.store(true, Ordering::SeqCst);
    check(7 << 20, 4096);
}
