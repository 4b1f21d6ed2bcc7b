//! `volume:file:DIR`, `volume:s3://BUCKET/PREFIX` (also gs:// and az://): a POSIX file system of its own, kept in a directory
//! of this host or in a bucket. `volume:s3://BUCKET/PREFIX?snapshot=NAME` is a snapshot of one in a bucket, to be read; what is
//! served read-only is read as it is when it is opened, and taken from nobody.

mod bucket;
mod directory;
mod reach;
mod snapshot;

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vfsd_object_store::StoreUrl;
use vfsd_volume::{
    Amount, CheckReport, Cleaned, DumpOptions, DumpSummary, Durability, Quota, RemoteStatus,
    Snapshot, Volume, VolumeOptions, VolumeStatus,
};

pub(crate) use self::reach::Reach;
use self::snapshot::SnapshotSource;
use super::{Kind, Prepared, SourceError, Storage, StorageOptions};
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
    /// Where the key is of those that are encrypted.
    pub(crate) key_file: Option<PathBuf>,
}

impl VolumeSettings {
    /// Whether there is something that only a volume in a bucket is asked for.
    pub(crate) fn is_key_given(&self) -> bool {
        self.key_file.is_some()
    }

    /// Whether there is something that only who writes to a volume in a bucket is asked for.
    pub(crate) fn is_writing_given(&self) -> bool {
        self.takeover || self.durability != Durability::default()
    }
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
    match snapshot::split(place) {
        Some((volume, name)) => {
            let url = VolumeSource::parse(volume)?;
            Ok(Arc::new(SnapshotSource::new(url, name)?))
        }
        None => Ok(Arc::new(VolumeSource::parse(place)?)),
    }
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
        match word
            .as_bytes()
            .strip_prefix(b"volume:")
            .map(OsStr::from_bytes)
        {
            Some(place) if snapshot::split(place).is_some() => Err(SourceError::Wrong(
                "this is a snapshot, to be served: name the volume without ?snapshot=".to_owned(),
            )),
            Some(place) => Self::parse(place),
            None => Err(SourceError::Wrong(format!(
                "this is no volume: use {FORMS}"
            ))),
        }
    }

    /// The directory of a volume, for which there is no key.
    fn unencrypted<'a>(&self, path: &'a Path, reach: &Reach) -> Result<&'a Path, Failure> {
        match &reach.key_file {
            None => Ok(path),
            Some(_) => Err(Failure::usage(format!(
                "{self} takes no key: only volumes in buckets are encrypted; encrypt the disk that it is on"
            ))),
        }
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// When something is there already, or it cannot be written to.
    pub(crate) fn create(&self, options: &VolumeOptions, reach: &Reach) -> Result<(), Failure> {
        match self {
            Self::Directory(path) => directory::create(self.unencrypted(path, reach)?, options),
            Self::Bucket(url) => bucket::create(url, options, reach),
        }
    }

    /// Changes how much the volume may hold.
    ///
    /// # Errors
    /// When there is none, or it cannot be written to.
    pub(crate) fn change_quota(
        &self,
        change: impl Fn(&mut Quota),
        reach: &Reach,
    ) -> Result<(), Failure> {
        match self {
            Self::Directory(path) => {
                let path = self.unencrypted(path, reach)?;
                Volume::change_quota(path, change).map_err(Failure::run)
            }
            Self::Bucket(url) => bucket::change_quota(url, change, reach),
        }
    }

    /// Looks whether the volume is whole.
    ///
    /// # Errors
    /// When it cannot be looked at, or is in use and in a directory.
    pub(crate) fn check(&self, reach: &Reach) -> Result<CheckReport, Failure> {
        match self {
            Self::Directory(path) => directory::check(self.unencrypted(path, reach)?),
            Self::Bucket(url) => bucket::check(url, reach),
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
        reach: &Reach,
    ) -> Result<Cleaned, Failure> {
        match self {
            Self::Directory(_) => Err(Failure::usage(format!(
                "{self} keeps nothing that it does not need: only volumes in buckets are cleaned up"
            ))),
            Self::Bucket(url) => bucket::clean(url, min_age, dry, reach),
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
    pub(crate) fn snapshot(&self, name: &str, reach: &Reach) -> Result<Snapshot, Failure> {
        bucket::snapshot(self.bucket()?, name, reach)
    }

    /// Whether there can be snapshots of it.
    ///
    /// # Errors
    /// When it is no volume in a bucket.
    pub(crate) fn check_has_snapshots(&self) -> Result<(), Failure> {
        self.bucket().map(drop)
    }

    /// Changes how long the snapshots are kept that a daemon makes by itself.
    ///
    /// # Errors
    /// When it is no volume in a bucket, or the store fails.
    pub(crate) fn change_snapshot_days(
        &self,
        days: Option<u32>,
        reach: &Reach,
    ) -> Result<(), Failure> {
        bucket::change_snapshot_days(self.bucket()?, days, reach)
    }

    /// What is kept of the volume.
    ///
    /// # Errors
    /// When it is no volume in a bucket, or the store fails.
    pub(crate) fn snapshots(&self, reach: &Reach) -> Result<Vec<Snapshot>, Failure> {
        bucket::snapshots(self.bucket()?, reach)
    }

    /// Gives a snapshot up.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) fn delete_snapshot(&self, name: &str, reach: &Reach) -> Result<(), Failure> {
        bucket::delete_snapshot(self.bucket()?, name, reach)
    }

    /// Makes another volume of a snapshot, or of what the volume is now.
    ///
    /// # Errors
    /// When one of them is no volume in a bucket, there is no such snapshot, something is there, or the store fails.
    pub(crate) fn copy(
        &self,
        snapshot: Option<&str>,
        to: &Self,
        reach: &Reach,
    ) -> Result<Amount, Failure> {
        bucket::copy(self.bucket()?, snapshot, to.bucket()?, reach)
    }

    /// Dumps the volume, or a snapshot of it.
    ///
    /// # Errors
    /// When it cannot be read, there is no such snapshot, or the dump cannot be written.
    pub(crate) fn dump(
        &self,
        snapshot: Option<&str>,
        options: DumpOptions,
        to: &mut dyn Write,
        reach: &Reach,
    ) -> Result<DumpSummary, Failure> {
        match (self, snapshot) {
            (Self::Directory(path), None) => {
                let path = self.unencrypted(path, reach)?;
                Volume::dump(path, options, to).map_err(Failure::run)
            }
            _ => bucket::dump(self.bucket()?, snapshot, options, to, reach),
        }
    }

    /// Makes a volume of a dump.
    ///
    /// # Errors
    /// When something is there already, it cannot be written to, or what comes is no whole dump.
    pub(crate) fn load(
        &self,
        from: &mut dyn BufRead,
        reach: &Reach,
    ) -> Result<DumpSummary, Failure> {
        match self {
            Self::Directory(path) => {
                let path = self.unencrypted(path, reach)?;
                Volume::load(path, from).map_err(Failure::run)
            }
            Self::Bucket(url) => bucket::load(url, from, reach),
        }
    }

    /// What the volume is. It may be in use.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn stat(&self, reach: &Reach) -> Result<Status, Failure> {
        match self {
            Self::Directory(path) => {
                directory::stat(self.unencrypted(path, reach)?).map(Status::Directory)
            }
            Self::Bucket(url) => bucket::stat(url, reach).map(Status::Bucket),
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
    fn is(&self, kind: Kind) -> bool {
        let kinds = [Kind::VolumeInBucket, Kind::VolumeToWrite];
        kinds.contains(&kind) && matches!(self, Self::Bucket(_))
    }

    fn lasting_name(&self) -> String {
        match self {
            Self::Directory(path) => Self::Directory(super::lasting(path)).to_string(),
            Self::Bucket(_) => self.to_string(),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Directory(path) => directory::find(path).map(drop),
            Self::Bucket(_) => Ok(()),
        }
    }

    fn prepare(&self, options: &StorageOptions, readonly: bool) -> Result<Prepared, Failure> {
        match self {
            Self::Directory(path) => directory::prepare(path, options),
            Self::Bucket(url) if readonly => snapshot::prepare(url, None, options),
            Self::Bucket(url) => bucket::prepare(url, options),
        }
    }
}
