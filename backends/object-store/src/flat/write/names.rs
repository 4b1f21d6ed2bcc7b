//! Names that are made and removed.

use std::sync::Arc;

use object_store::{Attributes as Metadata, Error, ObjectStoreExt};
use tokio::time::Instant;
use vfsd_backend::{
    Caller, Created, Entry, Errno, FileKind, LinkTarget, Lookup, Name, NewInode, OpenFlags, Result,
    SliceSource, Timestamp,
};

use super::commit::look;
use super::{Overwrite, Writer, Writing};
use crate::flat::body::Body;
use crate::flat::bucket::failed;
use crate::flat::known::Found;
use crate::flat::names::is_name;
use crate::flat::node::FlatNode;
use crate::flat::posix::Posix;
use crate::store::ListRequest;

/// The longest key that services take, in bytes.
const LONGEST_KEY: usize = 1024;

/// Who owns a new file, and what may be done with it.
fn posix_of(caller: Caller, inode: &NewInode<'_>) -> Posix {
    let identity = caller.identity.unwrap_or_default();
    Posix {
        symlink: false,
        permissions: Some(inode.permissions & !inode.umask & 0o7777),
        uid: Some(identity.uid),
        gid: Some(identity.gid),
        modified: Some(Timestamp::now()),
        extended: false,
    }
}

impl FlatNode {
    /// The writer, for a change of this directory. EROFS where nothing is written.
    pub(super) fn directory_to_write(&self) -> Result<&Writer, Errno> {
        match &self.body {
            Body::Directory(_) => self.bucket.writer.as_ref().ok_or(Errno::ROFS),
            Body::File(_) => Err(Errno::NOTDIR),
        }
    }

    /// A name that a key can have.
    pub(super) fn new_name(&self, name: Name<'_>) -> Result<String, Errno> {
        let text = std::str::from_utf8(name.as_bytes()).map_err(|_| Errno::ILSEQ)?;
        if !is_name(text) {
            return Err(Errno::INVAL);
        }
        let key = self.bucket.full_key(&format!("{}{text}/", self.key()));
        match key.len() <= LONGEST_KEY {
            true => Ok(text.to_owned()),
            false => Err(Errno::NAMETOOLONG),
        }
    }

    /// What a name of this directory stands for, with a question to the bucket unless it is known.
    pub(super) async fn find(&self, name: &str) -> Result<Found> {
        let directory = self.key();
        match self.bucket.known(&directory, name) {
            Some((_, found)) => Ok(found),
            None => self.bucket.find(&directory, name).await,
        }
    }

    /// What a name of this directory stands for, as a node.
    pub(super) async fn find_node(&self, name: &str) -> Result<Option<Arc<FlatNode>>> {
        let key = format!("{}{name}", self.key());
        if let Some(node) = self
            .bucket
            .writer
            .as_ref()
            .and_then(|own| own.pending(&key))
        {
            return Ok(Some(node));
        }
        let at = Instant::now();
        let found = self.find(name).await?;
        self.node_of(name, &found, at)
    }

    /// As [`find_node`](Self::find_node), asked of the bucket whatever is known.
    pub(super) async fn find_again(&self, name: &str) -> Result<Option<Arc<FlatNode>>> {
        let at = Instant::now();
        let found = self.bucket.find_alone(&self.key(), name).await?;
        self.node_of(name, &found, at)
    }

    fn node_of(&self, name: &str, found: &Found, at: Instant) -> Result<Option<Arc<FlatNode>>> {
        let key = self.key();
        Ok(match found {
            Found::Nothing => None,
            Found::Directory => Some(self.bucket.directory(&format!("{key}{name}/"))),
            Found::File(object, posix) => Some(self.bucket.file(object, *posix, at)?),
        })
    }

    /// Makes and opens a file, or opens the one that is there.
    pub(in crate::flat) async fn create_file(
        self: Arc<Self>,
        name: String,
        flags: OpenFlags,
        inode: Posix,
    ) -> Result<Created> {
        if let Some(node) = self.find_node(&name).await? {
            if flags.contains(OpenFlags::EXCLUSIVE) {
                return Err(Errno::EXIST.into());
            }
            if flags.contains(OpenFlags::TRUNCATE) {
                let changes = vfsd_backend::AttributeChanges {
                    size: Some(0),
                    ..Default::default()
                };
                node.change(changes).await?;
            }
            let opened = node.open_now(flags)?;
            let entry = node.entry();
            return Ok(Created { entry, opened });
        }
        self.make_file(&name, flags, inode)
    }

    /// Makes and opens a file where there is none.
    fn make_file(&self, name: &str, flags: OpenFlags, inode: Posix) -> Result<Created> {
        let node = self.new_node(self.directory_to_write()?, name, inode)?;
        node.touch(|_| {})?;
        let opened = node.open_now(flags)?;
        let entry = node.entry();
        Ok(Created { entry, opened })
    }

    /// Whether a name is known to stand for nothing.
    fn is_missing(&self, name: &str) -> bool {
        let directory = self.key();
        let writer = self.bucket.writer.as_ref();
        let pending = writer.and_then(|own| own.pending(&format!("{directory}{name}")));
        let known = self.bucket.known(&directory, name);
        pending.is_none() && matches!(known, Some((_, Found::Nothing)))
    }

    /// A file that is not in the bucket yet.
    fn new_node(&self, writer: &Writer, name: &str, posix: Posix) -> Result<Arc<FlatNode>> {
        let key = format!("{}{name}", self.key());
        let writing = Writing::new_file(writer.options.staging.file()?);
        Ok(self.bucket.new_file(&key, posix, writing)?)
    }

    /// Makes a symbolic link: an object at once, as s3fs has them.
    pub(in crate::flat) async fn make_symlink(
        self: Arc<Self>,
        name: String,
        target: Vec<u8>,
        inode: Posix,
    ) -> Result<Entry> {
        let writer = self.directory_to_write()?;
        if self.find_node(&name).await?.is_some() {
            return Err(Errno::EXIST.into());
        }
        // Nothing else says so later.
        if writer.options.overwrite == Overwrite::LastWins
            && self.bucket.find_alone(&self.key(), &name).await? != Found::Nothing
        {
            return Err(Errno::EXIST.into());
        }
        let posix = Posix {
            symlink: true,
            permissions: Some(0o777),
            ..inode
        };
        let node = self.new_node(writer, &name, posix)?;
        if let Some(staged) = node.to_write()?.0.writing.staged() {
            staged.write(Some(0), &mut SliceSource::new(&target))?;
        }
        node.touch(|_| {})?;
        if let Err(error) = node.commit().await {
            // Nobody was told that it is there.
            node.vanish();
            self.bucket.known.unlearn(&self.key(), &node.key());
            return Err(error);
        }
        Ok(node.entry())
    }

    /// It has no name any more, and is not in the bucket.
    pub(super) fn vanish(&self) {
        if let Ok((file, writer)) = self.to_write() {
            file.writing.state().gone = true;
            writer.remove(self);
        }
    }

    /// Makes a directory: a marker.
    pub(in crate::flat) async fn make_directory(
        self: Arc<Self>,
        name: String,
        inode: Posix,
    ) -> Result<Entry> {
        let writer = self.directory_to_write()?;
        if self.find_node(&name).await?.is_some() {
            return Err(Errno::EXIST.into());
        }
        let directory = self.key();
        let key = format!("{directory}{name}/");
        let node = self.bucket.directory(&key);
        let made = Instant::now();
        let marker = inode.metadata(FileKind::Directory, Timestamp::now(), &Metadata::new());
        self.bucket.mark_new(&directory, &name, &marker).await?;
        if let Body::Directory(body) = &node.body {
            body.change(|posix| *posix = inode);
        }
        writer.let_go(&key);
        self.bucket.known.change(
            &directory,
            &name,
            key.trim_end_matches('/'),
            Found::Directory,
        );
        // There was nothing below it, and the condition of each write says if there is by then.
        self.bucket.known.learn_listing(&key, made, Vec::new());
        Ok(node.entry())
    }

    /// Writes the marker of this directory, with what else it says. The root has none.
    pub(super) async fn mark(&self, posix: Posix, kept: &Metadata) -> Result<()> {
        let key = self.key();
        if key.is_empty() {
            return Ok(());
        }
        let metadata = posix.metadata(FileKind::Directory, Timestamp::now(), kept);
        let full = self.bucket.full_key(&key);
        self.bucket
            .store
            .mark(&full, &metadata)
            .await
            .map_err(failed)
    }

    /// Removes a name that is not a directory's. Who has the file open goes on reading it.
    pub(in crate::flat) async fn remove_file(self: Arc<Self>, name: String) -> Result<()> {
        let writer = self.directory_to_write()?;
        let directory = self.key();
        let node = self.find_node(&name).await?.ok_or(Errno::NOENT)?;
        let Body::File(file) = &node.body else {
            return Err(Errno::ISDIR.into());
        };
        let key = node.key();
        let _turn = file.writing.turn.lock().await;
        node.prepare_to_go().await?;
        let (new, tries) = {
            let state = file.writing.state();
            (state.new, state.tries)
        };
        let there = match tries {
            // A try to upload it may have been applied although it failed.
            Some(tries) if new => self.bucket.is_of_try(&key, tries).await?,
            _ => !new,
        };
        if there {
            self.bucket.delete(&key).await?;
        }
        node.vanish();
        writer.keep(&directory);
        self.bucket
            .known
            .change(&directory, &name, &key, Found::Nothing);
        Ok(())
    }

    /// Fetches what those will read who have it open.
    pub(super) async fn prepare_to_go(self: &Arc<Self>) -> Result<()> {
        let (file, _) = self.to_write()?;
        if file.writing.is_open() && file.writing.staged().is_none() {
            self.stage(u64::MAX).await?;
        }
        Ok(())
    }

    /// Removes an empty directory.
    pub(in crate::flat) async fn remove_directory(self: Arc<Self>, name: String) -> Result<()> {
        let writer = self.directory_to_write()?;
        let directory = self.key();
        let node = self.find_node(&name).await?.ok_or(Errno::NOENT)?;
        if !matches!(node.body, Body::Directory(_)) {
            return Err(Errno::NOTDIR.into());
        }
        let key = node.key();
        if !self.bucket.is_empty(&key).await? {
            return Err(Errno::NOTEMPTY.into());
        }
        let full = self.bucket.full_key(&key);
        self.bucket.store.unmark(&full).await.map_err(failed)?;
        writer.let_go(&key);
        writer.keep(&directory);
        self.bucket
            .known
            .change(&directory, &name, key.trim_end_matches('/'), Found::Nothing);
        self.bucket.known.unlearn(&key, "");
        Ok(())
    }
}

impl crate::flat::bucket::Bucket {
    /// Writes the marker of a directory where nothing has its name: what was known of that may be a second old.
    pub(super) async fn mark_new(
        &self,
        parent: &str,
        name: &str,
        metadata: &Metadata,
    ) -> Result<()> {
        let full = self.full_key(&format!("{parent}{name}/"));
        match self.store.mark_new(&full, metadata).await {
            // Some services have a directory for a while after its last object.
            Err(Error::AlreadyExists { .. })
                if self.find_alone(parent, name).await? == Found::Nothing =>
            {
                self.store.mark(&full, metadata).await.map_err(failed)
            }
            marked => marked.map_err(failed),
        }
    }

    /// Removes an object, if it is there.
    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        match self.store.objects().delete(&self.path(key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether an object is what one of these tries has made of it.
    async fn is_of_try(&self, key: &str, tries: u64) -> Result<bool> {
        let (objects, path) = (self.store.objects(), self.path(key)?);
        let found = look(objects.as_ref(), &path).await.map_err(failed)?;
        let nonce = found.and_then(|(_, nonce)| nonce);
        Ok(nonce.is_some_and(|nonce| nonce.is_of_try(tries)))
    }

    /// Whether a directory has nothing in it but its marker.
    pub(super) async fn is_empty(&self, directory: &str) -> Result<bool> {
        if self.writer.as_ref().is_some_and(|own| {
            own.is_pending_below(directory) || !own.kept_in(directory).is_empty()
        }) {
            return Ok(false);
        }
        let request = ListRequest {
            prefix: self.full_key(directory),
            limit: Some(2),
            ..ListRequest::default()
        };
        let page = self.own_page(self.store.list(&request).await.map_err(failed)?);
        let marker = |key: &str| {
            key.strip_prefix(directory)
                .is_some_and(|rest| rest.is_empty() || rest == crate::store::PLACEHOLDER)
        };
        Ok(page.prefixes.is_empty() && page.objects.iter().all(|object| marker(&object.key)))
    }
}

/// The operations as the trait has them: checked here, done on the runtime.
pub(in crate::flat) mod answers {
    use super::*;
    use vfsd_backend::Answer;

    /// A directory that is written to, and a name that may be new in it.
    fn checked(node: &FlatNode, name: Name<'_>) -> Result<(Arc<FlatNode>, String), Errno> {
        node.directory_to_write()?;
        let name = node.new_name(name)?;
        Ok((node.this.upgrade().ok_or(Errno::STALE)?, name))
    }

    /// Does something with a directory and a new name in it.
    fn with_name<'a, T: Send + 'static, F>(
        node: &'a FlatNode,
        name: Name<'a>,
        work: impl FnOnce(Arc<FlatNode>, String) -> F + Send + 'a,
    ) -> Answer<'a, T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match checked(node, name) {
            Ok((this, name)) => {
                Answer::later(async move { node.bucket.run(work(this, name)).await })
            }
            Err(errno) => Answer::error(errno),
        }
    }

    pub(in crate::flat) fn create<'a>(
        node: &'a FlatNode,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: &NewInode<'_>,
    ) -> Answer<'a, Created> {
        let posix = posix_of(caller, inode);
        match checked(node, name) {
            // Nothing has to be asked, and the host's disk is all that may be waited for.
            Ok((this, name)) if this.is_missing(&name) => {
                Answer::brief(move || this.make_file(&name, flags, posix))
            }
            _ => with_name(node, name, move |this, name| {
                this.create_file(name, flags, posix)
            }),
        }
    }

    pub(in crate::flat) fn mkdir<'a>(
        node: &'a FlatNode,
        caller: Caller,
        name: Name<'a>,
        inode: &NewInode<'_>,
    ) -> Answer<'a, Entry> {
        let posix = posix_of(caller, inode);
        with_name(node, name, move |this, name| {
            this.make_directory(name, posix)
        })
    }

    pub(in crate::flat) fn symlink<'a>(
        node: &'a FlatNode,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'_>,
        inode: &NewInode<'_>,
    ) -> Answer<'a, Entry> {
        let posix = posix_of(caller, inode);
        let target = target.as_bytes().to_vec();
        with_name(node, name, move |this, name| {
            this.make_symlink(name, target, posix)
        })
    }

    pub(in crate::flat) fn unlink<'a>(node: &'a FlatNode, name: Name<'a>) -> Answer<'a, ()> {
        with_name(node, name, FlatNode::remove_file)
    }

    pub(in crate::flat) fn rmdir<'a>(node: &'a FlatNode, name: Name<'a>) -> Answer<'a, ()> {
        with_name(node, name, FlatNode::remove_directory)
    }

    pub(in crate::flat) fn rename<'a>(
        node: &'a FlatNode,
        rename: vfsd_backend::Rename<'a>,
    ) -> Answer<'a, ()> {
        let target: &dyn std::any::Any = rename.new_parent;
        let checked = target
            .downcast_ref::<FlatNode>()
            .ok_or(Errno::XDEV)
            .and_then(|parent| {
                parent.directory_to_write()?;
                let name = parent.new_name(rename.new_name)?;
                Ok((parent.this.upgrade().ok_or(Errno::STALE)?, name))
            });
        match checked {
            Ok((parent, new_name)) => with_name(node, rename.name, move |this, name| {
                this.rename(name, parent, new_name, rename.flags)
            }),
            Err(errno) => Answer::error(errno),
        }
    }

    /// Whether a lookup of a name has to wait, and for what: a pending file is there.
    pub(in crate::flat) fn pending(node: &FlatNode, name: &str) -> Option<Lookup> {
        let writer = node.bucket.writer.as_ref()?;
        let pending = writer.pending(&format!("{}{name}", node.key()))?;
        Some(Lookup::Found(pending.entry()))
    }
}
