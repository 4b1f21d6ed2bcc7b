//! Objects that stand for directories.
//!
//! Other tools know a directory by an object whose key is the directory's with a `/` at its end. The client library
//! cannot name such a key, so for S3 the request is [our own](super::s3). Other services have an object of a reserved name in the directory instead.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{
    Attributes, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result,
};
use tokio::time::timeout;

use super::Store;
use super::error::is_unknown;
use super::head::{found, head};
use super::nonce::Nonce;
use super::retry_policy::silent;

/// The object in a directory that marks it where a key cannot end with a `/`.
pub(crate) const PLACEHOLDER: &str = ".vfsd-directory";

/// Writes and reads markers. Keys end with `/`.
#[async_trait]
pub(crate) trait Markers: fmt::Debug + Send + Sync {
    /// Writes one, whether it is there or not.
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()>;

    /// Writes one where there is none.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one, also after a reply to this write got lost, or in a conflict that passes.
    async fn create(&self, directory: &str, attributes: &Attributes) -> Result<()>;

    /// Removes one, if it is there.
    async fn delete(&self, directory: &str) -> Result<()>;

    /// The metadata of one, if it is there.
    async fn look(&self, directory: &str) -> Result<Option<Attributes>>;
}

/// An object of a reserved name in each directory.
#[derive(Debug)]
pub(super) struct Placeholders(pub(super) Arc<dyn ObjectStore>);

fn placeholder(directory: &str) -> Result<Path> {
    Ok(Path::parse(format!("{directory}{PLACEHOLDER}"))?)
}

impl Placeholders {
    async fn write(&self, directory: &str, attributes: &Attributes, mode: PutMode) -> Result<()> {
        let options = PutOptions {
            mode,
            attributes: attributes.clone(),
            ..PutOptions::default()
        };
        let place = placeholder(directory)?;
        self.0.put_opts(&place, PutPayload::new(), options).await?;
        Ok(())
    }
}

#[async_trait]
impl Markers for Placeholders {
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        self.write(directory, attributes, PutMode::Overwrite).await
    }

    async fn create(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        self.write(directory, attributes, PutMode::Create).await
    }

    async fn delete(&self, directory: &str) -> Result<()> {
        match self.0.delete(&placeholder(directory)?).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn look(&self, directory: &str) -> Result<Option<Attributes>> {
        let there = found(self.0.get_opts(&placeholder(directory)?, head()).await)?;
        Ok(there.map(|there| there.attributes))
    }
}

impl Store {
    /// Writes the marker of a directory, whose key ends with `/`.
    pub(crate) async fn mark(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        self.counters.marked();
        let put = || self.markers.put(directory, attributes);
        self.policy.run(put).await
    }

    /// Writes the marker of a directory that has none: with a look right before where the service knows no condition.
    ///
    /// # Errors
    /// `AlreadyExists` when it has one.
    pub(crate) async fn mark_new(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        let nonce = Nonce::new();
        let mut attributes = attributes.clone();
        nonce.mark(&mut attributes);
        let mut pauses = self.policy.pauses();
        let mut maybe_applied = false;
        loop {
            self.counters.marked();
            let created = self.markers.create(directory, &attributes);
            let created = timeout(self.policy.give_up, created).await;
            match created.unwrap_or_else(|_| Err(silent())) {
                Ok(()) => return Ok(()),
                Err(error @ Error::AlreadyExists { .. }) => match self.marker(directory).await? {
                    Some(there) if maybe_applied && nonce.marks(&there) => return Ok(()),
                    Some(_) => return Err(error),
                    // A conflict that passes.
                    None => pauses.conflict(error).await?,
                },
                Err(error) if is_unknown(&error) => {
                    if self.marker(directory).await?.is_some() {
                        return Err(Error::AlreadyExists {
                            path: directory.to_owned(),
                            source: Box::new(error),
                        });
                    }
                    return self.mark(directory, &attributes).await;
                }
                Err(error) => {
                    pauses.after(error).await?;
                    maybe_applied = true;
                }
            }
        }
    }

    /// Removes the marker of a directory, if there is one.
    pub(crate) async fn unmark(&self, directory: &str) -> Result<()> {
        self.counters.marked();
        self.policy.run(|| self.markers.delete(directory)).await
    }

    /// The metadata of a directory's marker, if there is one.
    pub(crate) async fn marker(&self, directory: &str) -> Result<Option<Attributes>> {
        self.counters.marked();
        self.policy.run(|| self.markers.look(directory)).await
    }
}
