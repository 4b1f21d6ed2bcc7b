//! What is kept with an object besides its content, changed without sending the content again.

use std::sync::Arc;

use object_store::{Attributes as Metadata, Error};
use vfsd_backend::{Errno, FileKind, Result, Timestamp};

use super::commit::Done;
use super::rename::LARGEST_COPY;
use crate::flat::body::{Body, FileBody};
use crate::flat::bucket::{failed, modified_now};
use crate::flat::content::{Failure, bare, same_etag};
use crate::flat::node::FlatNode;
use crate::store::{ListedObject, head};

impl FlatNode {
    /// What the object's metadata shall be, and up to which change that is so.
    pub(super) fn metadata(&self, file: &FileBody) -> (Metadata, u64) {
        let state = file.writing.state();
        let posix = file.posix().unwrap_or_default();
        let changed = state.changed.unwrap_or_else(Timestamp::now);
        let kind = match file.symlink {
            true => FileKind::Symlink,
            false => FileKind::Regular,
        };
        let kept = state.metadata.clone().unwrap_or_default();
        (posix.metadata(kind, changed, &kept), state.changes)
    }

    /// Finds out what the object's metadata says of other things than we do.
    pub(super) async fn know_metadata(&self, file: &FileBody) -> Result<()> {
        if file.writing.state().metadata.is_some() {
            return Ok(());
        }
        let found = self.look_at_metadata(file).await?;
        file.writing.state().metadata.get_or_insert(found);
        Ok(())
    }

    /// Asks what the object's metadata says. ESTALE if it is another by now.
    pub(super) async fn look_at_metadata(&self, file: &FileBody) -> Result<Metadata> {
        let (_, content) = file.version();
        let objects = self.bucket.store.objects();
        let found = objects.get_opts(&content.path, head()).await;
        let found = found.map_err(Failure::from)?;
        match content.is(&found.meta) {
            true => Ok(found.attributes),
            false => Err(Errno::STALE.into()),
        }
    }

    /// Puts the attributes of a file into the bucket whose content is there. False where that takes an upload.
    pub(super) async fn commit_attributes(self: &Arc<Self>, file: &FileBody) -> Result<bool> {
        let (object, _) = file.version();
        let strong = object.etag.as_deref().map(|etag| !etag.starts_with("W/"));
        let (Some(etag), Some(true)) = (&object.etag, strong) else {
            return Ok(false);
        };
        if object.size > LARGEST_COPY {
            return Ok(false);
        }
        match self.know_metadata(file).await {
            Err(error) if error.is(Errno::STALE) => return self.another_came(file),
            known => known?,
        }
        let (metadata, changes) = self.metadata(file);
        if file.writing.is_written() {
            // These changes include one of the content.
            return Ok(false);
        }
        let key = self.key();
        let path = self.bucket.path(&key)?;
        let quoted = format!("\"{}\"", bare(etag));
        let store = &self.bucket.store;
        let replaced = store.replace_attributes(&path, &quoted, object.size, metadata);
        let replaced = match replaced.await {
            Ok(etag) => etag,
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                return self.another_came(file);
            }
            Err(Error::NotImplemented { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let same = replaced.is_some() && same_etag(Some(etag), replaced.as_deref());
        let object = match same {
            true => ListedObject {
                modified: modified_now(),
                ..object
            },
            // One that was sent in parts has another ETag then.
            false => match self.bucket.look(&key).await? {
                Some((now, _)) if now.size == object.size => now,
                _ => return self.another_came(file),
            },
        };
        let done = Done {
            object,
            same_content: same,
        };
        self.committed(file, done, changes);
        Ok(true)
    }

    /// The object is another client's by now: it stays as it is, and this file is none any more. EIO; false where the
    /// guest has written to it, too, which takes an upload.
    fn another_came(self: &Arc<Self>, file: &FileBody) -> Result<bool> {
        if !file.writing.lose_unless_written() {
            return Ok(false);
        }
        let key = self.key();
        tracing::warn!(
            key = %key.escape_debug(),
            "another client has written this object; the attributes that the guest gave it are not applied"
        );
        self.give_up(file);
        Err(Errno::IO.into())
    }

    /// What follows from the name being another's file.
    pub(super) fn give_up(&self, file: &FileBody) {
        file.version().1.replace();
        if let Some(writer) = &self.bucket.writer {
            writer.remove(self);
        }
        let key = self.key();
        let (directory, _) = crate::flat::names::split(&key);
        self.bucket.known.unlearn(directory, &key);
    }

    /// Waits for a change of the object by ourselves that is on its way.
    pub(in crate::flat) async fn settle(&self) {
        if let Body::File(file) = &self.body {
            drop(file.writing.turn.lock().await);
        }
    }
}
