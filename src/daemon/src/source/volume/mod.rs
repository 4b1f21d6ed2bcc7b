//! `volume:file:DIR`, `volume:s3://BUCKET/PREFIX` (also gs:// and az://): a POSIX file system of its own, kept in a directory
//! of this host or in a bucket.

mod bucket;
mod directory;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vfsd_object_store::StoreUrl;
use vfsd_volume::{
    Amount, CheckReport, Cleaned, Durability, Quota, RemoteStatus, Snapshot, Volume, VolumeOptions,
    VolumeStatus,
};

use super::{Prepared, SourceError, Storage, StorageOptions, StoreSettings};
use crate::exit::Failure;

/// A volume, and where it is.
#[derive(Debug, Clone)]
pub(crate) enum VolumeSource {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket.
    Bucket(StoreUrl),
}

/// What an operator decides about volumes in buckets.
#[derive(Debug, Clone, Default)]
pub(crate) struct VolumeSettings {
    /// Where each has a directory of its own on this host.
    pub(crate) state: Option<PathBuf>,
    /// What fsync waits for.
    pub(crate) durability: Durability,
    /// Takes the volume from a daemon that has it open.
    pub(crate) takeover: bool,
}

/// What is known of a volume.
#[derive(Debug)]
pub(crate) enum Status {
    Directory(VolumeStatus),
    Bucket(RemoteStatus),
}

/// Which words name a volume.
const FORMS: &str = "volume:file:DIR, a volume in a directory, or volume:s3://BUCKET/PREFIX (also gs:// and az://), a \
                     volume in a bucket";

/// Reads what stands behind `volume:`.
///
/// # Errors
/// When it is no place for a volume.
pub(super) fn read(place: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    Ok(Arc::new(VolumeSource::parse(place)?))
}

impl VolumeSource {
    /// Reads what stands behind `volume:`.
    ///
    /// # Errors
    /// When it is no place for a volume.
    fn parse(place: &OsStr) -> Result<Self, SourceError> {
        if let Some(path) = place.as_bytes().strip_prefix(b"file:") {
            return match path {
                [] => Err(SourceError::Wrong(
                    "no directory named: use volume:file:DIR".to_owned(),
                )),
                path => Ok(Self::Directory(OsStr::from_bytes(path).into())),
            };
        }
        let Some(address) = place.to_str().filter(|address| address.contains("://")) else {
            return Err(SourceError::Wrong(format!(
                "no place for a volume: use {FORMS}"
            )));
        };
        let url: StoreUrl = address
            .parse()
            .map_err(|error: vfsd_object_store::OpenError| SourceError::Wrong(error.to_string()))?;
        if url.prefix().is_empty() {
            return Err(SourceError::Wrong(format!(
                "a volume has a prefix of its own in the bucket: use volume:{}/PREFIX",
                address.trim_end_matches('/')
            )));
        }
        Ok(Self::Bucket(url))
    }

    /// Reads the word of a command line that names a volume.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn named(word: &OsStr) -> Result<Self, SourceError> {
        match word.as_bytes().strip_prefix(b"volume:") {
            Some(place) => Self::parse(OsStr::from_bytes(place)),
            None => Err(SourceError::Wrong(format!(
                "this is no volume: use {FORMS}"
            ))),
        }
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// When something is there already, or it cannot be written to.
    pub(crate) fn create(
        &self,
        options: &VolumeOptions,
        store: &StoreSettings,
    ) -> Result<(), Failure> {
        match self {
            Self::Directory(path) => directory::create(path, options),
            Self::Bucket(url) => bucket::create(url, options, store),
        }
    }

    /// Changes how much the volume may hold.
    ///
    /// # Errors
    /// When there is none, or it cannot be written to.
    pub(crate) fn change_quota(
        &self,
        change: impl Fn(&mut Quota),
        store: &StoreSettings,
    ) -> Result<(), Failure> {
        match self {
            Self::Directory(path) => Volume::change_quota(path, change).map_err(Failure::run),
            Self::Bucket(url) => bucket::change_quota(url, change, store),
        }
    }

    /// Looks whether the volume is whole.
    ///
    /// # Errors
    /// When it cannot be looked at, or is in use and in a directory.
    pub(crate) fn check(&self, store: &StoreSettings) -> Result<CheckReport, Failure> {
        match self {
            Self::Directory(path) => directory::check(path),
            Self::Bucket(url) => bucket::check(url, store),
        }
    }

    /// Removes what the volume does not need any more and is older than `min_age`, or only tells of it.
    ///
    /// # Errors
    /// When it is no volume in a bucket, is in use, or cannot be cleaned up.
    pub(crate) fn clean(
        &self,
        min_age: Duration,
        dry: bool,
        store: &StoreSettings,
    ) -> Result<Cleaned, Failure> {
        match self {
            Self::Directory(_) => Err(Failure::usage(format!(
                "{self} keeps nothing that it does not need: only volumes in buckets are cleaned up"
            ))),
            Self::Bucket(url) => bucket::clean(url, min_age, dry, store),
        }
    }

    /// The place of a volume in a bucket.
    fn bucket(&self) -> Result<&StoreUrl, Failure> {
        match self {
            Self::Bucket(url) => Ok(url),
            Self::Directory(path) => Err(Failure::usage(format!(
                "{self} has no snapshots, volumes in buckets have: copy {} while nobody uses it",
                path.display()
            ))),
        }
    }

    /// Keeps the volume as it is now.
    ///
    /// # Errors
    /// When it is no volume in a bucket, the name is none or taken, or the store fails.
    pub(crate) fn snapshot(&self, name: &str, store: &StoreSettings) -> Result<Snapshot, Failure> {
        bucket::snapshot(self.bucket()?, name, store)
    }

    /// What is kept of the volume.
    ///
    /// # Errors
    /// When it is no volume in a bucket, or the store fails.
    pub(crate) fn snapshots(&self, store: &StoreSettings) -> Result<Vec<Snapshot>, Failure> {
        bucket::snapshots(self.bucket()?, store)
    }

    /// Gives a snapshot up.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) fn delete_snapshot(&self, name: &str, store: &StoreSettings) -> Result<(), Failure> {
        bucket::delete_snapshot(self.bucket()?, name, store)
    }

    /// Makes another volume of a snapshot, or of what the volume is now.
    ///
    /// # Errors
    /// When one of them is no volume in a bucket, there is no such snapshot, something is there, or the store fails.
    pub(crate) fn copy(
        &self,
        snapshot: Option<&str>,
        to: &Self,
        store: &StoreSettings,
    ) -> Result<Amount, Failure> {
        bucket::copy(self.bucket()?, snapshot, to.bucket()?, store)
    }

    /// What the volume is. It may be in use.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn stat(&self, store: &StoreSettings) -> Result<Status, Failure> {
        match self {
            Self::Directory(path) => directory::stat(path).map(Status::Directory),
            Self::Bucket(url) => bucket::stat(url, store).map(Status::Bucket),
        }
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "volume:file:{}", path.display()),
            Self::Bucket(url) => write!(f, "volume:{url}"),
        }
    }
}

impl Storage for VolumeSource {
    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        match self {
            Self::Directory(path) => directory::prepare(path, options),
            Self::Bucket(url) => bucket::prepare(url, options),
        }
    }
}
