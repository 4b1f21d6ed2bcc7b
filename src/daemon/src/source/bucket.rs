//! `s3://BUCKET[/PREFIX]`, `gs://`, `az://`: the objects of a bucket as files, to be read.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vfsd_object_store::{DiskCache, FlatBucket, FlatOptions, Patience, Store, StoreUrl};

use super::{Prepared, Root, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::{Needs, Share};

/// A bucket, or what is below a prefix of it.
#[derive(Debug)]
struct Bucket(StoreUrl);

/// How long one attempt of a request may be without a sign of life.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How much of the content of buckets is kept on the disk, unless the operator says.
const CACHE_SIZE: u64 = 10 << 30;
/// Where in the cache.
const CACHE_FOLDER: &str = "objects";

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
    fn is_read_only(&self) -> bool {
        true
    }

    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        let mut store_options = vfsd_object_store::StoreOptions::from_env();
        for option in &options.store.options {
            store_options.set(option).map_err(Failure::usage)?;
        }
        let patience = Patience::new(options.store.timeout, ATTEMPT);
        // Certificates and credentials are files of the host.
        let store = Store::open(&self.0, &store_options, patience).map_err(Failure::run)?;
        let prefix = self.0.prefix().to_owned();
        let (uid, gid) = options.owner;
        let mut shares = Vec::new();
        let kept = options.cache.is_given().then(|| options.cache.folder());
        if let Some(folder) = kept.transpose()? {
            shares.push(Share::at(folder, false));
        }
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
                let disk = given.roots.first().zip(places.first());
                let options = FlatOptions {
                    uid,
                    gid,
                    disk: disk
                        .map(|(root, place)| disk_cache(root, place, size))
                        .transpose()?,
                    ..FlatOptions::default()
                };
                let opened = given
                    .runtime
                    .block_on(FlatBucket::open(store, &prefix, options));
                Ok(Arc::new(opened.map_err(Failure::run)?))
            }),
        })
    }
}

/// The part of the cache that is of buckets; `place` is where the host has the cache.
fn disk_cache(root: &Root, place: &Path, size: u64) -> Result<DiskCache, Failure> {
    DiskCache::open(&root.path.join(CACHE_FOLDER), size).map_err(|error| {
        Failure::run(format!(
            "cannot use the cache {}: {error}; choose another with --cache-dir",
            place.display()
        ))
    })
}
