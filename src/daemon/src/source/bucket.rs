//! `s3://BUCKET[/PREFIX]`, `gs://`, `az://`: the objects of a bucket as files.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vfsd_object_store::{DiskCache, FlatBucket, FlatOptions, Staging, StoreUrl, WriteOptions};

use super::{Kind, Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::figures::{Figure, Value, plain};
use crate::sandbox::{Needs, Share};

/// A bucket, or what is below a prefix of it.
#[derive(Debug)]
struct Bucket(StoreUrl);

/// How much of the content of buckets is kept on the disk, unless the operator says.
const CACHE_SIZE: u64 = 10 << 30;
/// Where in the cache.
const CACHE_FOLDER: &str = "objects";
/// How much may be staged that is not uploaded yet, or still open.
const STAGING_SIZE: u64 = 64 << 30;
/// Where in the cache.
const STAGING_FOLDER: &str = "staging";

/// Reads an address.
///
/// # Errors
/// When it names no bucket.
pub(super) fn read(address: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    let url = address
        .to_str()
        .ok_or_else(|| SourceError::Wrong("the name of a bucket is text".to_owned()))?
        .parse()
        .map_err(|error: vfsd_object_store::OpenError| SourceError::Wrong(error.to_string()))?;
    Ok(Arc::new(Bucket(url)))
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Storage for Bucket {
    fn is_read_only(&self, options: &StorageOptions) -> bool {
        options.store.write.is_none()
    }

    fn is(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Objects | Kind::ObjectsToWrite)
    }

    fn prepare(&self, options: &StorageOptions, readonly: bool) -> Result<Prepared, Failure> {
        let store = options.store.open(&self.0)?;
        let prefix = self.0.prefix().to_owned();
        let (uid, gid) = options.owner;
        let mut shares = Vec::new();
        let write = options.store.write.filter(|_| !readonly);
        let keeps = options.cache.is_given();
        let kept = (keeps || write.is_some()).then(|| options.cache.folder());
        if let Some(folder) = kept.transpose()? {
            shares.push(Share::at(folder, false));
        }
        let (counted, shown) = (store.clone(), self.0.clone());
        let places: Vec<_> = shares.iter().map(|share| share.path.clone()).collect();
        let size = options.cache.size.unwrap_or(CACHE_SIZE);
        Ok(Prepared {
            shares,
            needs: Needs {
                network: true,
                ..Needs::default()
            },
            private: false,
            open: Box::new(move |given| {
                let cache = given.roots.first().zip(places.first());
                let disk = cache.filter(|_| keeps).map(|(root, place)| {
                    let opened = DiskCache::open(&root.path.join(CACHE_FOLDER), size);
                    opened.map_err(|error| unusable(place, &error))
                });
                let write = cache.zip(write).map(|((root, place), overwrite)| {
                    let opened = Staging::open(&root.path.join(STAGING_FOLDER), STAGING_SIZE);
                    let staging = opened.map_err(|error| unusable(place, &error))?;
                    Ok::<_, Failure>(WriteOptions { staging, overwrite })
                });
                let options = FlatOptions {
                    uid,
                    gid,
                    disk: disk.transpose()?,
                    write: write.transpose()?,
                    ..FlatOptions::default()
                };
                let disk = options.disk.clone();
                let opened = given
                    .runtime
                    .block_on(FlatBucket::open(store, &prefix, options));
                let opened = opened.map_err(Failure::run)?;
                given.figures.add(&shown, move || {
                    let mut figures = super::store::requests(&counted);
                    figures.extend(disk.iter().flat_map(disk_figures));
                    figures
                });
                Ok(Arc::new(opened))
            }),
        })
    }
}

/// What a cache on the disk is good for.
fn disk_figures(disk: &DiskCache) -> Vec<Figure> {
    let seen = disk.look();
    let blocks = [("hit", seen.hits), ("miss", seen.misses)];
    let blocks = blocks.map(|(outcome, count)| Figure {
        name: "vfsd_store_cache_blocks_total",
        label: Some(("outcome", outcome)),
        value: Value::Counter(count),
    });
    let mut figures = vec![
        plain(
            "vfsd_store_cache_written_bytes_total",
            Value::Counter(seen.written),
        ),
        plain(
            "vfsd_store_cache_evicted_bytes_total",
            Value::Counter(seen.evicted),
        ),
        plain("vfsd_store_cache_limit_bytes", Value::Amount(seen.limit)),
    ];
    let bytes = seen.bytes.map(Value::Amount);
    figures.extend(bytes.map(|bytes| plain("vfsd_store_cache_bytes", bytes)));
    figures.extend(blocks);
    figures
}

/// `place` is where the host has the cache.
fn unusable(place: &Path, error: &std::io::Error) -> Failure {
    Failure::run(format!(
        "cannot use the cache {}: {error}; choose another with --cache-dir",
        place.display()
    ))
}
