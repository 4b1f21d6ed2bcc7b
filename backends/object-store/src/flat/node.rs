//! A file or directory of a bucket.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::time::Instant;
use vfsd_backend::{
    Answer, Attributes, Directory, Entry, Errno, FileCaching, FileKind, FsStatistics, Lookup, Name,
    Node, NodeIdentity, OpenRequest, Opened, Result, Ttl,
};

use super::bucket::Bucket;
use super::content::{Content, same_content};
use super::directory::OpenDirectory;
use super::file::OpenFile;
use super::known::Found;
use super::posix::{Posix, timestamp};
use crate::store::ListedObject;

/// A file that the guest knows.
///
/// An object that was written again is another file with the same inode number: what the guest has cached of the
/// one never appears in the other.
pub(super) struct FlatNode {
    pub(super) bucket: Arc<Bucket>,
    number: u64,
    pub(super) key: Arc<str>,
    pub(super) body: Body,
}

pub(super) enum Body {
    Directory,
    File(FileBody),
}

/// One version of an object.
pub(super) struct FileBody {
    pub(super) object: ListedObject,
    pub(super) content: Arc<Content>,
    /// No other node ever has it.
    generation: u64,
    /// Once somebody looked at the object: a listing does not tell.
    posix: OnceLock<Posix>,
    /// When the object was last known to be this version.
    confirmed: Mutex<Instant>,
}

impl FileBody {
    pub(super) fn new(
        object: ListedObject,
        content: Arc<Content>,
        generation: u64,
        at: Instant,
    ) -> Self {
        Self {
            object,
            content,
            generation,
            posix: OnceLock::new(),
            confirmed: Mutex::new(at),
        }
    }

    /// The object was this version `at` this time.
    pub(super) fn confirm(&self, posix: Option<Posix>, at: Instant) {
        if let Some(posix) = posix {
            let _ = self.posix.set(posix);
        }
        let mut confirmed = self.confirmed.lock();
        *confirmed = (*confirmed).max(at);
    }
}

impl FlatNode {
    pub(super) fn new(bucket: Arc<Bucket>, number: u64, key: Arc<str>, body: Body) -> Self {
        Self {
            bucket,
            number,
            key,
            body,
        }
    }

    /// The key of the directory that holds it; the root's own is the root.
    pub(super) fn parent_key(&self) -> &str {
        let stem = self.key.strip_suffix('/').unwrap_or(&self.key);
        match stem.rfind('/') {
            Some(slash) => stem.get(..=slash).unwrap_or_default(),
            None => "",
        }
    }

    pub(super) fn attributes(&self) -> Attributes {
        let options = &self.bucket.options;
        let (kind, permissions) = match self.body {
            Body::Directory => (FileKind::Directory, options.directory_permissions),
            Body::File(_) => (FileKind::Regular, options.file_permissions),
        };
        let mut attributes = Attributes {
            uid: options.uid,
            gid: options.gid,
            accessed: self.bucket.opened,
            modified: self.bucket.opened,
            changed: self.bucket.opened,
            ..Attributes::new(self.number, kind, permissions)
        };
        if let Body::File(file) = &self.body {
            let posix = file.posix.get().copied().unwrap_or_default();
            let written = timestamp(file.object.modified);
            attributes.permissions = posix.permissions.unwrap_or(permissions);
            attributes.uid = posix.uid.unwrap_or(options.uid);
            attributes.gid = posix.gid.unwrap_or(options.gid);
            attributes.size = file.object.size.min(i64::MAX.unsigned_abs());
            attributes.blocks = attributes.size.div_ceil(512);
            attributes.block_size = 128 << 10;
            attributes.modified = posix.modified.unwrap_or(written);
            attributes.accessed = attributes.modified;
            attributes.changed = written;
        }
        attributes
    }

    pub(super) fn entry(self: Arc<Self>) -> Entry {
        Entry {
            attributes: self.attributes(),
            node: self,
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }
    }

    fn lookup_of(&self, name: &str, found: Found, at: Instant) -> Result<Lookup> {
        let node = match found {
            Found::Nothing => return Ok(Lookup::Missing { ttl: Ttl::Policy }),
            Found::Directory => self.bucket.directory(&format!("{}{name}/", self.key)),
            Found::File(object, posix) => self.bucket.file(&object, posix, at)?,
        };
        Ok(Lookup::Found(node.entry()))
    }

    /// Whether the object is known to have been this version a moment ago. ESTALE if it is known to be another.
    fn is_confirmed(&self, file: &FileBody) -> Result<bool, Errno> {
        if file.content.is_replaced() {
            return Err(Errno::STALE);
        }
        Ok(file.confirmed.lock().elapsed() < self.bucket.options.lifetime)
    }

    /// Looks whether the object still is this version.
    async fn look_again(bucket: Arc<Bucket>, key: Arc<str>, directory: String) -> Result<Found> {
        let at = Instant::now();
        let found = match bucket.look(&key).await? {
            Some((object, posix)) => Found::File(object, Some(posix)),
            None => Found::Nothing,
        };
        bucket.known.unlearn(&directory, &key);
        bucket.known.learn(&key, at, found.clone());
        Ok(found)
    }

    /// Makes sure that the object still is this version: ESTALE otherwise, and the guest looks its name up again.
    async fn confirm(&self, file: &FileBody) -> Result<()> {
        let at = Instant::now();
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let look = Self::look_again(bucket, key, self.parent_key().to_owned());
        match self.bucket.run(look).await? {
            Found::File(object, posix) if same_content(&object, &file.object) => {
                file.confirm(posix, at);
                Ok(())
            }
            _ => {
                file.content.replace();
                Err(Errno::STALE.into())
            }
        }
    }

    fn opened(&self, file: &FileBody) -> Opened {
        Opened {
            file: Arc::new(OpenFile::new(
                self.bucket.clone(),
                file.content.clone(),
                self.attributes(),
            )),
            // This version never changes.
            caching: FileCaching::Keep,
        }
    }
}

impl fmt::Debug for FlatNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlatNode").field(&self.key).finish()
    }
}

impl Drop for FlatNode {
    fn drop(&mut self) {
        self.bucket.numbers.forget(self.number);
    }
}

impl Node for FlatNode {
    fn identity(&self) -> NodeIdentity {
        let generation = match &self.body {
            Body::Directory => 0,
            Body::File(file) => file.generation,
        };
        NodeIdentity {
            device: 0,
            inode: self.number,
            generation,
        }
    }

    fn kind(&self) -> FileKind {
        match self.body {
            Body::Directory => FileKind::Directory,
            Body::File(_) => FileKind::Regular,
        }
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        let Body::File(file) = &self.body else {
            return Answer::ok(self.attributes());
        };
        match self.is_confirmed(file) {
            Ok(true) => Answer::ok(self.attributes()),
            Ok(false) => Answer::later(async {
                self.confirm(file).await?;
                Ok(self.attributes())
            }),
            Err(errno) => Answer::error(errno),
        }
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        if !matches!(self.body, Body::Directory) {
            return Answer::error(Errno::NOTDIR);
        }
        // Keys are UTF-8.
        let Ok(text) = std::str::from_utf8(name.as_bytes()) else {
            return Answer::ok(Lookup::Missing { ttl: Ttl::Policy });
        };
        if let Some((at, found)) = self.bucket.known(&self.key, text) {
            return Answer::ready(self.lookup_of(text, found, at));
        }
        let at = Instant::now();
        Answer::later(async move {
            let (bucket, directory) = (self.bucket.clone(), self.key.clone());
            let wanted = text.to_owned();
            let find = async move { bucket.find(&directory, &wanted).await };
            let found = self.bucket.run(find).await?;
            self.lookup_of(text, found, at)
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        let Body::File(file) = &self.body else {
            return Answer::error(Errno::ISDIR);
        };
        if request.flags.modifies() {
            return Answer::error(Errno::ROFS);
        }
        match self.is_confirmed(file) {
            Ok(true) => Answer::ok(self.opened(file)),
            Ok(false) => Answer::later(async {
                self.confirm(file).await?;
                Ok(self.opened(file))
            }),
            Err(errno) => Answer::error(errno),
        }
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        if !matches!(self.body, Body::Directory) {
            return Answer::error(Errno::NOTDIR);
        }
        Answer::ok(Arc::new(OpenDirectory::new(
            self.bucket.clone(),
            self.key.clone(),
            self.number,
            self.parent_key(),
        )))
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        // A bucket has no size and no bounds.
        Answer::ok(FsStatistics {
            blocks: 1 << 38,
            blocks_free: 1 << 38,
            blocks_available: 1 << 38,
            files: 1 << 48,
            files_free: 1 << 48,
            block_size: 128 << 10,
            fragment_size: 4096,
            name_max: 255,
        })
    }
}
