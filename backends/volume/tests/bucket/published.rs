//! What a volume is, read on one host while another one writes to it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use vfsd_backend::{Backend, Capabilities, Errno};
use vfsd_object_store::Store;
use vfsd_volume::{Lock, RemoteOptions, Snapshot, Volume, VolumeError};

use crate::bench::{Hosts, PREFIX, make_volume, open, options, root, store, sync, try_open};
use crate::care::{change_until_below, clean, noise, open_tidy, snapshot};

fn try_read(bucket: &Store, host: &Path) -> std::result::Result<Volume, VolumeError> {
    std::fs::create_dir_all(host).unwrap();
    let options = RemoteOptions {
        cache_size: None,
        ..options()
    };
    let lock = Lock::of(host)?;
    Volume::open_published(bucket, PREFIX, (host, lock), &options)
}

fn read(bucket: &Store, host: &Path) -> Volume {
    try_read(bucket, host).unwrap()
}

fn content(volume: &Volume, name: &str) -> std::result::Result<Vec<u8>, Errno> {
    root(volume).lookup(name)?.content()
}

fn snapshots(bucket: &Store) -> Vec<Snapshot> {
    let listed = Volume::snapshots_remote(bucket, PREFIX);
    vfsd_testkit::block_on(listed).unwrap()
}

#[test]
fn a_reader_sees_what_was_synced_and_takes_the_volume_from_nobody() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    // Also before anything was written.
    let empty = read(&bucket, &here);
    assert!(root(&empty).names().unwrap().is_empty());
    drop(empty);
    let writer = open(&bucket, &hosts.fresh());
    let owner = || {
        let status = vfsd_testkit::block_on(Volume::stat_remote(&bucket, PREFIX)).unwrap();
        status.owner.unwrap().instance
    };
    let before = owner();
    root(&writer).put("small", b"one").unwrap();
    root(&writer).put("large", &noise(1, 300_000)).unwrap();
    sync(&writer);
    let one = read(&bucket, &here);
    let held = snapshots(&bucket);
    assert!(held.len() == 1 && held[0].temporary, "{held:?}");
    root(&writer).lookup("small").unwrap().truncate(0).unwrap();
    root(&writer).unlink("large").unwrap();
    root(&writer).put("later", b"two").unwrap();
    sync(&writer);
    let two = read(&bucket, &hosts.fresh());
    assert_eq!(owner(), before);
    assert_eq!(content(&one, "small").unwrap(), b"one");
    assert!(content(&one, "large").unwrap() == noise(1, 300_000));
    assert!(!root(&one).has("later"), "it does not follow the writer");
    assert_eq!(content(&two, "small").unwrap(), b"");
    assert_eq!(content(&two, "later").unwrap(), b"two");
    assert!(!root(&two).has("large"));
    for reader in [&one, &two] {
        assert!(reader.capabilities().contains(Capabilities::IMMUTABLE));
        let refused = root(reader).put("new", b"").map(drop).unwrap_err();
        assert_eq!(refused, Errno::ROFS);
    }
    one.close().unwrap();
    drop((one, two));
    assert!(snapshots(&bucket).is_empty(), "nothing is held any more");
    root(&writer).put("last", b"three").unwrap();
    sync(&writer);
    // What the directory has of an earlier state is not taken for this one's.
    let again = read(&bucket, &here);
    assert_eq!(content(&again, "small").unwrap(), b"");
    assert_eq!(content(&again, "last").unwrap(), b"three");
    let busy = try_read(&bucket, &here).unwrap_err();
    assert!(matches!(busy, VolumeError::Locked { .. }), "{busy}");
}

/// The writer rewrites everything, and removes all that is not needed, however young it is.
#[test]
fn what_a_reader_has_not_read_yet_is_not_removed() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    let writer = open_tidy(&bucket, &here);
    let (large, small) = (noise(1, 300_000), noise(2, 5_000));
    let file = root(&writer).put("large", &large).unwrap();
    root(&writer).put("small", &small).unwrap();
    sync(&writer);
    let reader = read(&bucket, &hosts.fresh());
    let handle = file.open_both().unwrap();
    for seed in 3..33 {
        handle.write_all(0, &noise(seed, 300_000)).unwrap();
        sync(&writer);
    }
    root(&writer).unlink("small").unwrap();
    change_until_below(&writer, &objects, 2_000_000);
    drop((file, handle));
    // One by hand, too.
    drop(writer);
    clean(&bucket, &hosts.fresh(), false).unwrap();
    assert!(content(&reader, "large").unwrap() == large);
    assert!(content(&reader, "small").unwrap() == small);
    drop(reader);
    let again = clean(&bucket, &hosts.fresh(), false).unwrap();
    assert!(again.segments.objects > 0, "{again:?}");
    // Whoever has the volume begins with a checkpoint that may be replaced meanwhile.
    let writer = open_tidy(&bucket, &here);
    for number in 0..20_u8 {
        let _ = root(&writer).unlink("small");
        root(&writer).put("small", &[number; 3000]).unwrap();
        sync(&writer);
        let reader = read(&bucket, &hosts.fresh());
        assert_eq!(content(&reader, "small").unwrap(), [number; 3000]);
    }
}

#[test]
fn what_was_read_is_here_the_next_time_if_nothing_has_changed() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let (writer, here) = (open(&bucket, &hosts.fresh()), hosts.fresh());
    let expected = noise(1, 300_000);
    root(&writer).put("file", &expected).unwrap();
    drop(writer);
    let reader = read(&bucket, &here);
    assert!(content(&reader, "file").unwrap() == expected);
    drop(reader);
    let listed = objects.list(Some(&Key::from(format!("{PREFIX}/seg"))));
    let removed = listed.map(|object| object.map(|object| object.location));
    let removed = objects.delete_stream(removed.boxed()).collect::<Vec<_>>();
    assert!(!vfsd_testkit::block_on(removed).is_empty());
    let reader = read(&bucket, &here);
    assert!(content(&reader, "file").unwrap() == expected);
    let elsewhere = read(&bucket, &hosts.fresh());
    assert_eq!(content(&elsewhere, "file"), Err(Errno::IO));
}

/// A host whose credentials are for reading.
#[derive(Debug)]
struct ForReading(Arc<InMemory>);

fn denied<T>(key: &Key) -> Result<T> {
    Err(Error::PermissionDenied {
        path: key.to_string(),
        source: "these credentials are for reading".into(),
    })
}

impl fmt::Display for ForReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for ForReading {
    async fn put_opts(&self, key: &Key, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        denied(key)
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        denied(key)
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        keys.map(|key| denied(&key?)).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, key: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        denied(key)
    }
}

#[test]
fn who_may_not_write_to_the_bucket_reads_what_the_volume_still_needs() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let writer = open_tidy(&bucket, &hosts.fresh());
    let (kept, removed) = (noise(1, 300_000), noise(2, 300_000));
    root(&writer).put("kept", &kept).unwrap();
    sync(&writer);
    root(&writer).put("removed", &removed).unwrap();
    sync(&writer);
    let for_reading = store(Arc::new(ForReading(objects.clone())));
    assert!(try_open(&for_reading, &hosts.fresh()).is_err());
    let reader = read(&for_reading, &hosts.fresh());
    assert!(snapshots(&bucket).is_empty());
    root(&writer).unlink("removed").unwrap();
    change_until_below(&writer, &objects, 500_000);
    // A snapshot of now has nothing of it.
    snapshot(&bucket, "s", &mut hosts).unwrap();
    assert_eq!(content(&reader, "removed"), Err(Errno::IO));
    assert!(content(&reader, "kept").unwrap() == kept);
}
