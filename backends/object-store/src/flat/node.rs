//! A file or directory of a bucket.

use std::fmt;
use std::sync::{Arc, Weak};

use object_store::Attributes as Metadata;
use parking_lot::RwLock;
use tokio::time::Instant;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, BufferSink, Caller, Created, Directory, Entry, Errno,
    FileCaching, FileKind, FsStatistics, LinkTarget, Lookup, Name, NewDevice, NewInode, Node,
    NodeIdentity, OpenFlags, OpenRequest, Opened, ReadRequest, Rename, Result, Ttl, XattrFlags,
    XattrName,
};

use super::body::{Body, FileBody, LONGEST_TARGET};
use super::bucket::{Bucket, failed};
use super::directory::OpenDirectory;
use super::file::OpenFile;
use super::known::Found;
use super::names::split;
use super::posix::{Posix, timestamp};
use super::write::answers;

/// A file that the guest knows.
///
/// An object that was written again is another file with the same inode number: what the guest has cached of the
/// one never appears in the other.
pub(super) struct FlatNode {
    pub(super) bucket: Arc<Bucket>,
    number: u64,
    /// Another one after a rename.
    key: RwLock<Arc<str>>,
    pub(super) body: Body,
    pub(super) this: Weak<Self>,
}

impl FlatNode {
    pub(super) fn new(
        bucket: Arc<Bucket>,
        number: u64,
        key: Arc<str>,
        body: Body,
        this: &Weak<Self>,
    ) -> Self {
        Self {
            bucket,
            number,
            key: RwLock::new(key),
            body,
            this: this.clone(),
        }
    }

    pub(super) fn key(&self) -> Arc<str> {
        self.key.read().clone()
    }

    /// It has another key from now on. Answers the one that it had; its number is [kept](Self::keep_number) next.
    pub(super) fn set_key(&self, key: &Arc<str>) -> Arc<str> {
        std::mem::replace(&mut *self.key.write(), key.clone())
    }

    /// It keeps its number although its key is another.
    pub(super) fn keep_number(&self) {
        self.bucket.numbers.rename(self.number, &self.key());
    }

    /// The key of the directory that holds it; the root's own is the root.
    pub(super) fn parent_key(&self) -> String {
        split(&self.key()).0.to_owned()
    }

    pub(super) fn attributes(&self) -> Attributes {
        let options = &self.bucket.options;
        let (permissions, posix) = match &self.body {
            Body::Directory(directory) => (options.directory_permissions, directory.posix()),
            Body::File(file) => (options.file_permissions, file.posix()),
        };
        let posix = posix.unwrap_or_default();
        let modified = posix.modified.unwrap_or(self.bucket.opened);
        let mut attributes = Attributes {
            uid: posix.uid.unwrap_or(options.uid),
            gid: posix.gid.unwrap_or(options.gid),
            accessed: modified,
            modified,
            changed: modified,
            ..Attributes::new(
                self.number,
                self.kind(),
                posix.permissions.unwrap_or(permissions),
            )
        };
        if let Body::File(file) = &self.body {
            let (object, _) = file.version();
            let written = timestamp(object.modified);
            let staged = file.writing.staged();
            let size = staged.map_or(object.size, |staged| staged.size());
            attributes.size = size.min(i64::MAX.unsigned_abs());
            attributes.blocks = attributes.size.div_ceil(512);
            attributes.block_size = 128 << 10;
            attributes.modified = posix.modified.unwrap_or(written);
            attributes.accessed = attributes.modified;
            attributes.changed = file.writing.changed().unwrap_or(written);
            attributes.links = u32::from(!file.writing.is_gone());
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
            Found::Directory => self.bucket.directory(&format!("{}{name}/", self.key())),
            Found::File(object, posix) => self.bucket.file(&object, posix, at)?,
        };
        Ok(Lookup::Found(node.entry()))
    }

    /// Whether something has to be asked that is not known of a name: a listing does not tell it.
    fn has_to_be_looked_at(&self, name: &str, found: &Found) -> bool {
        match found {
            Found::Directory => {
                let key = format!("{}{name}/", self.key());
                !self.bucket.directory(&key).is_known()
            }
            Found::File(object, None) => self.bucket.has_to_ask(object),
            Found::File(_, Some(_)) | Found::Nothing => false,
        }
    }

    /// Whether the object is known to have been this version a moment ago. ESTALE if it is known to be another.
    fn is_confirmed(&self, file: &FileBody) -> Result<bool, Errno> {
        if file.writing.is_dirty() || file.writing.is_gone() {
            return Ok(true);
        }
        if file.version().1.is_replaced() {
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
        let (bucket, key) = (self.bucket.clone(), self.key());
        let look = Self::look_again(bucket, key, self.parent_key());
        match self.bucket.run(look).await? {
            Found::File(object, Some(posix)) if file.is(&object, Some(posix)) => {
                file.confirm(Some((&object, posix)), at);
                Ok(())
            }
            _ => {
                file.version().1.replace();
                Err(Errno::STALE.into())
            }
        }
    }

    fn opened(&self, file: &FileBody, flags: OpenFlags) -> Result<Opened> {
        let node = self.this.upgrade().ok_or(Errno::STALE)?;
        Ok(Opened {
            file: Arc::new(OpenFile::new(node, file, flags)),
            // This version never changes but by the guest itself.
            caching: FileCaching::Keep,
        })
    }

    /// Opens what was just made or found.
    pub(super) fn open_now(&self, flags: OpenFlags) -> Result<Opened> {
        match &self.body {
            Body::File(file) => self.opened(file, flags),
            Body::Directory(_) => Err(Errno::ISDIR.into()),
        }
    }

    /// Reads the marker of this directory, unless it is known: where it is written, it has to be right.
    pub(super) async fn know_marker(self: Arc<Self>) -> Result<()> {
        let key = self.key();
        if let Body::Directory(directory) = &self.body
            && !directory.is_believed(self.bucket.options.lifetime)
            && !key.is_empty()
        {
            let marker = self.marker().await?;
            directory.change(|posix| *posix = Posix::of(&marker));
        }
        Ok(())
    }

    /// What the marker of this directory says. The root has none.
    pub(super) async fn marker(&self) -> Result<Metadata> {
        let key = self.key();
        if key.is_empty() {
            return Ok(Metadata::new());
        }
        let marker = self.bucket.store.marker(&self.bucket.full_key(&key)).await;
        Ok(marker.map_err(failed)?.unwrap_or_default())
    }

    /// Whether its attributes can be told without asking. Where nothing is written those of a listing do.
    pub(super) fn is_known(&self) -> bool {
        if self.bucket.writer.is_none() {
            return true;
        }
        match &self.body {
            Body::Directory(directory) => directory.is_believed(self.bucket.options.lifetime),
            // Modes, owners and links are kept, and a listing tells none of them.
            Body::File(file) => file.posix().is_some(),
        }
    }
}

impl fmt::Debug for FlatNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlatNode").field(&self.key()).finish()
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
            Body::Directory(_) => 0,
            Body::File(file) => file.generation,
        };
        NodeIdentity {
            device: 0,
            inode: self.number,
            generation,
        }
    }

    fn kind(&self) -> FileKind {
        match &self.body {
            Body::Directory(_) => FileKind::Directory,
            Body::File(file) if file.symlink => FileKind::Symlink,
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
        if !matches!(self.body, Body::Directory(_)) {
            return Answer::error(Errno::NOTDIR);
        }
        // Keys are UTF-8.
        let Ok(text) = std::str::from_utf8(name.as_bytes()) else {
            return Answer::ok(Lookup::Missing { ttl: Ttl::Policy });
        };
        if let Some(pending) = answers::pending(self, text) {
            return Answer::ok(pending);
        }
        let directory = self.key();
        if let Some((at, found)) = self.bucket.known(&directory, text)
            && !self.has_to_be_looked_at(text, &found)
        {
            return Answer::ready(self.lookup_of(text, found, at));
        }
        let at = Instant::now();
        Answer::later(async move {
            let bucket = self.bucket.clone();
            let wanted = text.to_owned();
            let find = async move {
                let found = bucket.find_all(&directory, &wanted).await?;
                if found == Found::Directory && bucket.writer.is_some() {
                    let node = bucket.directory(&format!("{directory}{wanted}/"));
                    node.clone().know_marker().await?;
                    return Ok((found, Some(node)));
                }
                Ok((found, None))
            };
            let (found, held) = self.bucket.run(find).await?;
            let looked_up = self.lookup_of(text, found, at);
            drop(held);
            looked_up
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        let Body::File(file) = &self.body else {
            return Answer::error(Errno::ISDIR);
        };
        if request.flags.modifies() && self.bucket.writer.is_none() {
            return Answer::error(Errno::ROFS);
        }
        let flags = request.flags;
        let truncates = flags.contains(OpenFlags::TRUNCATE);
        match self.is_confirmed(file) {
            Ok(true) if !truncates => Answer::ready(self.opened(file, flags)),
            Ok(confirmed) => Answer::later(async move {
                if !confirmed {
                    self.confirm(file).await?;
                }
                if truncates {
                    let changes = AttributeChanges {
                        size: Some(0),
                        ..AttributeChanges::default()
                    };
                    self.setattr(changes).await?;
                }
                self.opened(file, flags)
            }),
            Err(errno) => Answer::error(errno),
        }
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        if self.bucket.writer.is_none() {
            return Answer::error(Errno::ROFS);
        }
        let Some(this) = self.this.upgrade() else {
            return Answer::error(Errno::STALE);
        };
        Answer::later(async move {
            self.bucket
                .run(async move { this.change(changes).await })
                .await
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        let Body::File(file) = &self.body else {
            return Answer::error(Errno::INVAL);
        };
        if !file.symlink {
            return Answer::error(Errno::INVAL);
        }
        Answer::later(async move {
            let opened = self.opened(file, OpenFlags::READ)?;
            let mut target = vec![0; usize::try_from(LONGEST_TARGET).unwrap_or(0)];
            let length = target.len();
            let mut sink = BufferSink::new(&mut target);
            let read = opened
                .file
                .read(ReadRequest { offset: 0, length }, &mut sink)
                .await?;
            target.truncate(read);
            Ok(target)
        })
    }

    fn create<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        answers::create(self, caller, name, flags, &inode)
    }

    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        answers::mkdir(self, caller, name, &inode)
    }

    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        answers::symlink(self, caller, name, target, &inode)
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        if new.kind != FileKind::Regular {
            return Answer::error(Errno::PERM);
        }
        let flags = OpenFlags::WRITE | OpenFlags::EXCLUSIVE;
        answers::create(self, caller, name, flags, &new.inode).map(|created| created.entry)
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        answers::unlink(self, name)
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        answers::rmdir(self, name)
    }

    fn rename<'a>(&'a self, _: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        answers::rename(self, rename)
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        answers::getxattr(self, name)
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        answers::listxattr(self)
    }

    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        answers::change_xattr(self, name, Some(value), flags)
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        answers::change_xattr(self, name, None, XattrFlags::empty())
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        let bucket = self.bucket.clone();
        Answer::later(async move {
            let sync = {
                let bucket = bucket.clone();
                async move {
                    match &bucket.writer {
                        Some(writer) => writer.sync().await,
                        None => Ok(()),
                    }
                }
            };
            bucket.run(sync).await
        })
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        if !matches!(self.body, Body::Directory(_)) {
            return Answer::error(Errno::NOTDIR);
        }
        Answer::ok(Arc::new(OpenDirectory::new(
            self.bucket.clone(),
            self.key(),
            self.number,
            &self.parent_key(),
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
