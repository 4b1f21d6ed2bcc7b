//! What is in a cache: which images, how much of them, and who uses them.
//!
//! ```text
//! CACHE/images/DIGEST.json    an image: its names, its layers, its documents
//! CACHE/images/DIGEST.lock    locked, shared, by whoever uses the image; its time is when it was used last
//! CACHE/images/DIGEST.fill    locked by whoever fetches the rest of the image
//! CACHE/catalogue.lock        locked by whoever changes the catalogue, or removes something
//! ```
//!
//! Nothing here is needed to serve an image: a cache without a catalogue, or with a damaged one, only looks empty.
//! Locks end with the process that has them, however it ends.

mod evict;
mod files;
mod in_use;
mod list;
mod prune;
mod record;
#[cfg(test)]
mod tests;
mod verify;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::blob::Sha256Digest;
use crate::image::Image;

pub use evict::{Evicted, slack};
pub use list::ListedImage;
pub use prune::{PruneOptions, Pruned};
use record::Record;
pub use verify::{Problem, Verified};

/// The catalogue of a cache. Several processes may use one at once.
#[derive(Debug, Clone)]
pub struct Catalogue {
    cache: PathBuf,
    /// Where the spans of content files stand, of those that were looked at.
    places: Arc<Mutex<in_use::Known>>,
}

impl Catalogue {
    /// The catalogue of the cache in a folder. Nothing is read or made yet.
    pub fn new(cache: &Path) -> Self {
        Self {
            cache: cache.to_owned(),
            places: Arc::default(),
        }
    }

    /// Takes an image into the catalogue, and says that it is used as long as what is returned lives. A `name` leads to
    /// this image from now on, and to no other of the same platform.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn enter(&self, name: Option<&str>, image: &Image) -> io::Result<Lease> {
        let _changing = self.lock()?;
        let found = Record::of(image);
        let kept = self.record(found.digest);
        let mut record = found.clone();
        if let Some(kept) = kept.clone() {
            record.merge(kept);
        }
        if let Some(name) = name {
            for mut other in self.records()? {
                if other.digest != record.digest
                    && other.platform == record.platform
                    && other.forget(name)
                {
                    self.write(&other)?;
                }
            }
            record.learn(name);
        }
        if kept.as_ref() != Some(&record) {
            self.write(&record)?;
        }
        let lock = self.open_lock(record.digest)?;
        flock(&lock, FlockOperation::LockShared)?;
        let fill = self.fill_path(record.digest);
        let lease = Lease { lock, fill };
        lease.renew()?;
        Ok(lease)
    }

    fn folder(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Keeps everybody else from changing the catalogue, and from removing anything.
    fn lock(&self) -> io::Result<File> {
        std::fs::create_dir_all(self.folder())?;
        let file = open_to_lock(&self.cache.join("catalogue.lock"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    fn open_lock(&self, image: Sha256Digest) -> io::Result<File> {
        open_to_lock(&self.lock_path(image))
    }

    fn lock_path(&self, image: Sha256Digest) -> PathBuf {
        self.folder().join(format!("{}.lock", image.hex()))
    }

    fn fill_path(&self, image: Sha256Digest) -> PathBuf {
        self.folder().join(format!("{}.fill", image.hex()))
    }

    fn record_path(&self, image: Sha256Digest) -> PathBuf {
        self.folder().join(format!("{}.json", image.hex()))
    }

    /// Whether somebody uses an image now.
    fn is_in_use(&self, image: Sha256Digest) -> io::Result<bool> {
        is_locked(&self.lock_path(image))
    }

    /// When an image was used last; at the epoch if never.
    fn last_use(&self, image: Sha256Digest) -> SystemTime {
        let found = std::fs::metadata(self.lock_path(image));
        found
            .and_then(|found| found.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Whether somebody holds a lock of a file; not if there is none.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn open_to_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// An image is in use, and nothing of it is removed by others, as long as this lives.
#[derive(Debug)]
pub struct Lease {
    lock: File,
    /// Locked by the one who fetches the rest of the image.
    fill: PathBuf,
}

impl Lease {
    /// Says that the image is used at this time: to be called now and then.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn renew(&self) -> io::Result<()> {
        self.lock.set_modified(SystemTime::now())
    }

    /// Makes it the caller's to fetch the rest of the image, as long as what is returned lives; none if somebody else
    /// does.
    pub(crate) fn fill(&self) -> io::Result<Option<File>> {
        let file = open_to_lock(&self.fill)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
