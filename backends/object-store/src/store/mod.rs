//! A bucket that can be relied on.
//!
//! [`Store::open`] stacks, from the service outwards: [counters](Counters), a check of each reply's
//! length, and [retries](RetryPolicy) with limits of their own, which also find out whether a conditional write
//! whose reply got lost was applied. The client library's own retries are off.

mod attributes;
mod aws_files;
mod checked;
mod clients;
mod connect;
mod copies;
mod counters;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fault;
mod head;
mod http;
mod keys;
mod list;
mod markers;
mod nonce;
mod options;
mod outage;
mod parts;
mod probe;
mod retry;
mod retry_policy;
mod roots;
mod s3;
#[cfg(test)]
pub(crate) mod tests;
mod url;

pub use counters::{Counters, Requests};
pub use error::OpenError;
pub(crate) use error::is_denied;
#[cfg(any(test, feature = "testing"))]
pub use fault::{Fault, FaultStore, Faults};
pub use list::{ListPage, ListRequest, ListedObject, Lister};
pub(crate) use nonce::{NAME as NONCE, Nonce, random};
pub use options::StoreOptions;
pub use probe::{Ability, ProbeReport, probe};
pub use retry_policy::RetryPolicy;
pub use url::{Provider, StoreUrl};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;

#[cfg(test)]
pub(crate) use self::attributes::AttributeStore;
use self::attributes::InPlace;
use self::checked::CheckedStore;
use self::copies::Copies;
use self::counters::CountingStore;
pub(crate) use self::head::{found, head};
use self::list::{CountedLister, PathLister};
pub(crate) use self::markers::PLACEHOLDER;
use self::markers::{Markers, Placeholders};
use self::retry::RetryingStore;

/// An open bucket. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    lister: Arc<dyn Lister>,
    markers: Arc<dyn Markers>,
    attributes: Option<Arc<InPlace>>,
    copies: Arc<Copies>,
    counters: Arc<Counters>,
    policy: Arc<RetryPolicy>,
    name: Arc<str>,
    identity: Arc<str>,
}

impl Store {
    /// Connects to the bucket of `url`. Nothing is sent yet; files of the host (certificates, credentials)
    /// are read now.
    ///
    /// # Errors
    /// An option that isn't known or has no valid value, credentials that cannot be read.
    pub fn open(
        url: &StoreUrl,
        options: &StoreOptions,
        policy: RetryPolicy,
    ) -> Result<Self, OpenError> {
        let connection = connect::connect(url, options, &policy)?;
        let name = url.bucket_url();
        let by_version = url.provider() == Provider::Google;
        let (objects, lister) = (connection.objects, connection.lister);
        let stack = Self::stack(objects, lister, policy, &name, by_version);
        let markers = connection.markers.unwrap_or(stack.markers.clone());
        Ok(Self {
            markers,
            attributes: connection.attributes.map(InPlace::new).map(Arc::new),
            identity: format!("{name} {}", options.endpoint()).into(),
            ..stack
        })
    }

    /// The same over any store, for instance one in memory.
    pub fn over(objects: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        let lister = Arc::new(PathLister::new(objects.clone()));
        let name = objects.to_string();
        Self::stack(objects, lister, policy, &name, false)
    }

    /// The same that another one lists.
    #[cfg(test)]
    pub(crate) fn with_lister(self, lister: Arc<dyn Lister>) -> Self {
        let lister = CountedLister::new(lister, self.counters.clone());
        Self {
            lister: Arc::new(lister),
            ..self
        }
    }

    fn stack(
        objects: Arc<dyn ObjectStore>,
        lister: Arc<dyn Lister>,
        policy: RetryPolicy,
        name: &str,
        by_version: bool,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let policy = Arc::new(policy.of(name));
        let counted = CountingStore::new(objects, counters.clone());
        let checked = CheckedStore::new(Arc::new(counted));
        let retrying = RetryingStore::new(Arc::new(checked), policy.clone());
        let copies = retrying.copies().clone();
        let objects = Arc::new(retrying.by_version(by_version));
        Self {
            copies,
            markers: Arc::new(Placeholders(objects.clone())),
            attributes: None,
            objects,
            lister: Arc::new(CountedLister::new(lister, counters.clone())),
            counters,
            policy,
            name: name.into(),
            identity: name.into(),
        }
    }

    /// The objects. Conditional writes through it are safe to repeat.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// One page of a listing, with keys exactly as the service has them.
    ///
    /// # Errors
    /// What the service answered, or its last failure when retries ran out.
    pub async fn list(&self, request: &ListRequest) -> object_store::Result<ListPage> {
        self.policy.run(|| self.lister.page(request)).await
    }

    /// Asks for one key under `prefix`, to find out within ten seconds whether the bucket can be read at all.
    ///
    /// # Errors
    /// It cannot. The text says what to do.
    pub async fn check(&self, prefix: &str) -> Result<(), OpenError> {
        let request = ListRequest {
            prefix: prefix.to_owned(),
            limit: Some(1),
            ..ListRequest::default()
        };
        // Whoever starts a daemon waits for this.
        let policy = self.policy.shortened(Duration::from_secs(10));
        let listed = policy.run(|| self.lister.page(&request)).await;
        listed.map_err(|error| OpenError::store(&self.name, &error))?;
        Ok(())
    }

    /// What was sent so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Tells this bucket from those of the same name that other services have.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// `s3://BUCKET` and the like, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.name).finish()
    }
}
