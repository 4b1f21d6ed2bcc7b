//! The blobs of a cache: whole files by their digests, and those that are still being fetched.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::blob::Sha256Digest;
use crate::turn::lock_named;

use super::RegistryError;
use super::blob::{Place, Transfer};

/// The blobs of a cache, in `blobs/sha256` below it, as in an OCI layout.
///
/// A file `DIGEST` is whole and was compared with its digest when it got that name. A file `DIGEST.part` is the
/// beginning of one, and nothing that is relied on: who holds its lock goes on with it.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
    names: PathBuf,
}

impl Store {
    pub(super) fn new(cache: &Path) -> io::Result<Self> {
        let folder = cache.join("blobs/sha256");
        let names = cache.join("names");
        for folder in [&folder, &names] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self { folder, names })
    }

    fn path(&self, digest: Sha256Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    fn part(&self, digest: Sha256Digest) -> PathBuf {
        self.folder.join(format!("{}.part", digest.hex()))
    }

    /// A blob that is there.
    pub(super) fn open(&self, digest: Sha256Digest, size: u64) -> Option<File> {
        let file = File::open(self.path(digest)).ok()?;
        let found = file.metadata().ok()?;
        (found.is_file() && found.len() == size).then_some(file)
    }

    /// The size of a blob that is there.
    pub(super) fn size(&self, digest: Sha256Digest) -> Option<u64> {
        let found = std::fs::metadata(self.path(digest)).ok()?;
        found.is_file().then_some(found.len())
    }

    /// A document that is there and is what its digest says.
    pub(super) fn read(&self, digest: Sha256Digest, size: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open(digest, size)?;
        file.take(size).read_to_end(&mut bytes).ok()?;
        (Sha256Digest::of(&bytes) == digest).then_some(bytes)
    }

    /// Keeps a document, which has been compared with its digest.
    pub(super) fn write(&self, digest: Sha256Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.path(digest))?;
        self.sync()
    }

    /// What a name meant last.
    pub(super) fn named(&self, name: &str) -> Option<Sha256Digest> {
        let mut text = String::new();
        let file = File::open(self.name(name)).ok()?;
        file.take(100).read_to_string(&mut text).ok()?;
        text.parse().ok()
    }

    /// Remembers what a name means.
    pub(super) fn remember(&self, name: &str, digest: Sha256Digest) -> io::Result<()> {
        if self.named(name) == Some(digest) {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.names)?;
        file.write_all(digest.to_string().as_bytes())?;
        file.persist(self.name(name))?;
        Ok(())
    }

    fn name(&self, name: &str) -> PathBuf {
        self.names.join(Sha256Digest::of(name.as_bytes()).hex())
    }

    /// Removes a blob, and what has been fetched of it.
    pub(super) fn remove(&self, digest: Sha256Digest) {
        for path in [self.path(digest), self.part(digest)] {
            // What is not there is removed already.
            let _ = std::fs::remove_file(path);
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// A blob from its first byte to its last: what is there is read from its file, the rest is fetched and written
/// there.
///
/// The bytes may be wrong until the end. The end is reached only when all of them were right.
#[derive(Debug)]
pub(super) struct Download {
    store: Store,
    place: Arc<Place>,
    file: File,
    /// How much of the file was there.
    there: u64,
    position: u64,
    transfer: Transfer,
    sha256: Sha256,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The file still has the name of a part.
    Part,
    /// It has its own name.
    Whole,
    /// All was read and compared.
    Done,
}

impl Download {
    /// Begins, or goes on with, a download. Waits for whoever else is at it.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(super) fn open(store: Store, place: Arc<Place>) -> io::Result<Self> {
        let (digest, size) = (place.digest(), place.size());
        let (file, there, state) = loop {
            if let Some(file) = store.open(digest, size) {
                break (file, size, State::Whole);
            }
            // Whoever held it may have finished it, or given it up.
            if let Some(file) = lock_named(&store.part(digest))? {
                let length = file.metadata()?.len();
                if length > size {
                    file.set_len(0)?;
                }
                break (file, file_length(length, size), State::Part);
            }
        };
        Ok(Self {
            transfer: Transfer::new(Arc::clone(&place), there..size),
            store,
            place,
            file,
            there,
            position: 0,
            sha256: Sha256::new(),
            state,
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        let digest = self.place.digest();
        let found = Sha256Digest::from(std::mem::take(&mut self.sha256));
        if found != digest {
            self.store.remove(digest);
            self.place.count_wrong();
            return Err(RegistryError::Digest(digest).into());
        }
        if self.state == State::Part {
            self.file.sync_data()?;
            let (from, to) = (self.store.part(digest), self.store.path(digest));
            std::fs::rename(from, to)?;
            self.store.sync()?;
        }
        self.state = State::Done;
        Ok(())
    }
}

/// How much of a part is used: one that is too long is none.
fn file_length(found: u64, size: u64) -> u64 {
    if found > size { 0 } else { found }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.state == State::Done {
            return Ok(0);
        }
        let left = self.there.saturating_sub(self.position);
        let count = if left > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let target = buffer.get_mut(..most).unwrap_or_default();
            match self.file.read_at(target, self.position)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => count,
            }
        } else {
            let count = self.transfer.read(buffer)?;
            let arrived = buffer.get(..count).unwrap_or_default();
            let written = self.file.write_all_at(arrived, self.position);
            written.map_err(RegistryError::Cache)?;
            count
        };
        if count == 0 {
            self.finish()?;
            return Ok(0);
        }
        self.sha256.update(buffer.get(..count).unwrap_or_default());
        let count_u64 = u64::try_from(count).unwrap_or(u64::MAX);
        self.position = self.position.saturating_add(count_u64);
        Ok(count)
    }
}
