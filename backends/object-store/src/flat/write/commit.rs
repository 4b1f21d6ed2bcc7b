//! The upload of a file.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{
    Attributes as Metadata, Error, MultipartUpload, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutResult, UpdateVersion,
};
use tokio::time::Instant;
use vfsd_backend::{Errno, Result};

use super::staging::Staged;
use super::{Overwrite, Writer};
use crate::flat::body::{Body, FileBody};
use crate::flat::bucket::{failed, modified_now};
use crate::flat::content::{bare, same_etag};
use crate::flat::known::Found;
use crate::flat::node::FlatNode;
use crate::store::{ListedObject, Nonce, found, head};

/// A file up to this size is uploaded with one request, from memory.
const SINGLE: u64 = 16 << 20;
/// The smallest part of a larger one.
const PART: u64 = 8 << 20;
/// Parts of an object, at most.
const PARTS: u64 = 10_000;
/// Parts of one object on their way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// How often the upload of a large file begins again before it counts as failed.
const TRIES: u32 = 3;

/// What an object has become by our own doing.
pub(super) struct Done {
    pub(super) object: ListedObject,
    /// Its content is what it was before.
    pub(super) same_content: bool,
}

/// What the upload needs to know.
struct Upload<'a> {
    objects: &'a dyn ObjectStore,
    writer: &'a Writer,
    path: Path,
    /// The object that is replaced; `None` where there must be none.
    base: Option<Option<String>>,
    overwrite: Overwrite,
    metadata: Metadata,
    /// What all tries have in common since the object was last known to be what the file was.
    tries: u64,
}

impl FlatNode {
    /// Makes the object what the file is. Does nothing if it is so already.
    ///
    /// # Errors
    /// EIO after a conflict: the file is another by now, and stays so. After all else the file stays as it is, to be
    /// uploaded later.
    pub(in crate::flat) async fn commit(self: &Arc<Self>) -> Result<()> {
        let (file, _) = match &self.body {
            Body::File(_) => self.to_write()?,
            Body::Directory(_) => return Ok(()),
        };
        let _turn = file.writing.turn.lock().await;
        self.commit_in_turn(file).await
    }

    /// As [`commit`](Self::commit), for who has the turn.
    pub(super) async fn commit_in_turn(self: &Arc<Self>, file: &FileBody) -> Result<()> {
        if file.writing.is_lost() {
            return Err(Errno::IO.into());
        }
        if !file.writing.is_dirty() {
            return Ok(());
        }
        if !file.writing.is_written() && self.commit_attributes(file).await? {
            return Ok(());
        }
        let (_, writer) = self.to_write()?;
        let staged = self.stage(u64::MAX).await?;
        // Before the file is held up, which may grow a little meanwhile.
        let hold = match staged.size() {
            size if size <= SINGLE => writer.may_hold(size).await,
            _ => None,
        };
        let alone = file.writing.gate.write().await;
        let (metadata, changes) = self.metadata(file);
        let new = file.writing.state().new;
        let (before, _) = file.version();
        let key = self.key();
        let mut upload = Upload {
            objects: self.bucket.store.objects().as_ref(),
            writer,
            path: self.bucket.path(&key)?,
            base: (!new).then_some(before.etag),
            overwrite: writer.options.overwrite,
            metadata,
            tries: file.writing.state().tries(),
        };
        let size = staged.size();
        let (body, gates) = if size <= SINGLE {
            let body = Bytes::from(staged.part(0, size)?);
            drop(alone);
            (Some(body), (hold, None))
        } else {
            drop(hold);
            // Nobody writes meanwhile, or the object would be of no moment.
            (None, (None, Some(alone)))
        };
        let mut sent = upload.all(body.as_ref(), &staged, size).await;
        if sent.as_ref().is_err_and(is_conflict)
            && let Some(own) = upload.earlier_try().await.map_err(failed)?
        {
            upload.base = Some(own);
            sent = upload.all(body.as_ref(), &staged, size).await;
        }
        drop(gates);
        match sent {
            Ok(sent) => {
                let done = Done {
                    object: ListedObject {
                        key: key.to_string(),
                        size,
                        modified: modified_now(),
                        etag: sent.e_tag.map(|etag| bare(&etag).to_owned()),
                    },
                    same_content: false,
                };
                self.committed(file, done, changes);
                Ok(())
            }
            // Who makes a link is told that there is something, and has lost nothing.
            Err(error) if is_conflict(&error) && new && file.symlink => Err(Errno::EXIST.into()),
            Err(error) if is_conflict(&error) => {
                self.keep_aside(file, &staged, &upload).await?;
                Err(Errno::IO.into())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The object is what the file was at its change number `changes`.
    pub(super) fn committed(self: &Arc<Self>, file: &FileBody, done: Done, changes: u64) {
        let at = Instant::now();
        let key = self.key();
        let object = done.object;
        match done.same_content {
            true => file.set_object(object.clone()),
            false => self.bucket.set_version(file, &key, &object),
        }
        let posix = file.posix();
        file.written();
        file.confirm(None, at);
        let mut state = file.writing.state();
        state.new = false;
        state.committed = changes;
        state.tries = None;
        let clean = !state.is_dirty();
        if clean && !file.writing.is_open() {
            state.forget();
        }
        if clean && let Some(writer) = &self.bucket.writer {
            writer.remove(self);
        }
        drop(state);
        let (directory, name) = crate::flat::names::split(&key);
        self.bucket
            .known
            .change(directory, name, &key, Found::File(object, posix));
    }

    /// Another client's version stays; this one gets a name of its own, and the guest a file that is stale.
    async fn keep_aside(
        self: &Arc<Self>,
        file: &FileBody,
        staged: &Staged,
        upload: &Upload<'_>,
    ) -> Result<()> {
        let key = self.key();
        let number = crate::store::random();
        let copy = format!("{key}.vfsd-conflict-{number:016x}");
        let aside = Upload {
            objects: upload.objects,
            writer: upload.writer,
            path: self.bucket.path(&copy)?,
            base: None,
            overwrite: Overwrite::Refuse,
            metadata: upload.metadata.clone(),
            tries: crate::store::random(),
        };
        let hold = upload.writer.may_hold(staged.size().min(SINGLE)).await;
        let alone = file.writing.gate.write().await;
        let size = staged.size();
        if size <= SINGLE {
            aside
                .single(staged.part(0, size)?.into())
                .await
                .map_err(failed)?;
        } else {
            drop(hold);
            aside.parts(staged, size).await.map_err(failed)?;
        }
        // What is written from now on is in no copy.
        file.writing.lose();
        drop(alone);
        tracing::warn!(
            key = %key.escape_debug(), copy = %copy.escape_debug(),
            "another client has written this object; what the guest wrote has another name"
        );
        self.give_up(file);
        let (directory, _) = crate::flat::names::split(&key);
        self.bucket.known.unlearn(directory, &copy);
        Ok(())
    }
}

/// Whether the object was not the one that was to be replaced.
fn is_conflict(error: &Error) -> bool {
    matches!(
        error,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }
    )
}

impl Upload<'_> {
    /// Everything: with one request where its bytes are given.
    async fn all(
        &self,
        body: Option<&Bytes>,
        staged: &Staged,
        size: u64,
    ) -> object_store::Result<PutResult> {
        match body {
            Some(body) => self.single(body.clone()).await,
            None => self.parts(staged, size).await,
        }
    }

    async fn look(&self) -> object_store::Result<Option<(PutResult, Option<Nonce>)>> {
        look(self.objects, &self.path).await
    }

    /// The ETag of the object if it is what an earlier try made of it, which was given up without a reply.
    async fn earlier_try(&self) -> object_store::Result<Option<Option<String>>> {
        let is_own = |nonce: Option<Nonce>| nonce.is_some_and(|nonce| nonce.is_of_try(self.tries));
        let found = self.look().await?;
        Ok(found.and_then(|(there, nonce)| is_own(nonce).then_some(there.e_tag)))
    }

    /// Everything with one request, under its condition.
    async fn single(&self, body: Bytes) -> object_store::Result<PutResult> {
        let mode = match (&self.base, self.overwrite) {
            (_, Overwrite::LastWins) | (Some(None), _) => PutMode::Overwrite,
            (None, Overwrite::Refuse) => PutMode::Create,
            (Some(Some(etag)), Overwrite::Refuse) => PutMode::Update(UpdateVersion {
                e_tag: Some(format!("\"{}\"", bare(etag))),
                version: None,
            }),
        };
        let mut options = PutOptions {
            mode,
            attributes: self.metadata.clone(),
            ..PutOptions::default()
        };
        options.extensions.insert(Nonce::of_try(self.tries));
        self.objects
            .put_opts(&self.path, body.into(), options)
            .await
    }

    /// In parts. Services take no condition with those, so the object is looked at just before the end.
    async fn parts(&self, staged: &Staged, size: u64) -> object_store::Result<PutResult> {
        let nonce = Nonce::of_try(self.tries);
        let mut tries = TRIES;
        loop {
            tries = tries.saturating_sub(1);
            let error = match self.parts_once(staged, size, nonce).await {
                Err(error) if !is_conflict(&error) => error,
                result => return result,
            };
            // The reply to the end may be all that is missing.
            if let Ok(Some((there, Some(found)))) = self.look().await
                && found == nonce
            {
                return Ok(there);
            }
            if tries == 0 {
                return Err(error);
            }
            tracing::debug!(%error, "an upload in parts begins again");
        }
    }

    async fn parts_once(
        &self,
        staged: &Staged,
        size: u64,
        nonce: Nonce,
    ) -> object_store::Result<PutResult> {
        let mut options = PutMultipartOptions {
            attributes: self.metadata.clone(),
            ..PutMultipartOptions::default()
        };
        nonce.mark(&mut options.attributes);
        let mut upload = self.objects.put_multipart_opts(&self.path, options).await?;
        let sent = self.send_parts(upload.as_mut(), staged, size).await;
        match sent {
            Ok(done) => Ok(done),
            Err(error) => {
                if let Err(left) = upload.abort().await {
                    tracing::warn!(%left, "parts of an upload are left behind");
                }
                Err(error)
            }
        }
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        staged: &Staged,
        size: u64,
    ) -> object_store::Result<PutResult> {
        let length = size.div_ceil(PARTS).max(PART);
        let mut offset = 0;
        let mut sending = FuturesUnordered::new();
        while offset < size || !sending.is_empty() {
            let part = length.min(size.saturating_sub(offset));
            let more = part > 0 && sending.len() < PARTS_AT_ONCE;
            tokio::select! {
                // What is on its way goes on while room for the next one is waited for.
                Some(sent) = sending.next(), if !sending.is_empty() => sent?,
                hold = self.writer.may_hold(part), if more => {
                    let bytes = staged.part(offset, part).map_err(unreadable)?;
                    let sent = upload.put_part(bytes.into());
                    sending.push(async move {
                        let sent = sent.await;
                        drop(hold);
                        sent
                    });
                    offset = offset.saturating_add(part);
                }
            }
        }
        if self.overwrite == Overwrite::Refuse {
            self.check_base().await?;
        }
        upload.complete().await
    }

    /// Fails as a condition would if the object is not the one that is to be replaced.
    async fn check_base(&self) -> object_store::Result<()> {
        let found = self.look().await?.map(|(there, _)| there.e_tag);
        let same = match (&self.base, &found) {
            (None, None) => true,
            (Some(base), Some(found)) => same_etag(base.as_deref(), found.as_deref()),
            _ => false,
        };
        match same {
            true => Ok(()),
            false => Err(Error::Precondition {
                path: self.path.to_string(),
                source: "another client has written it".into(),
            }),
        }
    }
}

fn unreadable(error: vfsd_backend::Error) -> Error {
    Error::Generic {
        store: "staging",
        source: Box::new(error),
    }
}

/// The object at a path, and the nonce that it was written with.
pub(super) async fn look(
    objects: &dyn ObjectStore,
    path: &Path,
) -> object_store::Result<Option<(PutResult, Option<Nonce>)>> {
    let there = found(objects.get_opts(path, head()).await)?;
    Ok(there.map(|there| {
        let nonce = Nonce::found(&there.attributes);
        let there = PutResult {
            e_tag: there.meta.e_tag,
            version: there.meta.version,
            extensions: Default::default(),
        };
        (there, nonce)
    }))
}
