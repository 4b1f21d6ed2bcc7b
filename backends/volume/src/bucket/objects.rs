//! The objects of a volume: reads and conditional writes, without a notion of what they mean.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use vfsd_object_store::Store;
use vfsd_object_store::store::{ListRequest, ListedObject};

use super::cipher::{ALGORITHM, Cipher, Encryption};
use super::damage::Damage;
use super::error::BucketError;
use super::head::Description;
use super::log::Uuid;
use super::names::Names;
use crate::key::{Bucket, VolumeKey};

type Result<T> = std::result::Result<T, BucketError>;

/// A prefix of a bucket that is, or becomes, a volume.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    pub(super) store: Store,
    pub(super) names: Names,
    /// For messages.
    pub(super) place: Arc<str>,
    /// Of who opens it, whether it is encrypted or not.
    key: Option<VolumeKey>,
    /// Of the volume, once that is known.
    pub(super) cipher: Cipher,
    pub(super) encryption: Option<Encryption>,
}

/// Why a part of an object is not read.
pub(super) fn part_failed(key: &Path, error: Error) -> BucketError {
    match error {
        Error::NotFound { .. } => BucketError::damaged(key)(Damage("it is not there")),
        error => BucketError::store("read a part of an object")(error),
    }
}

/// What a conditional read found.
pub(super) enum Found {
    Same,
    Other(Bytes, UpdateVersion),
    Nothing,
}

impl Objects {
    pub(super) fn new(bucket: impl Into<Bucket>, prefix: &str) -> Result<Self> {
        let bucket = bucket.into();
        let names = Names::new(prefix).map_err(|error| BucketError::Store {
            what: "use this prefix",
            source: error.into(),
        })?;
        let place = bucket.place(prefix).into();
        let Bucket { store, key } = bucket;
        Ok(Self {
            store,
            names,
            place,
            key,
            cipher: Cipher::default(),
            encryption: None,
        })
    }

    /// The same for a volume that is encrypted with the key, if there is one.
    pub(super) fn sealing(mut self, uuid: Uuid) -> Result<Self> {
        if let Some(key) = &self.key {
            self.cipher = Cipher::new(key, uuid);
        }
        let encryption = self.cipher.encryption();
        self.encryption = encryption.map_err(BucketError::local("encrypt a volume"))?;
        Ok(self)
    }

    /// The same for the volume that is here, and opens with the key.
    pub(super) fn unlocked(self, volume: &Description) -> Result<Self> {
        let place = self.place.clone();
        let told = volume.encryption.as_ref();
        match (&self.key, told) {
            (Some(_), None) => return Err(BucketError::NotEncrypted(place)),
            (None, Some(_)) => return Err(BucketError::Encrypted(place)),
            _ => {}
        }
        if let Some(told) = told.filter(|told| told.algorithm != ALGORITHM) {
            return Err(BucketError::Newer {
                place,
                what: format!("'{}'", told.algorithm.escape_default()),
            });
        }
        let unlocked = self.sealing(volume.uuid())?;
        match unlocked.encryption.as_ref() == told {
            true => Ok(unlocked),
            false => Err(BucketError::WrongKey(place)),
        }
    }

    /// As [`unlocked`](Self::unlocked), or without the key for who does not look into what is sealed.
    pub(super) fn unlocked_if_possible(mut self, volume: &Description) -> Result<Self> {
        match (&self.key, &volume.encryption) {
            (None, Some(encryption)) => {
                self.encryption = Some(encryption.clone());
                Ok(self)
            }
            _ => self.unlocked(volume),
        }
    }

    /// A whole object of at most `limit` bytes, and what tells this content from later ones.
    pub(super) async fn read(
        &self,
        key: &Path,
        limit: u64,
    ) -> Result<Option<(Bytes, UpdateVersion)>> {
        match self.read_unless(key, limit, None).await? {
            Found::Other(bytes, version) => Ok(Some((bytes, version))),
            Found::Same | Found::Nothing => Ok(None),
        }
    }

    /// As [`read`](Self::read), unless the object has this version still.
    pub(super) async fn read_unless(
        &self,
        key: &Path,
        limit: u64,
        known: Option<&UpdateVersion>,
    ) -> Result<Found> {
        let options = GetOptions {
            if_none_match: known.and_then(|version| version.e_tag.clone()),
            ..GetOptions::default()
        };
        let failed = BucketError::store("read an object");
        let found = match self.store.objects().get_opts(key, options).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(Found::Nothing),
            Err(Error::NotModified { .. }) => return Ok(Found::Same),
            Err(error) => return Err(failed(error)),
        };
        if found.meta.size > limit {
            return Err(BucketError::damaged(key)(Damage(
                "it is longer than any vfsd writes it",
            )));
        }
        let version = UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        let bytes = found.bytes().await.map_err(failed)?;
        Ok(Found::Other(bytes, version))
    }

    /// Part of an object, and how long the whole is. A part that is not there is a damage.
    pub(super) async fn read_range(
        &self,
        key: &Path,
        range: std::ops::Range<u64>,
    ) -> Result<(Bytes, u64)> {
        let options = GetOptions::new().with_range(Some(range));
        let read = async {
            let found = self.store.objects().get_opts(key, options).await?;
            let size = found.meta.size;
            Ok((found.bytes().await?, size))
        };
        read.await.map_err(|error| part_failed(key, error))
    }

    /// As [`read_range`](Self::read_range), with the part as it comes. What goes wrong with that is [told](part_failed) in the
    /// same words.
    pub(super) async fn begin_range(
        &self,
        key: &Path,
        range: std::ops::Range<u64>,
    ) -> Result<(BoxStream<'static, object_store::Result<Bytes>>, u64)> {
        let options = GetOptions::new().with_range(Some(range));
        match self.store.objects().get_opts(key, options).await {
            Ok(found) => {
                let size = found.meta.size;
                Ok((found.into_stream(), size))
            }
            Err(error) => Err(part_failed(key, error)),
        }
    }

    /// Size and time of writing, by the store's clock.
    pub(super) async fn look(&self, key: &Path) -> Result<Option<(u64, SystemTime)>> {
        match self.store.objects().head(key).await {
            Ok(meta) => Ok(Some((meta.size, meta.last_modified.into()))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(BucketError::store("look for an object")(error)),
        }
    }

    /// Whether the object was made; `false` where there is one already.
    pub(super) async fn create(&self, key: &Path, bytes: Bytes) -> Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .store
            .objects()
            .put_opts(key, bytes.into(), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(BucketError::store("make an object")(error)),
        }
    }

    /// The object's new version; `None` where it is no longer the one that is to be replaced.
    pub(super) async fn replace(
        &self,
        key: &Path,
        bytes: Bytes,
        old: UpdateVersion,
    ) -> Result<Option<UpdateVersion>> {
        let options = PutOptions::from(PutMode::Update(old));
        match self
            .store
            .objects()
            .put_opts(key, bytes.into(), options)
            .await
        {
            Ok(done) => Ok(Some(done.into())),
            Err(
                Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. },
            ) => Ok(None),
            Err(error) => Err(BucketError::store("replace an object")(error)),
        }
    }

    /// Tells `each` of all objects whose keys begin with `relative` and come after the key `after`.
    pub(super) async fn list(
        &self,
        relative: &str,
        after: Option<&Path>,
        mut each: impl FnMut(ListedObject),
    ) -> Result<()> {
        let mut request = ListRequest {
            prefix: self.names.below(relative),
            after: after.map(ToString::to_string),
            ..ListRequest::default()
        };
        loop {
            let page = self.store.list(&request).await;
            let page = page.map_err(BucketError::store("list objects"))?;
            page.objects.into_iter().for_each(&mut each);
            if page.next.is_none() {
                return Ok(());
            }
            request.token = page.next;
        }
    }

    /// Whether there is no object under the prefix, but for what a probe of the store left.
    pub(super) async fn is_empty(&self) -> Result<bool> {
        let probed = self.names.below(".vfsd-probe-");
        let request = ListRequest {
            prefix: self.names.below(""),
            ..ListRequest::default()
        };
        let page = self.store.list(&request).await;
        let page = page.map_err(BucketError::store("list objects"))?;
        Ok(page
            .objects
            .iter()
            .all(|object| object.key.starts_with(&probed)))
    }

    /// Deletes objects; those that are gone already count as deleted. The number, and the first failure.
    pub(super) async fn delete(&self, keys: Vec<Path>) -> (u64, Option<BucketError>) {
        let keys = stream::iter(keys).map(Ok).boxed();
        let mut results = self.store.objects().delete_stream(keys);
        let (mut deleted, mut failure) = (0_u64, None);
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(Error::NotFound { .. }) => deleted = deleted.saturating_add(1),
                Err(error) => {
                    failure.get_or_insert(BucketError::store("delete an object")(error));
                }
            }
        }
        (deleted, failure)
    }
}
