//! Moves: copies inside the store, and removals. They are not one step.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tokio::time::Instant;
use vfsd_backend::{Errno, RenameFlags, Result};

use crate::flat::body::{Body, FileBody};
use crate::flat::bucket::{Bucket, failed};
use crate::flat::known::Found;
use crate::flat::node::FlatNode;
use crate::store::{ListRequest, PLACEHOLDER};

/// The largest object that services copy with one request.
pub(super) const LARGEST_COPY: u64 = 5_000_000_000;
/// Objects below a directory that are moved with it.
const MOST_OBJECTS: usize = 1000;
/// Requests at once.
const AT_ONCE: usize = 16;

/// Where a directory is moved to.
struct Place<'a> {
    /// The key of the directory that it is in then.
    parent: &'a str,
    name: &'a str,
    /// Nothing had the name when the bucket was asked; else it is an empty directory's.
    new: bool,
}

impl FlatNode {
    /// Moves a name of this directory.
    pub(super) async fn rename(
        self: Arc<Self>,
        name: String,
        parent: Arc<FlatNode>,
        new_name: String,
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.intersects(RenameFlags::EXCHANGE | RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL.into());
        }
        let _alone = self.directory_to_write()?.moving.lock().await;
        let node = self.find_node(&name).await?.ok_or(Errno::NOENT)?;
        let mut target = parent.find_node(&new_name).await?;
        if target.is_none() && matches!(node.body, Body::Directory(_)) {
            // What is known may be a second old, and no condition covers all that is below a name.
            target = parent.find_again(&new_name).await?;
        }
        let replaces = !flags.contains(RenameFlags::NOREPLACE);
        if target.is_some() && !replaces {
            return Err(Errno::EXIST.into());
        }
        if target
            .as_ref()
            .is_some_and(|target| Arc::ptr_eq(target, &node))
        {
            return Ok(());
        }
        let to = format!("{}{new_name}", parent.key());
        match (&node.body, target.as_ref().map(|target| &target.body)) {
            (Body::File(_), Some(Body::Directory(_))) => return Err(Errno::ISDIR.into()),
            (Body::Directory(_), Some(Body::File(_))) => return Err(Errno::NOTDIR.into()),
            (Body::File(file), _) => {
                let moved = self.move_file(&node, file, target, &to, replaces).await;
                if moved.is_err() {
                    self.bucket.known.unlearn(&parent.key(), &to);
                }
                moved?;
            }
            (Body::Directory(_), _) => {
                if let Some(target) = &target
                    && !self.bucket.is_empty(&target.key()).await?
                {
                    return Err(Errno::NOTEMPTY.into());
                }
                let place = Place {
                    parent: &parent.key(),
                    name: &new_name,
                    new: target.is_none(),
                };
                self.move_directory(&node.key(), &place).await?;
            }
        }
        let (directory, new_directory) = (self.key(), parent.key());
        if let Some(writer) = &self.bucket.writer {
            writer.keep(&directory);
        }
        let known = &self.bucket.known;
        known.change(
            &directory,
            &name,
            &format!("{directory}{name}"),
            Found::Nothing,
        );
        let found = match &node.body {
            Body::Directory(_) => Found::Directory,
            Body::File(file) => Found::File(file.version().0, file.posix()),
        };
        known.change(&new_directory, &new_name, &to, found);
        Ok(())
    }

    async fn move_file(
        &self,
        node: &Arc<FlatNode>,
        file: &FileBody,
        target: Option<Arc<FlatNode>>,
        to: &str,
        replaces: bool,
    ) -> Result<()> {
        let bucket = &self.bucket;
        let _turn = file.writing.turn.lock().await;
        node.commit_in_turn(file).await?;
        if file.version().0.size > LARGEST_COPY {
            return Err(Errno::XDEV.into());
        }
        let _target_turn = match &target {
            Some(target) => {
                let (body, _) = target.to_write()?;
                let turn = body.writing.turn.lock().await;
                target.prepare_to_go().await?;
                Some(turn)
            }
            None => None,
        };
        let from = node.key();
        let (old, new) = (bucket.path(&from)?, bucket.path(to)?);
        let copied = match replaces {
            true => bucket.store.objects().copy(&old, &new).await,
            false => bucket.store.copy_new(&old, &new).await,
        };
        copied.map_err(failed)?;
        let at = Instant::now();
        let (object, posix) = bucket.look(to).await?.ok_or(Errno::NOENT)?;
        if let Some(target) = &target {
            target.vanish();
        }
        bucket.delete(&from).await?;
        let key: Arc<str> = to.into();
        self.directory_to_write()?.rename(node, file, &key);
        bucket.set_version(file, &key, &object);
        file.confirm(Some((&object, posix)), at);
        Ok(())
    }

    async fn move_directory(&self, from: &str, place: &Place<'_>) -> Result<()> {
        let bucket = &self.bucket;
        let to = &format!("{}{}/", place.parent, place.name);
        let writer = self.directory_to_write()?;
        // What is written meanwhile waits for its upload, and has the new name then.
        let nodes = bucket.numbers.known(from);
        let mut turns = Vec::new();
        for node in &nodes {
            if let Body::File(file) = &node.body {
                turns.push(file.writing.turn.lock().await);
                node.commit_in_turn(file).await?;
            }
        }
        let objects = bucket.all_below(from).await?.ok_or(Errno::XDEV)?;
        if objects.iter().any(|(_, size)| *size > LARGEST_COPY) {
            return Err(Errno::XDEV.into());
        }
        let marker = bucket
            .store
            .marker(&bucket.full_key(from))
            .await
            .map_err(failed)?;
        let marker = marker.unwrap_or_default();
        match place.new {
            true => bucket.mark_new(place.parent, place.name, &marker).await?,
            false => bucket
                .store
                .mark(&bucket.full_key(to), &marker)
                .await
                .map_err(failed)?,
        }
        let moved: Vec<(String, String)> = objects
            .into_iter()
            .filter_map(|(key, _)| {
                let rest = key.strip_prefix(from)?;
                let new = format!("{to}{rest}");
                Some((key, new))
            })
            .collect();
        // A directory inside is a marker, which is written and not copied.
        for (old, new) in moved.iter().filter(|(old, _)| old.ends_with('/')) {
            let marker = bucket
                .store
                .marker(&bucket.full_key(old))
                .await
                .map_err(failed)?;
            let metadata = marker.unwrap_or_default();
            bucket
                .store
                .mark(&bucket.full_key(new), &metadata)
                .await
                .map_err(failed)?;
        }
        let copies: Vec<_> = moved
            .iter()
            .filter(|(old, _)| !old.ends_with('/'))
            .map(|(old, new)| bucket.clone().copy(old.clone(), new.clone()))
            .collect();
        futures_util::stream::iter(copies)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        // Markers last and from below: some services have real directories, which are removed when they are empty.
        let (markers, files): (Vec<_>, Vec<_>) = moved
            .into_iter()
            .map(|(old, _)| old)
            .partition(|old| old.ends_with('/'));
        let deletions: Vec<_> = files
            .into_iter()
            .map(|old| {
                let bucket = bucket.clone();
                async move { bucket.delete(&old).await }
            })
            .collect();
        futures_util::stream::iter(deletions)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        for old in markers.iter().rev() {
            let full = bucket.full_key(old);
            bucket.store.unmark(&full).await.map_err(failed)?;
        }
        bucket
            .store
            .unmark(&bucket.full_key(from))
            .await
            .map_err(failed)?;
        for node in &nodes {
            self.follow(node, from, to).await?;
        }
        drop(turns);
        writer.move_kept(from, to);
        bucket.known.forget_all();
        Ok(())
    }

    /// A file or directory that was moved with the directory that it is in.
    async fn follow(&self, node: &Arc<FlatNode>, from: &str, to: &str) -> Result<()> {
        let (bucket, writer) = (&self.bucket, self.directory_to_write()?);
        let before = node.key();
        let Some(rest) = before.strip_prefix(from) else {
            return Ok(());
        };
        let key: Arc<str> = format!("{to}{rest}").into();
        let Body::File(file) = &node.body else {
            node.set_key(&key);
            node.keep_number();
            return Ok(());
        };
        writer.rename(node, file, &key);
        // A copy may have another ETag. Who has it open, or changed it, goes on with that; others look at it first.
        if (file.writing.is_open() || file.writing.is_dirty())
            && let Some((object, _)) = bucket.look(&key).await?
        {
            bucket.set_version(file, &key, &object);
        } else {
            bucket.set_version(file, &key, &file.version().0);
            file.doubt(bucket.options.lifetime);
        }
        Ok(())
    }
}

impl Bucket {
    /// Copies an object into a directory that was empty.
    async fn copy(self: Arc<Self>, old: String, new: String) -> Result<()> {
        // The marker of the directory itself is there already.
        let is_marker = old.ends_with(PLACEHOLDER);
        let (old, new) = (self.path(&old)?, self.path(&new)?);
        // Where conditions mean nothing, that the directory was just seen to be empty has to do.
        let copied = match self.store.copies_under_conditions() && !is_marker {
            true => self.store.copy_new(&old, &new).await,
            false => self.store.objects().copy(&old, &new).await,
        };
        copied.map_err(failed)
    }

    /// All objects below a directory with their sizes, but its own marker. `None` when there are too many to be moved.
    async fn all_below(&self, directory: &str) -> Result<Option<Vec<(String, u64)>>> {
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let request = ListRequest {
                prefix: self.full_key(directory),
                token,
                ..ListRequest::default()
            };
            let page = self.own_page(self.store.list(&request).await.map_err(failed)?);
            let below = page
                .objects
                .into_iter()
                .filter(|object| object.key != directory);
            objects.extend(below.map(|object| (object.key, object.size)));
            if objects.len() > MOST_OBJECTS {
                return Ok(None);
            }
            token = page.next;
            if token.is_none() {
                return Ok(Some(objects));
            }
        }
    }
}
