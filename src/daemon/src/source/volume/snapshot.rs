//! `volume:s3://BUCKET/PREFIX?snapshot=NAME`: a snapshot of a volume in a bucket, which anybody may read while a daemon has the
//! volume. So they may what a volume is now, where it is served read-only.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use vfsd_object_store::StoreUrl;
use vfsd_volume::{Lock, Volume, VolumeError};

use super::reach::Served;
use super::{VolumeSource, bucket};
use crate::exit::Failure;
use crate::sandbox::{Needs, Share};
use crate::source::store::requests;
use crate::source::{Kind, Prepared, SourceError, Storage, StorageOptions};

/// What stands between a volume and the name of its snapshot.
const SNAPSHOT: &str = "?snapshot=";
/// How the directory of who reads what a volume is now differs from that of who has it.
const NOW: &str = "?now";
/// Daemons that read one snapshot, or one volume, on one host with one state directory.
const MOST_DAEMONS: u32 = 1000;

/// A snapshot, and where its volume is.
#[derive(Debug)]
pub(super) struct SnapshotSource {
    url: StoreUrl,
    name: String,
}

/// The volume and the name in an address that names a snapshot. A directory has none.
pub(super) fn split(place: &OsStr) -> Option<(&OsStr, &str)> {
    let (volume, name) = place.to_str()?.rsplit_once(SNAPSHOT)?;
    (!volume.starts_with("file:")).then_some((OsStr::new(volume), name))
}

impl SnapshotSource {
    /// A snapshot of a volume.
    ///
    /// # Errors
    /// When the volume has none, or there is no name.
    pub(super) fn new(volume: VolumeSource, name: &str) -> Result<Self, SourceError> {
        match volume {
            VolumeSource::Bucket(url) if !name.is_empty() => Ok(Self {
                url,
                name: name.to_owned(),
            }),
            volume => Err(SourceError::Wrong(format!(
                "no snapshot named: use {volume}{SNAPSHOT}NAME; `vfsd volume snapshot list {volume}` says which there are"
            ))),
        }
    }
}

/// A directory on this host that no other daemon uses: each that reads what is at an address has one.
fn directory(
    address: &str,
    identity: &str,
    options: &StorageOptions,
) -> Result<(PathBuf, Lock), Failure> {
    for number in 1..=MOST_DAEMONS {
        let mut address = address.to_owned();
        if number > 1 {
            address.push_str(&format!("#{number}"));
        }
        let directory = bucket::directory(&address, identity, &options.volume)?;
        match Lock::of(&directory) {
            Ok(lock) => return Ok((directory, lock)),
            Err(VolumeError::Locked { .. }) => {}
            Err(error) => return Err(Failure::run(error)),
        }
    }
    Err(Failure::run(format!(
        "{MOST_DAEMONS} daemons read volume:{address} here: choose another place with --state-dir"
    )))
}

/// What is read of the volume at a place: a snapshot, or what it is when it is opened.
pub(super) fn prepare(
    url: &StoreUrl,
    snapshot: Option<&str>,
    options: &StorageOptions,
) -> Result<Prepared, Failure> {
    let served = Served::new(url, options)?;
    let address = match snapshot {
        Some(name) => format!("{url}{SNAPSHOT}{name}"),
        None => format!("{url}{NOW}"),
    };
    let (directory, lock) = directory(&address, served.store.identity(), options)?;
    let shown = match snapshot {
        Some(_) => format!("volume:{address}"),
        None => format!("volume:{url}"),
    };
    let snapshot = snapshot.map(str::to_owned);
    Ok(Prepared {
        shares: vec![Share::at(directory.clone(), false)],
        needs: Needs {
            network: true,
            ..Needs::default()
        },
        private: false,
        open: Box::new(move |mut given| {
            let root = given.root("use", &directory)?;
            let options = served.options(&given.runtime);
            served.check(&given.runtime)?;
            let (bucket, prefix) = (&served.bucket, served.prefix.as_str());
            let here = (root.path.as_path(), lock);
            let volume = match &snapshot {
                Some(name) => Volume::open_snapshot(bucket, prefix, name, here, &options),
                None => Volume::open_published(bucket, prefix, here, &options),
            };
            let volume = volume.map_err(|error| Failure::run(root.on_host(&directory, &error)))?;
            let (cache, store) = (volume.watch_cache(), served.store);
            given.figures.add(&shown, move || {
                let kept = cache.look().map(bucket::cache_figures);
                requests(&store)
                    .into_iter()
                    .chain(kept.into_iter().flatten())
                    .collect()
            });
            Ok(Arc::new(volume))
        }),
    })
}

impl fmt::Display for SnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume:{}{SNAPSHOT}{}", self.url, self.name)
    }
}

impl Storage for SnapshotSource {
    fn is_read_only(&self, _: &StorageOptions) -> bool {
        true
    }

    fn is(&self, kind: Kind) -> bool {
        kind == Kind::VolumeInBucket
    }

    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        prepare(&self.url, Some(&self.name), options)
    }
}
