//! Other attributes for an object that is not sent again.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Attributes, Error, Result};
use tokio::time::timeout;

use super::Store;
use super::head::head;
use super::nonce::Nonce;
use super::retry_policy::silent;

/// An ETag that no object has.
const NOBODYS: &str = "\"vfsd-no-such-version\"";

/// What a service copies at least, in bytes.
const COPIED_PER_SECOND: u64 = 16 << 20;

/// What can replace the attributes of an object.
#[async_trait]
pub(crate) trait AttributeStore: fmt::Debug + Send + Sync {
    /// Replaces all of them, if the object has this ETag (with its quotes). Answers the ETag that it has then.
    ///
    /// # Errors
    /// `Precondition` when it has another one, `NotImplemented` where the service cannot.
    async fn replace(
        &self,
        location: &Path,
        etag: &str,
        attributes: &Attributes,
    ) -> Result<Option<String>>;
}

/// Replaces attributes where they lie.
#[derive(Debug)]
pub(super) struct InPlace {
    store: Arc<dyn AttributeStore>,
    /// Whether the service keeps the condition, once that was tried.
    keeps: OnceLock<bool>,
}

/// What an object shall have.
struct Change<'a> {
    location: &'a Path,
    attributes: &'a Attributes,
    nonce: Nonce,
    /// The longest time of an attempt.
    limit: Duration,
}

impl InPlace {
    pub(super) fn new(store: Arc<dyn AttributeStore>) -> Self {
        Self {
            store,
            keeps: OnceLock::new(),
        }
    }
}

impl Store {
    /// The same with attributes that are replaced by another store.
    #[cfg(test)]
    pub(crate) fn with_attributes(self, store: Arc<dyn AttributeStore>) -> Self {
        Self {
            attributes: Some(Arc::new(InPlace::new(store))),
            ..self
        }
    }

    /// Replaces all attributes of an object of `size` bytes without sending its content, if it has this ETag. Answers the ETag
    /// that it has then, which may be another one.
    ///
    /// # Errors
    /// `Precondition` or `NotFound` when the object is another. `NotImplemented` where the service cannot do it under
    /// a condition, or does not want to.
    pub(crate) async fn replace_attributes(
        &self,
        location: &Path,
        etag: &str,
        size: u64,
        mut attributes: Attributes,
    ) -> Result<Option<String>> {
        let impossible = || Error::NotImplemented {
            operation: "attributes under a condition".to_owned(),
            implementer: self.name.to_string(),
        };
        let in_place = self.attributes.as_ref().ok_or_else(impossible)?;
        let nonce = Nonce::new();
        nonce.mark(&mut attributes);
        let seconds = size.checked_div(COPIED_PER_SECOND).unwrap_or(0);
        let limit = self
            .policy
            .attempt
            .saturating_add(Duration::from_secs(seconds));
        let change = Change {
            location,
            attributes: &attributes,
            nonce,
            limit,
        };
        if in_place.keeps.get().is_none() {
            // A condition that cannot hold tells. Where it is ignored this was the whole work.
            match self.replace_once(in_place, NOBODYS, &change).await {
                Err(Error::Precondition { .. }) => {
                    let _ = in_place.keeps.set(true);
                }
                Ok(etag) => {
                    let _ = in_place.keeps.set(false);
                    return Ok(etag);
                }
                Err(error) => return Err(error),
            }
        }
        match in_place.keeps.get() {
            Some(true) => self.replace_once(in_place, etag, &change).await,
            _ => Err(impossible()),
        }
    }

    /// One replacement, repeated until it is answered.
    async fn replace_once(
        &self,
        in_place: &InPlace,
        etag: &str,
        change: &Change<'_>,
    ) -> Result<Option<String>> {
        let mut pauses = self.policy.pauses();
        let mut maybe_applied = false;
        loop {
            self.counters.copied();
            let (location, attributes) = (change.location, change.attributes);
            let replaced = in_place.store.replace(location, etag, attributes);
            let replaced = timeout(change.limit, replaced);
            match replaced.await.unwrap_or_else(|_| Err(silent())) {
                Ok(etag) => return Ok(etag),
                Err(error @ (Error::Precondition { .. } | Error::NotFound { .. }))
                    if maybe_applied =>
                {
                    return match self.objects.get_opts(location, head()).await {
                        Ok(found) if change.nonce.marks(&found.attributes) => Ok(found.meta.e_tag),
                        _ => Err(error),
                    };
                }
                Err(error) => {
                    pauses.after(error).await?;
                    maybe_applied = true;
                }
            }
        }
    }
}
