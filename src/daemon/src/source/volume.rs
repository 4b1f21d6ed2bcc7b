//! `volume:file:DIR`: a POSIX file system of its own, kept in a directory of this host.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use vfsd_volume::{CheckReport, Volume, VolumeError, VolumeOptions, VolumeStatus};

use super::{Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::{Needs, Share};

/// A volume in a directory.
#[derive(Debug, Clone)]
pub(crate) struct VolumeSource(PathBuf);

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
        match place.as_bytes().strip_prefix(b"file:") {
            Some(path) if !path.is_empty() => Ok(Self(OsStr::from_bytes(path).into())),
            Some(_) => Err(SourceError::Wrong(
                "no directory named: use volume:file:DIR".to_owned(),
            )),
            None => Err(SourceError::Wrong(
                "volumes in a bucket are not in this version: use volume:file:DIR, a volume in a \
                 directory"
                    .to_owned(),
            )),
        }
    }

    /// Reads the word of a command line that names a volume.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn named(word: &OsStr) -> Result<Self, SourceError> {
        match word.as_bytes().strip_prefix(b"volume:") {
            Some(place) => Self::parse(OsStr::from_bytes(place)),
            None => Err(SourceError::Wrong(
                "this is no volume: use volume:file:DIR".to_owned(),
            )),
        }
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// When the directory is not empty, or cannot be written to.
    pub(crate) fn create(&self, options: &VolumeOptions) -> Result<(), Failure> {
        Volume::create(&self.0, options).map_err(Failure::run)
    }

    /// Looks whether the volume is whole.
    ///
    /// # Errors
    /// When it cannot be looked at, or is in use.
    pub(crate) fn check(&self) -> Result<CheckReport, Failure> {
        Volume::check(&self.0).map_err(Failure::run)
    }

    /// What the volume is. It may be in use.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn stat(&self) -> Result<VolumeStatus, Failure> {
        Volume::stat(&self.0).map_err(Failure::run)
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume:file:{}", self.0.display())
    }
}

impl Storage for VolumeSource {
    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        let path = self.0.canonicalize().map_err(|error| {
            Failure::run(format!(
                "cannot serve {self}: {error}; make the volume with `vfsd volume create {self}`"
            ))
        })?;
        // A missing volume is told by its name on the host, before there is a socket.
        if !path.join("volume.json").exists() {
            return Err(Failure::run(VolumeError::Missing(path)));
        }
        // Read-only exports read their volume by writing its locks.
        let share = Share::at(path.clone(), false);
        let (uid, gid) = options.owner;
        Ok(Prepared {
            shares: vec![share],
            needs: Needs::default(),
            private: true,
            open: Box::new(move |mut given| {
                let root = given.roots.pop().ok_or_else(|| {
                    Failure::run(format!(
                        "cannot serve {}: it was not taken along",
                        path.display()
                    ))
                })?;
                let options = VolumeOptions {
                    uid,
                    gid,
                    ..VolumeOptions::default()
                };
                let volume = Volume::open(&root.path, &options);
                let volume = volume.map_err(|error| Failure::run(root.on_host(&path, &error)))?;
                Ok(Arc::new(volume))
            }),
        })
    }
}
