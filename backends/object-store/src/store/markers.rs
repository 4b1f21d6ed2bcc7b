//! Objects that stand for directories.
//!
//! Other tools know a directory by an object whose key is the directory's with a `/` at its end. The client library
//! cannot name such a key, so for S3 the request is [our own](super::s3). Other services have an object of a reserved name in the directory instead.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{
    Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt, PutOptions, PutPayload, Result,
};

/// The object in a directory that marks it where a key cannot end with a `/`.
pub(crate) const PLACEHOLDER: &str = ".vfsd-directory";

/// Writes and reads markers. Keys end with `/`.
#[async_trait]
pub(crate) trait Markers: fmt::Debug + Send + Sync {
    /// Writes one, whether it is there or not.
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()>;

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

#[async_trait]
impl Markers for Placeholders {
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        let options = PutOptions {
            attributes: attributes.clone(),
            ..PutOptions::default()
        };
        let payload = PutPayload::new();
        self.0
            .put_opts(&placeholder(directory)?, payload, options)
            .await?;
        Ok(())
    }

    async fn delete(&self, directory: &str) -> Result<()> {
        match self.0.delete(&placeholder(directory)?).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn look(&self, directory: &str) -> Result<Option<Attributes>> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.0.get_opts(&placeholder(directory)?, options).await {
            Ok(found) => Ok(Some(found.attributes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
