//! A volume in a directory of this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfsd_volume::{CheckReport, Volume, VolumeError, VolumeOptions, VolumeStatus};

use crate::exit::Failure;
use crate::sandbox::{Needs, Share};
use crate::source::{Prepared, StorageOptions};

pub(super) fn create(path: &Path, options: &VolumeOptions) -> Result<(), Failure> {
    Volume::create(path, options).map_err(Failure::run)
}

pub(super) fn check(path: &Path) -> Result<CheckReport, Failure> {
    Volume::check(path).map_err(Failure::run)
}

pub(super) fn stat(path: &Path) -> Result<VolumeStatus, Failure> {
    Volume::stat(path).map_err(Failure::run)
}

/// The path of a volume that is there.
pub(super) fn find(path: &Path) -> Result<PathBuf, Failure> {
    let path = path.canonicalize().map_err(|error| {
        let name = format!("volume:file:{}", path.display());
        Failure::run(format!(
            "cannot serve {name}: {error}; make the volume with `vfsd volume create {name}`"
        ))
    })?;
    // A missing volume is told by its name on the host, before there is a socket.
    if !path.join("volume.json").exists() {
        return Err(Failure::run(VolumeError::Missing(path)));
    }
    Ok(path)
}

pub(super) fn prepare(path: &Path, options: &StorageOptions) -> Result<Prepared, Failure> {
    let path = find(path)?;
    let (uid, gid) = options.owner;
    Ok(Prepared {
        // Read-only exports read their volume by writing its locks.
        shares: vec![Share::alone_at(path.clone())],
        needs: Needs::default(),
        private: true,
        open: Box::new(move |mut given| {
            let root = given.root("serve", &path)?;
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
